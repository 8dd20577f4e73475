"""Regions drawn on a slide while it is reviewed: what must not count, and what alone is to be scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsi_her2.errors import RegionsError
from wsi_her2.messages import shortened
from wsi_her2.slides.regions import Region, RegionNames, parse_regions, sort_by_name

SCORE, EXCLUDE = "score", "exclude"
"""Names of drawn regions: only what lies in the first counts, nothing of what lies in the second does."""

MOST_REGIONS, MOST_CORNERS = 500, 50_000
"""On a slide. They are drawn by hand, and scored while somebody waits."""

_FURTHEST_PX = 10_000_000
"""Of a corner from the slide's own; no slide is that large."""


def sorted_drawn(regions: Sequence[Region], names: RegionNames | None = None) -> tuple[list[Region], list[Region]]:
    """Drawn regions that are to be scored, and those that are not to count.

    Parameters
    ----------
    regions : sequence of Region
    names : RegionNames, optional
        More names for either than 'score' and 'exclude'.

    Raises
    ------
    RegionsError
        There are too many, a corner lies nowhere, or a name means nothing.
    """
    if len(regions) > MOST_REGIONS or sum(len(ring) for r in regions for ring in r.rings) > MOST_CORNERS:
        raise RegionsError(
            f"more than {MOST_REGIONS} regions or {MOST_CORNERS:,} corners on one slide: draw fewer, simpler ones"
        )
    if any(abs(value) > _FURTHEST_PX for r in regions for ring in r.rings for corner in ring for value in corner):
        raise RegionsError("a corner of a region lies far beyond the slide; corners are in level-0 pixels")
    more = names or RegionNames((), ())
    known = RegionNames((SCORE, *more.include), (EXCLUDE, *more.exclude))
    included, excluded, unknown = sort_by_name(regions, known)
    if unknown:
        found = shortened(", ".join(sorted({region.name or "" for region in unknown})))
        raise RegionsError(f"regions named {found}: a drawn region is named {SCORE} or {EXCLUDE}")
    return included, excluded


def parse_drawn(content: Any) -> tuple[Region, ...]:
    """Drawn regions from GeoJSON that was read already, possibly none.

    Parameters
    ----------
    content : object
        A FeatureCollection of Polygons and MultiPolygons named 'score' or 'exclude'.

    Raises
    ------
    RegionsError
        It is something else; see also `sorted_drawn`.
    """
    if not isinstance(content, Mapping) or content.get("type") != "FeatureCollection":
        raise RegionsError("drawn regions are a FeatureCollection of polygons")
    regions = parse_regions(content)
    if len(regions) < len(content["features"]):
        raise RegionsError("drawn regions are polygons, each with an outline")
    sorted_drawn(regions)
    return regions


def as_geojson(regions: Iterable[Region], renamed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Regions as a FeatureCollection that this program and QuPath read; corners in whole level-0 pixels.

    Parameters
    ----------
    regions : iterable of Region
    renamed : mapping of str to str, optional
        Other names for some.
    """
    features = []
    for region in regions:
        name = (renamed or {}).get(region.name or "", region.name)
        properties: dict[str, Any] = {"objectType": "annotation"}
        if name is not None:
            properties |= {"name": name, "classification": {"name": name}}
        rings = [[[round(x), round(y)] for x, y in ring] for ring in region.rings]
        closed = [ring if ring[0] == ring[-1] else [*ring, ring[0]] for ring in rings]
        features.append(
            {
                "type": "Feature",
                "properties": properties,
                "geometry": {"type": "Polygon", "coordinates": closed},
            }
        )
    return {"type": "FeatureCollection", "features": features}
