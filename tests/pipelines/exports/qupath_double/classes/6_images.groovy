package qupath.lib.images

import qupath.lib.objects.PathObject

class Hierarchy {
    List<PathObject> objects = []
    Collection<PathObject> getAllObjects(boolean includeRoot) { new ArrayList(objects) }
    void addObjects(Collection<PathObject> added) { objects.addAll(added) }
    void removeObjects(Collection<PathObject> removed, boolean keepChildren) { objects.removeAll(removed) }
}

class Server {
    boolean closed
    void close() { closed = true }
}

class ImageData {
    enum ImageType { UNSET, BRIGHTFIELD_H_DAB, BRIGHTFIELD_H_E }
    ImageType imageType = ImageType.UNSET
    Hierarchy hierarchy = new Hierarchy()
    Server server = new Server()
}
