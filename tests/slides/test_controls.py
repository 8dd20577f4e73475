"""Control tissue: small compact pieces that lie apart are found, and left out when asked."""

import numpy as np
import pytest

from wsi_her2.slides.controls import ControlLimits, find_controls, without_controls
from wsi_her2.slides.slide import Box, Overview
from wsi_her2.slides.tissue import tissue_mask
from wsi_her2.slides.white_point import WhitePoint

MPP = 4.0
DOWNSAMPLE = 16


def mask_of(*boxes, size=(500, 500)):
    """Tissue in boxes (top, left, height, width) on an overview at 4 um/px of a slide at 0.25."""
    tissue = np.zeros(size, bool)
    for top, left, height, width in boxes:
        tissue[top : top + height, left : left + width] = True
    rgb = np.full((*size, 3), 240, np.uint8)
    box = Box(0, 0, size[1] * DOWNSAMPLE, size[0] * DOWNSAMPLE)
    overview = Overview(rgb, np.zeros(size, bool), MPP, box)
    return tissue_mask(
        tissue, np.zeros(size, bool), overview, WhitePoint((240.0, 240.0, 240.0), "background", 0.5)
    )


MAIN = (50, 200, 300, 250)


def test_a_small_compact_piece_apart_is_found_where_it_lies():
    (found,) = find_controls(mask_of(MAIN, (100, 20, 60, 60)))
    assert (found.x, found.y, found.width, found.height) == (320, 1600, 960, 960)
    assert found.area_mm2 == pytest.approx(60 * 60 * 16e-6)


def test_three_spots_that_touch_are_one_piece_and_found():
    assert len(find_controls(mask_of(MAIN, (60, 20, 180, 60)))) == 1


@pytest.mark.parametrize(
    "piece",
    [(100, 20, 300, 130), (100, 180, 15, 12), (20, 10, 8, 150)],
    ids=["as large as tissue", "within the gap", "a needle"],
)
def test_other_pieces_are_not_taken_for_controls(piece):
    assert find_controls(mask_of(MAIN, piece)) == ()


def test_cores_of_a_microarray_are_no_controls():
    cores = [(20 + 120 * row, 20 + 120 * column, 90, 90) for row in range(4) for column in range(4)]
    assert find_controls(mask_of(*cores)) == ()


def test_left_out_pieces_are_gone_and_the_rest_stays():
    left = without_controls(mask_of(MAIN, (100, 20, 60, 60)))
    assert np.array_equal(left.tissue, mask_of(MAIN).tissue)


def test_limits_decide():
    mask = mask_of(MAIN, (100, 20, 60, 60))
    assert find_controls(mask, ControlLimits(max_share=0.01)) == ()


def test_a_slide_without_tissue_has_none():
    assert find_controls(mask_of()) == ()
