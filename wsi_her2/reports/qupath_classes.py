"""Names of classes in QuPath, and their colours.

QuPath knows the classes `Negative`, `1+`, `2+` and `3+` as grades of staining: of detections with them it makes
percentages and an H-score for each annotation. Cells get these names below `Tumor`, so that `Tumor: H-score` in
QuPath is that of the counted cells. Patches must not get them: QuPath counts tiles as detections too, and would
add patches to cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wsi_her2.reports.palette import OTHER, Colour, colour_of
from wsi_her2.scoring.rule import SCORES

Names = tuple[str, ...]
"""A class from the outer to the inner part of its name; QuPath shows `Tumor: 1+`."""

TISSUE: Names = ("Tissue",)
_TISSUE_COLOUR = (0, 150, 60)
_TUMOUR = "Tumor"
_GRADES: dict[str, str] = {SCORES[0]: "Negative"}


def patch_class(name: str) -> Names:
    """Class of a patch."""
    return (f"Patch {name}",)


def cell_class(score: str) -> Names:
    """Class of a counted cell."""
    return (_TUMOUR, _GRADES.get(score, score))


def classification(names: Names, colour: Colour) -> dict[str, Any]:
    """A class as QuPath writes it into GeoJSON; it reads none without a colour."""
    named = {"name": names[0]} if len(names) == 1 else {"names": list(names)}
    return {**named, "color": list(colour)}


def tissue_classification() -> dict[str, Any]:
    """The class of the tissue's outline."""
    return classification(TISSUE, _TISSUE_COLOUR)


def class_colours(classes: Iterable[str]) -> dict[Names, Colour]:
    """All classes that an overlay of a model with these classes can hold."""
    patches = {patch_class(name): colour_of(name) for name in classes if name != OTHER}
    cells = {cell_class(score): colour_of(score) for score in SCORES}
    return {TISSUE: _TISSUE_COLOUR, **patches, **cells}
