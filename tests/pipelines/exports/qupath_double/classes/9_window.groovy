package qupath.lib.gui

import qupath.lib.images.ImageData

class Viewer {
    ImageData imageData
}

class QuPathGUI {
    private static QuPathGUI instance
    List allViewers
    List availablePathClasses
    static QuPathGUI getInstance() { instance }
    static void show(project) {
        def first = project.imageList[0]
        first.shown = first.saved
        // What lies on disk is not what is open, so that it shows which of them is used.
        first.saved = new ImageData()
        instance = new QuPathGUI(allViewers: [new Viewer(), new Viewer(imageData: first.shown)],
            availablePathClasses: project.pathClasses)
    }
    void refreshProject() { }
}
