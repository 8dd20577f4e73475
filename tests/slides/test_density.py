"""Densities add up over stains, and colour deconvolution takes them apart again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_her2.slides.density import (
    HEMATOXYLIN_DAB,
    HEMATOXYLIN_EOSIN,
    StainVectors,
    density_table,
    optical_density,
    unmix,
)

AMOUNT = st.floats(0.0, 1.2)


def rendered(density, white=(255, 255, 255)):
    return np.clip(np.rint(np.array(white) * 10.0**-density), 0, 255).astype(np.uint8)


def test_density_is_the_log10_of_the_light_that_is_lost():
    rgb = np.array([[[240, 120, 24]]], np.uint8)
    np.testing.assert_allclose(optical_density(rgb, (240, 240, 240)), [[[0, np.log10(2), 1]]], atol=1e-6)
    assert optical_density(rgb).dtype == np.float32


def test_each_channel_has_its_own_white():
    rgb = np.array([[[200, 220, 240]]], np.uint8)
    np.testing.assert_allclose(optical_density(rgb, (200, 220, 240)), 0, atol=1e-7)


def test_brighter_than_white_is_density_zero_and_black_is_finite():
    table = density_table((200.0, 200.0, 200.0))
    assert (table[200:] == 0).all()
    assert np.isfinite(table).all()
    assert table[0].max() == pytest.approx(np.log10(200), abs=1e-6)
    assert (np.diff(table[:, 0], axis=0) <= 0).all()


@pytest.mark.parametrize("stains", [HEMATOXYLIN_DAB, HEMATOXYLIN_EOSIN])
@given(first=AMOUNT, second=AMOUNT)
def test_unmixing_recovers_known_mixtures(stains, first, second):
    matrix = stains.matrix()
    density = (first * matrix[0] + second * matrix[1]).astype(np.float32)[None, None]
    np.testing.assert_allclose(unmix(density, stains)[0, 0], [first, second, 0], atol=1e-5)


@given(first=st.floats(0.0, 0.6), second=st.floats(0.0, 0.6))
def test_unmixing_recovers_mixtures_from_8_bit_pixels(first, second):
    matrix = HEMATOXYLIN_DAB.matrix()
    white = (234, 233, 242)
    rgb = rendered(first * matrix[0] + second * matrix[1], white)[None, None]
    np.testing.assert_allclose(unmix(optical_density(rgb, white))[0, 0], [first, second, 0], atol=0.03)


def test_what_neither_stain_explains_is_said():
    green_ink = np.array([[[0.8, 0.1, 0.6]]], np.float32)
    assert abs(unmix(green_ink)[0, 0, 2]) > 0.3


@given(st.tuples(*[st.floats(0.05, 1.0)] * 3), st.tuples(*[st.floats(0.05, 1.0)] * 3))
def test_stain_rows_are_unit_vectors_whatever_their_length(first, second):
    if np.linalg.norm(np.cross(first, second)) < 0.05:
        return
    np.testing.assert_allclose(np.linalg.norm(StainVectors(first, second).matrix(), axis=1), 1)


def test_unmixing_undoes_mixing():
    np.testing.assert_allclose(HEMATOXYLIN_DAB.unmixing() @ HEMATOXYLIN_DAB.matrix().T, np.eye(3), atol=1e-12)
