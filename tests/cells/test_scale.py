"""Cells that were measured once are classed on any DAB scale as if they had been measured on it."""

from dataclasses import replace

import numpy as np
import pytest

from tests.cells.conftest import crowded
from wsi_her2.cells.field import CellCutoffs, measure_cells
from wsi_her2.cells.scale import margins_of, percentages_at

MPP = 0.25
CUTOFFS = CellCutoffs()


def field(density):
    """Cells of that density."""
    return measure_cells(crowded(density)[0], MPP)


@pytest.mark.parametrize(("density", "grade"), [(0.2, 2), (0.4, 2), (1.2, 3)])
def test_a_scale_classes_cells_like_dab_of_that_density(density, grade):
    measured = margins_of([field(0.4)])
    scaled = percentages_at(measured, CUTOFFS, 0.0, 1, density / 0.4)
    assert scaled == percentages_at(margins_of([field(density)]), CUTOFFS, 0.0, 1)
    assert scaled[grade] == 100


def test_percentages_are_of_the_cells_of_all_fields():
    faint, intense = field(0.15), field(1.2)
    half = intense.where(np.arange(len(intense.xy)) % 2 == 0)
    both = percentages_at(margins_of([faint, half]), CUTOFFS, 0.0, 1)
    few, many = len(half.xy), len(faint.xy)
    assert 0 < few < many
    assert both == pytest.approx((0, 0, 100 * many / (many + few), 100 * few / (many + few)))


def test_cells_that_are_hardly_of_the_tumour_do_not_count():
    cells = field(1.2)
    other = np.arange(len(cells.xy)) < 4
    bare = np.where(other[:, None], 0, cells.margins).astype(np.float32)
    mixed = replace(cells, margins=bare, tumour_probability=np.where(other, 0.4, 0.5).astype(np.float32))
    assert percentages_at(margins_of([mixed]), CUTOFFS, 0.5, 1)[3] == 100
    assert percentages_at(margins_of([mixed]), CUTOFFS, 0.4, 1)[3] < 100


def test_with_too_few_cells_there_are_no_percentages():
    cells = margins_of([field(0.5)])
    count = len(cells.margins)
    assert percentages_at(cells, CUTOFFS, 0.0, count) is not None
    assert percentages_at(cells, CUTOFFS, 0.0, count + 1) is None
    assert percentages_at(margins_of([]), CUTOFFS, 0.5, 0) is None
