"""What QuPath 0.4 to 0.6 reads from GeoJSON, as a JSON schema, and how it counts what it has read.

Written down from QuPath's documentation and from the behaviour of its reader: an object is of one of six types, a
class without a colour is an error, measurements are numbers by name, coordinates are pixels of the full image.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

_POSITION = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}
_RING = {"type": "array", "items": _POSITION, "minItems": 4}
_POLYGON = {"type": "array", "items": _RING, "minItems": 1}
_COLOUR = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": 255},
    "minItems": 3,
    "maxItems": 4,
}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "features"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "geometry", "properties"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "Feature"},
                    "id": {"type": "string", "format": "uuid"},
                    "geometry": {
                        "oneOf": [
                            {
                                "type": "object",
                                "required": ["type", "coordinates"],
                                "properties": {"type": {"const": "Polygon"}, "coordinates": _POLYGON},
                            },
                            {
                                "type": "object",
                                "required": ["type", "coordinates"],
                                "properties": {
                                    "type": {"const": "MultiPolygon"},
                                    "coordinates": {"type": "array", "items": _POLYGON, "minItems": 1},
                                },
                            },
                        ]
                    },
                    "nucleusGeometry": {"type": "object"},
                    "properties": {
                        "type": "object",
                        "required": ["objectType"],
                        "additionalProperties": False,
                        "properties": {
                            "objectType": {"enum": ["annotation", "detection", "tile", "cell", "tmaCore", "root"]},
                            "name": {"type": "string"},
                            "color": _COLOUR,
                            "classification": {
                                "type": "object",
                                "required": ["color"],
                                "additionalProperties": False,
                                "oneOf": [{"required": ["name"]}, {"required": ["names"]}],
                                "properties": {
                                    "name": {"type": "string", "minLength": 1},
                                    "names": {
                                        "type": "array",
                                        "items": {"type": "string", "minLength": 1},
                                        "minItems": 1,
                                    },
                                    "color": _COLOUR,
                                },
                            },
                            "isLocked": {"type": "boolean"},
                            "measurements": {"type": "object", "additionalProperties": {"type": "number"}},
                            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                        },
                    },
                },
            },
        },
    },
}


def class_of(feature: dict[str, Any]) -> tuple[str, ...]:
    """The class of a feature, from the outer to the inner part of its name."""
    named = feature["properties"]["classification"]
    return tuple(named["names"]) if "names" in named else tuple(named["name"].split(": "))


def h_scores(features: Iterable[dict[str, Any]]) -> dict[tuple[str, ...], float]:
    """The H-scores that QuPath shows for what surrounds these features, by the class above the grades.

    Tiles count as detections; a grade is a class whose last name is `Negative`, `1+`, `2+` or `3+`.
    """
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for feature in features:
        *above, name = class_of(feature)
        if feature["properties"]["objectType"] != "annotation" and name in ("Negative", "1+", "2+", "3+"):
            counts.setdefault(tuple(above), Counter())[name] += 1
    return {
        above: 100 * (of["1+"] + 2 * of["2+"] + 3 * of["3+"]) / math.fsum(of.values())
        for above, of in counts.items()
    }
