package qupath.lib.io

import qupath.lib.objects.PathObject
import qupath.lib.objects.classes.PathClass

class PathIO {
    // What QuPath's reader of GeoJSON asks of a feature; see tests/reports/qupath_geojson.py.
    static List<PathObject> readObjects(File file) {
        new groovy.json.JsonSlurper().parse(file, 'UTF-8').features.collect { feature ->
            def given = feature.properties
            def named = given.classification
            def colour = named.color
            def packed = qupath.lib.common.ColorTools.packRGB(colour[0] as int, colour[1] as int, colour[2] as int)
            new PathObject(kind: given.objectType, name: given.name, locked: given.isLocked as boolean,
                measurements: given.measurements ?: [:],
                pathClass: PathClass.fromCollection(named.names ?: [named.name], packed))
        }
    }
}
