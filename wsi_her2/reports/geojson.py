"""`overlay.geojson`: the tissue, the tumour patches and the counted cells as QuPath imports them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from wsi_her2.atomic import text_beside
from wsi_her2.cells.table import tumour_cells
from wsi_her2.reports.palette import OTHER, Colour, colour_of
from wsi_her2.reports.patches import scored_patches, side_px0
from wsi_her2.reports.qupath_classes import (
    Names,
    cell_class,
    classification,
    patch_class,
    tissue_classification,
)
from wsi_her2.scoring.rule import SCORES
from wsi_her2.slides.store import PatchStore
from wsi_her2.slides.tissue import TissueMask, outline_pieces

_CELL_RADIUS_UM = 3.5
_CELL_CORNERS = 8


def write_overlay_geojson(
    path: Path,
    store: PatchStore,
    classes: tuple[str, ...],
    mask: TissueMask,
    *,
    cells: Path | None = None,
    mpp: float | None = None,
) -> None:
    """Write a GeoJSON FeatureCollection for QuPath: the tissue, a tile for each tumour patch, the counted cells.

    Coordinates are level-0 pixels of the slide, whole numbers. A tile carries its class (see `qupath_classes`),
    the class's colour and the probabilities as measurements. Patches classified as 'other' are left out, to keep
    the file small: they are most of many slides, and `patches.csv` has them. So the file answers where the tumour
    is and how it stains, not which patches were looked at. Features are written one by one, so memory does not
    grow with them.

    Parameters
    ----------
    path : pathlib.Path
    store : PatchStore
    classes : tuple of str
        Those of the store.
    mask : TissueMask
    cells : pathlib.Path, optional
        The slide's table of cells. Each tumour cell becomes a detection, drawn as an octagon around the nucleus.
    mpp : float, optional
        Of level 0; needed with `cells`.
    """
    with text_beside(path) as stream:
        stream.write('{"type":"FeatureCollection","features":[')
        before = "\n"
        for feature in _features(store, classes, mask):
            stream.write(before + feature)
            before = ",\n"
        if cells is not None and mpp is not None:
            for feature in _cell_features(cells, _CELL_RADIUS_UM / mpp):
                stream.write(before + feature)
                before = ",\n"
        stream.write("\n]}\n")


def _features(store: PatchStore, classes: tuple[str, ...], mask: TissueMask) -> Iterator[str]:
    pieces = outline_pieces(mask)
    if pieces:
        yield _json(
            {
                "type": "Feature",
                "geometry": {"type": "MultiPolygon", "coordinates": pieces},
                "properties": {
                    "objectType": "annotation",
                    "name": "Tissue",
                    "classification": tissue_classification(),
                    "isLocked": True,
                },
            }
        )
    side = side_px0(store)
    around = [(0, 0), (side, 0), (side, side), (0, side), (0, 0)]
    templates = [_template("tile", patch_class(name), colour_of(name), around, classes) for name in classes]
    for batch in scored_patches(store, classes):
        columns = (batch.xy.tolist(), batch.probabilities.tolist(), batch.labels.tolist())
        for (x, y), probabilities, label in zip(*columns, strict=True):
            if classes[label] != OTHER:
                yield _filled(templates[label], around, x, y, [round(share, 4) for share in probabilities])


def _cell_features(cells: Path, radius_px: float) -> Iterator[str]:
    turns = [2 * math.pi * corner / _CELL_CORNERS for corner in (*range(_CELL_CORNERS), 0)]
    around = [(round(radius_px * math.cos(turn)), round(radius_px * math.sin(turn))) for turn in turns]
    measured = ("Membrane completeness", "Membrane strength (OD)")
    templates = [_template("detection", cell_class(score), colour_of(score), around, measured) for score in SCORES]
    for batch in tumour_cells(cells):
        columns = (batch["x"], batch["y"], batch["her2_class"], batch["completeness"], batch["strength"])
        for x, y, grade, completeness, strength in zip(*columns, strict=True):
            yield _filled(templates[grade], around, x, y, [round(completeness, 3), round(strength, 4)])


def _template(
    kind: str, names: Names, colour: Colour, around: Sequence[tuple[int, int]], measured: Sequence[str]
) -> str:
    """A polygon with measurements as JSON, with a place for each of its numbers.

    There may be a million of them, and encoding each takes ten times as long as filling in its numbers.
    """
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[_NUMBER, _NUMBER] for _ in around]]},
        "properties": {
            "objectType": kind,
            "classification": classification(names, colour),
            "measurements": dict.fromkeys(measured, _NUMBER),
            "isLocked": True,
        },
    }
    return _json(feature).replace("%", "%%").replace(_json(_NUMBER), "%r")


def _filled(template: str, around: Sequence[tuple[int, int]], x: int, y: int, measured: Sequence[float]) -> str:
    corners = [number for dx, dy in around for number in (x + dx, y + dy)]
    return template % (*corners, *measured)


_NUMBER = "\0"
"""Stands where a number comes in a template; no name holds it."""


def _json(content: object) -> str:
    return json.dumps(content, separators=(",", ":"))
