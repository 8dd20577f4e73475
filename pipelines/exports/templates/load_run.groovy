/*
 * Loads the results of a run of wsi-her2 into the project that is open in QuPath (0.5, 0.6).
 * Research use only. Not a medical device. Not for diagnosis or for the choice of treatment.
 *
 * In QuPath: open the project that holds the slides, drag this file onto the window, Run > Run.
 * From a terminal: QuPath script --project PROJECT/project.qpproj load_run.groovy
 *
 * For each image of the project whose file is one of the run's slides it reads overlay.geojson (the tissue, a tile
 * for each patch of tumour, the counted cells), gives the classes their colours and keeps the call as metadata of
 * the project's entry. What an earlier run of this script has loaded is replaced; nothing else is touched.
 */
import com.google.gson.Gson
import qupath.lib.common.ColorTools
import qupath.lib.gui.QuPathGUI
import qupath.lib.images.ImageData
import qupath.lib.io.PathIO
import qupath.lib.objects.classes.PathClass
import qupath.lib.scripting.QP

// The folder that `wsi-her2 score -o` wrote. Where it lies elsewhere now, say so here, or pass it with --args.
def RUN = @RUN@
if (binding.hasVariable('args') && args) {
    RUN = args[0]
}

// The slides of the run, and the classes with their colours, as JSON.
def TABLE = [
@TABLE@
]
def CLASSES = [
@CLASSES@
]

def gson = new Gson()
def slides = TABLE.collectMany { gson.fromJson(it, List) as List }
def classes = CLASSES.collect { text ->
    def row = gson.fromJson(text, List) as List
    def colour = ColorTools.packRGB(row[1][0] as int, row[1][1] as int, row[1][2] as int)
    def pathClass = PathClass.fromCollection(row[0] as List<String>, colour)
    // A class that was there before has kept its own.
    pathClass.setColor(colour)
    pathClass
}

def project = QP.getProject()
if (project == null) {
    throw new IllegalStateException('No project is open. Open the project that holds the slides, then run this again.')
}
def folder = new File(RUN as String)
if (!folder.isDirectory()) {
    throw new IllegalStateException('There is no folder ' + folder + '. Set RUN at the top of this script to the folder ' +
        'that wsi-her2 wrote.')
}

// Where a run has two slides of one file name, the whole path decides.
def nameOf = { String path -> path.replace('\\', '/').tokenize('/') ? path.replace('\\', '/').tokenize('/').last() : path }
def byName = slides.groupBy { nameOf(it.path as String) }
def pathsOf = { entry ->
    entry.getURIs().collect { uri -> uri.getScheme() == 'file' ? new File(uri).getPath() : uri.toString() }
}
def slideOf = { entry ->
    def paths = pathsOf(entry).collect { it.replace('\\', '/') }
    def candidates = paths.collectMany { byName.get(nameOf(it)) ?: [] }.unique()
    if (candidates.size() > 1) {
        candidates = candidates.findAll { (it.path as String).replace('\\', '/') in paths }
    }
    candidates.size() == 1 ? candidates[0] : null
}

def gui = QuPathGUI.getInstance()
def openImageOf = { entry ->
    gui == null ? null : gui.getAllViewers().collect { it.getImageData() }.find { it != null && project.getEntry(it) == entry }
}

// What this script loaded before: the classes are its own, or the measurements are.
def ours = classes.toSet()
def isOurs = { object ->
    if (!(object.getPathClass() in ours) || !object.isLocked()) {
        return false
    }
    if (object.isAnnotation()) {
        return object.getName() == 'Tissue'
    }
    object.isTile() || object.getMeasurements().containsKey('Membrane strength (OD)')
}

def keep = { entry, Map<String, String> call ->
    // QuPath 0.6 has a map, 0.5 a method.
    if (entry.respondsTo('getMetadata')) {
        entry.getMetadata().putAll(call)
    } else {
        call.each { key, value -> entry.putMetadataValue(key, value) }
    }
}

def loaded = 0
def unmatched = []
def withoutOverlay = []
def failed = []
def found = [] as Set
project.getImageList().each { entry ->
    def slide = slideOf(entry)
    if (slide == null) {
        unmatched << entry.getImageName()
        return
    }
    found << slide.slide_id
    keep(entry, slide.call as Map<String, String>)
    def overlay = new File(new File(folder, slide.slide_id as String), 'overlay.geojson')
    if (!overlay.isFile()) {
        withoutOverlay << slide.slide_id
        return
    }
    try {
        def open = openImageOf(entry)
        def imageData = open ?: entry.readImageData()
        if (slide.image_type && imageData.getImageType() == ImageData.ImageType.UNSET) {
            imageData.setImageType(ImageData.ImageType.valueOf(slide.image_type as String))
        }
        def hierarchy = imageData.getHierarchy()
        def earlier = hierarchy.getAllObjects(false).findAll { isOurs(it) }
        if (earlier) {
            hierarchy.removeObjects(earlier, true)
        }
        def objects = PathIO.readObjects(overlay)
        hierarchy.addObjects(objects)
        entry.saveImageData(imageData)
        if (open == null) {
            imageData.getServer().close()
        }
        loaded++
        println entry.getImageName() + ': ' + objects.size() + ' objects, ' + slide.said
    } catch (Exception error) {
        // One image that cannot be read must not keep the others from their results.
        failed << (entry.getImageName() + ': ' + error)
    }
}

def missing = { known -> classes.findAll { !(it in known) } }
if (gui != null) {
    javafx.application.Platform.runLater {
        def known = gui.getAvailablePathClasses()
        known.addAll(missing(known))
        gui.refreshProject()
    }
} else {
    def known = project.getPathClasses()
    project.setPathClasses(known + missing(known))
}
project.syncChanges()

def absent = slides.findAll { !(it.slide_id in found) }.collect { it.slide_id }
println loaded + ' images have their results. Research use only.'
def tell = { String what, List names ->
    if (names) {
        println what + ' (' + names.size() + '): ' + names.join(', ')
    }
}
tell('Images of the project that are not slides of this run, or cannot be told apart', unmatched)
tell('Slides of this run that are not in the project', absent)
tell('Slides without an overlay: they failed', withoutOverlay)
tell('Images that could not be read or written', failed)
