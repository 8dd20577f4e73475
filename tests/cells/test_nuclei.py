"""Each nucleus is found once, where it is, whatever stains around it."""

import numpy as np
import pytest

from tests.cells.conftest import arcs, discs, lattice, nearest
from wsi_her2.cells.nuclei import NucleusSettings, find_nuclei

SIDE, MPP = 256, 0.5
NOTHING = np.zeros((SIDE, SIDE), np.float32)


def scattered(count=60, apart_px=22, seed=1):
    """Places that keep apart and off the border, between pixels (float64 N x 2)."""
    rng = np.random.default_rng(seed)
    places = np.zeros((0, 2))
    while len(places) < count:
        place = rng.uniform(14, SIDE - 14, 2)
        if not len(places) or np.linalg.norm(places - place, axis=1).min() > apart_px:
            places = np.vstack([places, place])
    return places


@pytest.mark.parametrize("radius_um", [2.8, 3.6, 4.6])
def test_discs_are_found_within_a_pixel_and_nothing_else(radius_um):
    places = scattered()
    found = find_nuclei(discs(SIDE, places, radius_um / MPP), NOTHING, MPP)
    assert len(found) == len(places)
    assert nearest(found, places).max() <= 1.0 + MPP


def test_a_disc_between_pixels_is_found_once():
    for offset in (0.0, 0.25, 0.5, 0.75):
        centre = np.array([[60 + offset, 80 + offset]])
        found = find_nuclei(discs(SIDE, centre, 3.6 / MPP), NOTHING, MPP)
        assert len(found) == 1
        assert nearest(found, centre).max() <= 1.0


def test_no_two_nuclei_are_nearer_than_the_settings_say():
    noise = np.random.default_rng(5).random((SIDE, SIDE)).astype(np.float32)
    found = find_nuclei(noise, NOTHING, MPP)
    between = np.linalg.norm(found[:, None] - found[None], axis=2)
    between[np.diag_indices(len(found))] = np.inf
    assert len(found) > 50
    assert between.min() * MPP > NucleusSettings().apart_um
    sparser = find_nuclei(noise, NOTHING, MPP, NucleusSettings(apart_um=8.0))
    assert len(sparser) < len(found)


def test_nuclei_that_touch_are_told_apart():
    pair = np.array([[100.0, 100.0], [114.0, 100.0]])
    found = find_nuclei(discs(SIDE, pair, 3.4 / MPP), NOTHING, MPP)
    assert len(found) == 2
    assert nearest(found, pair).max() <= 1.5


def test_pale_nuclei_are_found_beside_dark_ones():
    places = scattered(40)
    pale = discs(SIDE, places[:20], 3.6 / MPP, density=0.15)
    found = find_nuclei(pale + discs(SIDE, places[20:], 3.6 / MPP, density=0.6), NOTHING, MPP)
    assert len(found) == len(places)
    assert nearest(found, places).max() <= 1.0


def test_strong_membranes_that_unmix_into_the_counterstain_are_no_nuclei():
    places = lattice(SIDE, 40)
    membranes = arcs(SIDE, places, 6.0 / MPP, 1.5 / MPP, 1.0)
    found = find_nuclei(discs(SIDE, places, 3.0 / MPP) + 0.3 * membranes, membranes, MPP)
    assert len(found) == len(places)
    assert nearest(found, places).max() <= 1.0


@pytest.mark.parametrize("mpp", [0.4, 0.5, 0.6])
def test_specks_beside_nuclei_are_none_at_any_scale(mpp):
    places = lattice(SIDE, 16 / mpp)
    nuclei, specks = places[::2], places[1::2]
    found = find_nuclei(discs(SIDE, nuclei, 3.6 / mpp) + discs(SIDE, specks, 0.6 / mpp), NOTHING, mpp)
    assert len(found) == len(nuclei)
    assert nearest(found, nuclei).max() <= 1.0


@pytest.mark.parametrize("density", [0.0, 0.4])
def test_even_staining_has_no_nuclei(density):
    assert find_nuclei(np.full((SIDE, SIDE), density, np.float32), NOTHING, MPP).shape == (0, 2)


def test_nuclei_come_row_by_row():
    found = find_nuclei(discs(SIDE, scattered(), 3.6 / MPP), NOTHING, MPP)
    assert found.dtype == np.float64
    assert (np.diff(found[:, 1]) >= 0).all()
