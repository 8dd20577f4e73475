"""The membrane of a cell is measured in each direction, and nothing else is taken for it."""

import cv2
import numpy as np
import pytest

from tests.cells.conftest import MEMBRANE_UM, arcs
from wsi_her2.cells.rings import DIRECTIONS, RingSettings, measure_rings

MPP, SIDE = 0.25, 192
MIDDLE = np.array([[95.0, 95.0]])
FAINT = 0.02


def ring(span=(0.0, 360.0), density=0.2, centres=MIDDLE, side=SIDE):
    return arcs(side, centres, MEMBRANE_UM / MPP, 1.5 / MPP, density, span)


def completeness(rings, strength=FAINT):
    return (rings.lines > strength).mean(axis=1)


def test_a_closed_ring_stains_in_every_direction_and_no_ring_in_none():
    assert completeness(measure_rings(ring(), MIDDLE, MPP))[0] == 1.0
    assert completeness(measure_rings(ring(density=0.0), MIDDLE, MPP))[0] == 0.0


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_an_open_ring_is_complete_by_the_share_that_is_there(degrees):
    measured = completeness(measure_rings(ring((20.0, 20.0 + degrees)), MIDDLE, MPP))[0]
    assert measured == pytest.approx(degrees / 360, abs=0.08)


def test_directions_go_around_from_the_right_by_way_of_below():
    lines = measure_rings(ring((0.0, 90.0)), MIDDLE, MPP).lines[0]
    quarter = DIRECTIONS // 4
    assert (lines[1:quarter] > FAINT).all()
    assert (lines[quarter + 2 : -2] < FAINT).all()


@pytest.mark.parametrize("offset", [(0.5, 0.0), (0.25, 0.75), (9.0, -7.0)])
def test_strength_does_not_depend_on_where_the_cell_lies(offset):
    here = measure_rings(ring((0.0, 200.0)), MIDDLE, MPP)
    moved = MIDDLE + offset
    there = measure_rings(ring((0.0, 200.0), centres=moved), moved, MPP)
    np.testing.assert_allclose(there.lines[0][2:17], here.lines[0][2:17], rtol=0.1)
    assert completeness(there) == pytest.approx(completeness(here), abs=1.1 / DIRECTIONS)


@pytest.mark.parametrize("degrees", [11.25, 17.0, 90.0, 133.0])
def test_strength_does_not_depend_on_how_the_cell_is_turned(degrees):
    upright = measure_rings(ring((0.0, 200.0)), MIDDLE, MPP)
    turned = measure_rings(ring((degrees, 200.0 + degrees)), MIDDLE, MPP)
    assert np.median(turned.lines) == pytest.approx(np.median(upright.lines), rel=0.1)
    assert completeness(turned) == pytest.approx(completeness(upright), abs=1.1 / DIRECTIONS)


def test_strength_grows_with_density_and_is_about_half_of_it():
    strengths = [np.median(measure_rings(ring(density=d), MIDDLE, MPP).lines) for d in (0.1, 0.2, 0.4)]
    assert strengths[1] == pytest.approx(2 * strengths[0], rel=0.01)
    assert strengths[2] == pytest.approx(2 * strengths[1], rel=0.01)
    assert 0.25 < strengths[1] / 0.2 < 0.6


def test_a_membrane_makes_lines_and_no_gaps_and_granules_make_both():
    membrane = measure_rings(ring(), MIDDLE, MPP)
    assert np.median(membrane.lines) > 2 * np.median(membrane.gaps)
    noise = np.random.default_rng(2).normal(0.2, 0.3, (SIDE, SIDE)).astype(np.float32)
    granules = measure_rings(cv2.GaussianBlur(noise, (0, 0), 2.0), MIDDLE, MPP)
    assert np.median(granules.lines) == pytest.approx(np.median(granules.gaps), rel=0.35)


def test_broad_staining_of_cytoplasm_or_nucleus_is_no_line():
    broad = cv2.GaussianBlur(arcs(SIDE, MIDDLE, 1.0, 1.0, 0.0) + _disc(9.0 / MPP), (0, 0), 3.0 / MPP)
    nucleus = _disc(3.0 / MPP)
    edge = ring(density=0.5)
    for dab in (broad * np.float32(0.5), nucleus * np.float32(0.5)):
        blush = measure_rings(dab.astype(np.float32), MIDDLE, MPP)
        assert np.median(blush.lines) < 0.15 * np.median(measure_rings(edge, MIDDLE, MPP).lines)


@pytest.mark.parametrize("cytoplasm", [0.0, 0.1, 0.3])
def test_blush_is_the_density_of_the_cytoplasm_whatever_the_membrane(cytoplasm):
    even = np.full((SIDE, SIDE), cytoplasm, np.float32)
    for membrane in (0.0, 0.5):
        assert measure_rings(even + ring(density=membrane), MIDDLE, MPP).blush[0] == pytest.approx(
            cytoplasm, abs=0.01
        )
    assert measure_rings(even - 1, MIDDLE, MPP).blush[0] == 0.0


def _disc(radius_px):
    disc = np.zeros((SIDE, SIDE), np.float32)
    cv2.circle(disc, (95, 95), round(radius_px), 1.0, -1)
    return cv2.GaussianBlur(disc, (0, 0), 1.5)


def test_a_neighbours_far_side_is_not_this_cells_membrane():
    """Two cells 12 um apart: the left stains on its far side only, which the rays of the right must not reach."""
    pair = np.array([[70.0, 95.0], [118.0, 95.0]])
    dab = ring((120.0, 240.0), centres=pair[:1])
    left, right = completeness(measure_rings(dab, pair, MPP))
    assert left == pytest.approx(1 / 3, abs=0.1)
    assert right == 0.0
    alone = completeness(measure_rings(dab, pair[:1], MPP))[0]
    assert alone == pytest.approx(left, abs=0.04)


def test_a_membrane_that_two_cells_share_is_found_from_both():
    pair = np.array([[71.0, 95.0], [119.0, 95.0]])
    dab = np.zeros((SIDE, SIDE), np.float32)
    cv2.line(dab, (95, 60), (95, 130), 0.3, 6)
    lines = measure_rings(cv2.GaussianBlur(dab, (0, 0), 0.7), pair, MPP).lines
    half = DIRECTIONS // 2
    assert lines[0][0] > 5 * FAINT / 2
    assert lines[1][half] == pytest.approx(lines[0][0], rel=0.02)
    assert lines[0][half] < FAINT


def test_no_cells_have_no_rings_and_one_cell_has_one():
    assert measure_rings(ring(), np.zeros((0, 2)), MPP).lines.shape == (0, DIRECTIONS)
    assert measure_rings(ring(), MIDDLE, MPP, RingSettings(steps=6)).lines.shape == (1, DIRECTIONS)


def test_more_cells_than_opencv_maps_at_once_are_measured_like_few():
    many = np.repeat(MIDDLE, 16_400, axis=0) + np.random.default_rng(0).uniform(-40, 40, (16_400, 2))
    settings = RingSettings(steps=2, neighbours=0)
    whole = measure_rings(ring(), many, MPP, settings)
    last = measure_rings(ring(), many[-30:], MPP, settings)
    np.testing.assert_allclose(whole.lines[-30:], last.lines, atol=1e-6)
