package qupath.lib.objects.classes

class PathClass {
    // One instance for each name, and its first colour stays: as in QuPath.
    private static final Map<String, PathClass> KNOWN = [:]
    String name
    Integer color
    static PathClass fromCollection(Collection<String> names, Integer color) {
        def name = names.join(': ')
        if (!KNOWN.containsKey(name)) {
            KNOWN[name] = new PathClass(name: name, color: color)
        }
        KNOWN[name]
    }
    String toString() { name }
}
