"""Fields in which cells were counted are shown from the least staining on, with each cell where it lies."""

import numpy as np
import pytest

from wsi_her2.reports.cell_views import VIEWS, draw_cell_views
from wsi_her2.reports.palette import colour_of
from wsi_her2.scoring.rule import SCORES

SIDE, WIDTH = 128, 448


@pytest.fixture
def drawn(scored, cell_table):
    return draw_cell_views(cell_table.path, scored.slide, scored.store)


def test_some_fields_are_shown_from_the_least_to_the_most_staining(scored, cell_table, drawn):
    assert len(drawn) == VIEWS
    corners = [tuple(corner) for corner in scored.store.xy.tolist()]
    shown = [corners.index((x, y)) for x, y, _ in drawn]
    grades = [cell_table.mean_grade[row] for row in shown]
    assert grades == sorted(grades)
    assert (grades[0], grades[-1]) == (min(cell_table.mean_grade.values()), max(cell_table.mean_grade.values()))


def test_the_tissue_stands_beside_it_untouched(scored, drawn):
    for x, y, rgb in drawn:
        assert rgb.shape == (WIDTH, 2 * WIDTH, 3)
        assert rgb.dtype == np.uint8
        field = scored.slide.read(x, y, WIDTH, WIDTH, scored.slide.mpp * SIDE / WIDTH)
        np.testing.assert_array_equal(rgb[:, :WIDTH], field)


def test_each_tumour_cell_is_ringed_in_its_colour_and_nothing_else_is(scored, cell_table, drawn):
    scale = WIDTH / SIDE
    radius = round(4.0 / scored.slide.mpp * scale)
    for x, y, rgb in drawn:
        drawn_on = (rgb[:, WIDTH:] != rgb[:, :WIDTH]).any(axis=2)
        cells = [cell for cell in cell_table.cells if x <= cell[0] < x + SIDE and y <= cell[1] < y + SIDE]
        assert any(tumour for *_, tumour in cells)
        near = np.zeros((WIDTH, WIDTH), bool)
        rows, columns = np.mgrid[:WIDTH, :WIDTH]
        for cell_x, cell_y, grade, tumour in cells:
            across, down = round((cell_x - x) * scale), round((cell_y - y) * scale)
            ring = abs(np.hypot(columns - across, rows - down) - radius) <= 5
            if tumour:
                near |= ring
                left = rgb[down, WIDTH + across - radius]
                assert np.abs(left.astype(int) - colour_of(SCORES[grade])).max() < 40
        assert not drawn_on[~near].any()


def test_without_tumour_cells_there_is_nothing_to_show(scored, write_cells):
    assert draw_cell_views(write_cells([]), scored.slide, scored.store) == []
    xy = scored.store.xy[scored.store.grid.selected][0]
    alone = write_cells([(int(xy[0]) + 60, int(xy[1]) + 60, 2, False)])
    assert draw_cell_views(alone, scored.slide, scored.store) == []


def test_one_field_is_shown_once(scored, write_cells):
    xy = scored.store.xy[scored.store.grid.selected][5]
    views = draw_cell_views(write_cells([(int(xy[0]) + 60, int(xy[1]) + 60, 2, True)]), scored.slide, scored.store)
    assert [(x, y) for x, y, _ in views] == [tuple(xy.tolist())]
