"""Measured cells on any DAB scale: margins are factors on it, so classes follow without measuring again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_her2.cells.field import CellCutoffs, Cells, grade_cells
from wsi_her2.cells.grading import BORDERS
from wsi_her2.slides.density import Float32

Percentages = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class CellMargins:
    """What decides the classes of cells.

    Attributes
    ----------
    margins : float32 N x 3
    tumour_probability : float32 N
        As of `wsi_her2.cells.field.Cells`.
    """

    margins: Float32
    tumour_probability: Float32


def margins_of(fields: Sequence[Cells]) -> CellMargins:
    """Of the cells of some fields together."""
    return CellMargins(
        np.concatenate([np.zeros((0, len(BORDERS)), np.float32), *(cells.margins for cells in fields)]),
        np.concatenate([np.zeros(0, np.float32), *(cells.tumour_probability for cells in fields)]),
    )


def percentages_at(
    cells: CellMargins, cutoffs: CellCutoffs, min_tumour_probability: float, min_cells: int, scale: float = 1.0
) -> Percentages | None:
    """Percentages of 0, 1+, 2+ and 3+, were DAB stronger by a factor.

    Parameters
    ----------
    cells : CellMargins
    cutoffs : CellCutoffs
    min_tumour_probability : float
        Cells that are less probably of the tumour do not count.
    min_cells : int
        With fewer tumour cells there are no percentages.
    scale : float

    Returns
    -------
    tuple of float or None
    """
    tumour = cells.tumour_probability >= np.float32(min_tumour_probability)
    if tumour.sum() < max(min_cells, 1):
        return None
    grades = grade_cells(cells.margins[tumour], cutoffs, scale)
    zero, one, two, three = (100 * np.bincount(grades, minlength=4) / len(grades)).tolist()
    return zero, one, two, three
