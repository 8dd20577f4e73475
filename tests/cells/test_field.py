"""A cell's class follows from how strongly and how far around its membrane stains."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

from tests.cells.conftest import crowded, nearest, picture, tissue
from wsi_her2.cells.field import (
    CellCutoffs,
    CellSettings,
    grade_cells,
    measure_cells,
    strength_along,
)
from wsi_her2.cells.rings import DIRECTIONS
from wsi_her2.phantom import PhantomSpec, render_phantom
from wsi_her2.slides.slide import open_slide
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.tissue import detect_tissue

MPP = 0.25
AT_ONE = CellCutoffs(1.0, 1.0, 1.0)


def of_density(density, draw=tissue, **options):
    rgb, centres = draw(density, **options)
    cells = measure_cells(rgb, options.get("mpp", MPP))
    assert len(cells.xy) == len(centres)
    assert nearest(cells.xy, centres).max() * options.get("mpp", MPP) < 0.5
    return cells


@pytest.mark.parametrize(("density", "grade"), [(0.0, 0), (0.02, 0), (0.12, 2), (0.4, 2), (1.2, 3)])
def test_closed_membranes_of_rising_density_are_0_2_and_3(density, grade):
    assert set(of_density(density, crowded).grade.tolist()) == {grade}


def test_margins_rise_with_density():
    medians = [np.median(of_density(density, crowded).margins, axis=0) for density in (0.0, 0.06, 0.2, 0.9)]
    assert (np.diff(medians, axis=0) >= 0).all()
    assert medians[0].tolist() == pytest.approx([0, 0, 0], abs=0.9)


def test_strength_and_completeness_rise_with_density():
    measured = [of_density(density) for density in (0.0, 0.12, 0.5)]
    assert [float(cells.completeness.min()) for cells in measured] == [0.0, 1.0, 1.0]
    strengths = [np.median(cells.strength) for cells in measured]
    assert strengths[0] < 0.1 * strengths[1] < 0.1 * strengths[2]


@pytest.mark.parametrize("density", [0.12, 0.2])
def test_a_membrane_that_is_half_there_is_1(density):
    cells = of_density(density, span=(30.0, 210.0), ground=0.1)
    assert set(cells.grade.tolist()) == {1}
    np.testing.assert_allclose(cells.completeness, 0.5, atol=0.13)


def test_a_short_stretch_of_faint_membrane_is_0():
    assert set(of_density(0.12, span=(30.0, 60.0), ground=0.1).grade.tolist()) == {0}


@pytest.mark.parametrize("mpp", [0.25, 0.32])
def test_the_scale_of_the_scan_does_not_change_the_class(mpp):
    assert set(of_density(0.12, crowded, mpp=mpp, side=448).grade.tolist()) == {2}


def test_granular_blush_without_membranes_is_not_complete():
    rgb, centres = tissue(0.0)
    noise = cv2.GaussianBlur(np.random.default_rng(3).normal(0, 1, rgb.shape[:2]), (0, 0), 1.0 / MPP)
    granules = np.maximum(0.2 + 0.1 * noise / noise.std(), 0)
    blushing = (rgb / 255.0 * picture(np.zeros_like(granules), granules)).round().astype(np.uint8)
    cells = measure_cells(blushing, MPP)
    at_nuclei = np.linalg.norm(cells.xy[:, None] - centres[None], axis=2).argmin(axis=0)
    assert (cells.completeness[at_nuclei] > 0.75).all(), "else it would not mislead"
    assert cells.grade[at_nuclei].max() <= 1


def test_even_blush_is_0():
    rgb, _ = tissue(0.0)
    blushing = (rgb / 255.0 * picture(np.zeros(rgb.shape[:2]), np.full(rgb.shape[:2], 0.3))).round()
    assert set(measure_cells(blushing.astype(np.uint8), MPP).grade.tolist()) == {0}


def test_what_surrounds_a_nucleus_is_dense_in_epithelium_and_thin_in_stroma():
    rgb, _ = tissue(0.0)
    dense = np.zeros(rgb.shape[:2])
    dense[:, : rgb.shape[1] // 2] = 0.15
    cells = measure_cells((rgb / 255.0 * picture(dense, 0 * dense)).round().astype(np.uint8), MPP)
    x = cells.xy[:, 0]
    inside, outside = cells.surround[x < 200], cells.surround[x > 312]
    assert inside.min() > 0.05
    assert outside.max() < 0.01


def test_empty_glass_has_no_cells():
    cells = measure_cells(np.full((128, 160, 3), 255, np.uint8), MPP)
    assert cells.xy.shape == (0, 2)
    assert {len(part) for part in vars(cells).values()} == {0}


def test_chosen_cells_keep_all_that_was_measured_of_them():
    rgb, _ = tissue(0.12)
    cells = measure_cells(rgb, MPP)
    chosen = cells.xy[:, 0] > 250
    some = cells.where(chosen)
    assert 0 < len(some.xy) < len(cells.xy)
    for name in vars(cells):
        np.testing.assert_array_equal(getattr(some, name), getattr(cells, name)[chosen])


# From margins to classes


@pytest.mark.parametrize(
    ("margins", "expected"),
    [((0, 0, 0), 0), ((0.9, 0.5, 0), 0), ((1.1, 0.9, 0.2), 1), ((3, 1.1, 0.9), 2), ((3.3, 2, 1.1), 3)],
)
def test_a_cell_is_of_the_last_class_whose_border_it_is_beyond(margins, expected):
    grade = grade_cells(np.array([margins], np.float32), AT_ONE)
    assert grade.dtype == np.int8
    assert grade.tolist() == [expected]


def test_another_scale_of_dab_and_other_cutoffs_move_the_borders():
    margins = np.array([[2.0, 1.0, 0.5]], np.float32)
    assert [int(grade_cells(margins, AT_ONE, scale)[0]) for scale in (0.4, 0.9, 1.1, 2.1)] == [0, 1, 2, 3]
    assert grade_cells(margins, replace(AT_ONE, complete=0.9)).tolist() == [2]
    assert grade_cells(margins, CellCutoffs(2.1, 0.9, 0.4)).tolist() == [0]


@pytest.mark.parametrize("share", [0.01, 0.25, 0.375, 0.5, 0.75, 1.0])
def test_the_strength_along_a_share_is_reached_by_that_share_and_not_by_more(share):
    lines = np.random.default_rng(4).random((50, DIRECTIONS)).astype(np.float32)
    along = strength_along(lines, share)
    reached = (lines >= along[:, None]).sum(axis=1)
    assert set(reached.tolist()) == {max(1, round(share * DIRECTIONS))}


def test_cutoffs_are_settings():
    rgb, _ = tissue(0.5)
    margins = measure_cells(rgb, MPP).margins
    assert set(measure_cells(rgb, MPP, CellSettings(cutoffs=CellCutoffs(9.0, 9.0, 9.0))).grade.tolist()) == {0}
    assert margins[:, 0].min() > 1


# Digital slides, whose truth is known to the cell


@pytest.mark.parametrize("score", ["0", "2+", "3+"])
def test_cells_of_a_digital_slide_are_found_and_as_many_are_complete_as_are_drawn(tmp_path, score):
    path = tmp_path / "slide.tif"
    spec = PhantomSpec(score=score, width_mm=0.5, height_mm=0.5, seed=7, look="oesophagus_tma", tumour_share=0.6)
    truth = render_phantom(spec, path)
    with open_slide(path) as slide:
        glass = StainCorrection("white-point", detect_tissue(slide).white_point.rgb)
        cells = measure_cells(glass.apply(slide.read(0, 0, *slide.dimensions)), MPP)
    true = pd.read_csv(path.with_suffix(".cells.csv"))
    true = true[true["tissue"] != "fat"]
    distance, index = cKDTree(true[["x", "y"]]).query(cells.xy)
    near = distance <= 4.0 / MPP
    found = len(set(index[near].tolist()))
    precision, recall = found / len(cells.xy), found / len(true)
    assert 2 * precision * recall / (precision + recall) >= 0.8
    tumour = near & true["counts"].to_numpy()[index]
    assert 100 * (cells.grade[tumour] >= 2).mean() == pytest.approx(truth.pct_complete_membrane, abs=15)
