"""Fields in which cells were counted, as a person checks them: the tissue, and beside it each cell ringed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.cells.table import tumour_cells
from wsi_her2.errors import SlideReadError
from wsi_her2.reports.palette import colour_of
from wsi_her2.scoring.rule import SCORES
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.slide import Slide
from wsi_her2.slides.store import PatchStore

VIEWS = 4
_VIEW_PX = 448
_RADIUS_UM = 4.0


def draw_cell_views(cells: Path, slide: Slide, store: PatchStore) -> list[tuple[int, int, RGB]]:
    """Draw a few of the fields, from the one that stains least to the one that stains most.

    Parameters
    ----------
    cells : pathlib.Path
        The slide's table of cells.
    slide : Slide
    store : PatchStore

    Returns
    -------
    list of (x, y, uint8 448 x 896 x 3)
        Top-left corner of the field in level-0 pixels; the tissue on the left, ringed cells on the right.
    """
    count, grades = (np.zeros(len(store.xy), np.int64) for _ in range(2))
    for batch in tumour_cells(cells):
        patch = np.asarray(batch["patch"], np.int64)
        np.add.at(count, patch, 1)
        np.add.at(grades, patch, np.asarray(batch["her2_class"], np.int64))
    held = np.flatnonzero(count)
    if len(held) == 0:
        return []
    full = held[count[held] >= np.median(count[held])]
    by_staining = full[np.argsort(grades[full] / count[full], kind="stable")]
    chosen = by_staining[np.unique(np.linspace(0, len(by_staining) - 1, VIEWS).round().astype(int))]
    ringed: dict[int, list[tuple[int, int, int]]] = {int(row): [] for row in chosen}
    for batch in tumour_cells(cells):
        for row, x, y, grade in zip(batch["patch"], batch["x"], batch["y"], batch["her2_class"], strict=True):
            if row in ringed:
                ringed[row].append((x, y, grade))
    side_px0 = store.grid.patch_px0
    views = []
    for row, cells_of_field in ringed.items():
        x, y = (int(value) for value in store.xy[row])
        try:
            rgb = slide.read(x, y, _VIEW_PX, _VIEW_PX, slide.mpp * side_px0 / _VIEW_PX)
        except SlideReadError:
            continue
        views.append((x, y, np.hstack([rgb, _ring(rgb, cells_of_field, (x, y), slide.mpp, side_px0)])))
    return views


def _ring(
    rgb: RGB, cells: list[tuple[int, int, int]], corner: tuple[int, int], mpp: float, side_px0: int
) -> npt.NDArray[np.uint8]:
    drawn = rgb.copy()
    scale = _VIEW_PX / side_px0
    radius = round(_RADIUS_UM / mpp * scale)
    for x, y, grade in cells:
        place = (round((x - corner[0]) * scale), round((y - corner[1]) * scale))
        cv2.circle(drawn, place, radius, (255, 255, 255), 4, cv2.LINE_AA)
        cv2.circle(drawn, place, radius, colour_of(SCORES[grade]), 2, cv2.LINE_AA)
    return drawn
