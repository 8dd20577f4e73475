package qupath.lib.objects

import qupath.lib.objects.classes.PathClass

class PathObject {
    String kind
    String name
    boolean locked
    PathClass pathClass
    Map<String, Number> measurements = [:]
    boolean isAnnotation() { kind == 'annotation' }
    boolean isTile() { kind == 'tile' }
}
