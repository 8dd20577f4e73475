"""Cells that were measured once are classed on any DAB scale as if they had been measured on it."""

from dataclasses import replace

import numpy as np
import pytest

from tests.cells.conftest import crowded
from wsi_her2.cells.field import CellCutoffs, measure_cells
from wsi_her2.cells.scale import least_surround, margins_of, percentages_at

MPP = 0.25
CUTOFFS = CellCutoffs()


def field(density):
    """Cells of that density."""
    return measure_cells(crowded(density)[0], MPP)


@pytest.mark.parametrize(("density", "grade"), [(0.15, 2), (0.3, 2), (0.9, 3)])
def test_a_scale_classes_cells_like_dab_of_that_density(density, grade):
    measured = margins_of([field(0.3)])
    scaled = percentages_at(measured, CUTOFFS, 0.4, 1, density / 0.3)
    assert scaled == percentages_at(margins_of([field(density)]), CUTOFFS, 0.4, 1)
    assert scaled[grade] == 100


def test_percentages_are_of_the_cells_of_all_fields():
    faint, intense = field(0.15), field(0.9)
    half = intense.where(np.arange(len(intense.xy)) % 2 == 0)
    both = percentages_at(margins_of([faint, half]), CUTOFFS, 0.0, 1)
    few, many = len(half.xy), len(faint.xy)
    assert 0 < few < many
    assert both == pytest.approx((0, 0, 100 * many / (many + few), 100 * few / (many + few)))


def test_nuclei_with_little_around_them_do_not_count():
    cells = field(0.9)
    alone = np.arange(len(cells.xy)) < 4
    mixed = replace(cells, surround=np.where(alone, 0.01, 0.1).astype(np.float32))
    assert least_surround(mixed.surround, 0.4) == pytest.approx(0.04)
    bare = np.where(alone[:, None], 0, cells.margins).astype(np.float32)
    unstained = replace(cells, margins=bare, surround=mixed.surround)
    assert percentages_at(margins_of([unstained]), CUTOFFS, 0.4, 1)[3] == 100
    assert percentages_at(margins_of([unstained]), CUTOFFS, 0.0, 1)[3] < 100


def test_with_too_few_cells_there_are_no_percentages():
    cells = margins_of([field(0.5)])
    count = len(cells.surround)
    assert percentages_at(cells, CUTOFFS, 0.0, count) is not None
    assert percentages_at(cells, CUTOFFS, 0.0, count + 1) is None
    assert percentages_at(margins_of([]), CUTOFFS, 0.4, 0) is None
    assert least_surround(np.zeros(0, np.float32), 0.4) == 0.0
