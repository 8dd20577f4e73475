package qupath.lib.projects

import qupath.lib.images.ImageData
import qupath.lib.objects.PathObject
import qupath.lib.objects.classes.PathClass

class Entry {
    String imageName
    URI uri
    boolean readable
    Map<String, String> kept = [:]
    ImageData saved = new ImageData()
    int saves
    ImageData shown
    List<URI> getURIs() { [uri] }
    ImageData readImageData() {
        if (!readable) {
            throw new IOException('the image has gone')
        }
        saved
    }
    void saveImageData(ImageData data) { saved = data; saves++ }
}

class Entry05 extends Entry {
    String putMetadataValue(String key, String value) { kept.put(key, value) }
}

class Entry06 extends Entry {
    Map<String, String> getMetadata() { kept }
}

class Project {
    List<Entry> imageList = []
    List<PathClass> pathClasses = []
    int synced
    void add(String name, String uri, boolean readable, String version) {
        def entry = version == '0.5' ? new Entry05() : new Entry06()
        entry.imageName = name
        entry.uri = new URI(uri)
        entry.readable = readable
        // Drawn by hand, with a class of the same name: it must stay.
        entry.saved.hierarchy.addObjects([new PathObject(kind: 'annotation', name: 'mine',
            pathClass: PathClass.fromCollection(['Tissue'], 1))])
        imageList << entry
    }
    Entry getEntry(ImageData data) { imageList.find { it.shown.is(data) } }
    void setPathClasses(Collection<PathClass> classes) { pathClasses = classes as List }
    void syncChanges() { synced++ }
    Map described() {
        [classes: pathClasses.collect { [it.name, it.color & 0xffffff] }, synced: synced, entries: imageList.collect {
            [name: it.imageName, metadata: it.kept, saves: it.saves, type: it.saved.imageType.name(),
             closed: it.saved.server.closed, objects: it.saved.hierarchy.objects.countBy { object ->
                object.kind + ' ' + object.pathClass + (object.name ? ' ' + object.name : '')
             }]
        }]
    }
}
