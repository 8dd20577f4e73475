"""The white point is the colour of the slide's own glass, wherever there is some."""

import numpy as np
import pytest

from wsi_her2.slides.slide import open_slide
from wsi_her2.slides.white_point import estimate_white_point, white_table

GLASS = (231, 229, 243)


@pytest.fixture
def tissue_on_glass(ihc_image):
    """A tenth of glass, slightly noisy, around real tissue."""
    picture = np.random.default_rng(0).normal(GLASS, 1.0, (580, 580, 3)).round().astype(np.uint8)
    picture[34:546, 34:546] = ihc_image
    return picture


def test_off_white_glass_is_found(tissue_on_glass):
    white = estimate_white_point(tissue_on_glass)
    assert white.source == "background"
    assert white.rgb == pytest.approx(GLASS, abs=2)
    assert 0.05 < white.share < 0.6


@pytest.mark.parametrize("padding", [255, 0])
def test_what_the_scanner_padded_is_not_glass(tissue_on_glass, padding):
    picture = np.full((1200, 1200, 3), padding, np.uint8)
    picture[300:880, 200:780] = tissue_on_glass
    white = estimate_white_point(picture)
    assert white.source == "background"
    assert white.rgb == pytest.approx(GLASS, abs=2)


def test_glass_that_is_pure_white_is_glass_where_there_is_nothing_else(ihc_image):
    picture = np.full((700, 700, 3), 255, np.uint8)
    picture[100:612, 100:612] = (ihc_image * 0.45).astype(np.uint8)
    white = estimate_white_point(picture)
    assert (white.rgb, white.source) == ((255.0, 255.0, 255.0), "background")


def test_pale_smooth_stroma_is_not_taken_for_glass():
    picture = np.full((300, 300, 3), (205, 202, 214), np.uint8)
    picture[:70] = GLASS
    assert estimate_white_point(picture).rgb == pytest.approx(GLASS, abs=1)


def test_pixels_to_ignore_are_left_out(tissue_on_glass):
    picture = tissue_on_glass.copy()
    picture[:200] = (250, 250, 251)
    ignore = np.zeros(picture.shape[:2], bool)
    ignore[:204] = True
    assert estimate_white_point(picture, ignore).rgb == pytest.approx(GLASS, abs=2)


def test_without_glass_the_brightest_pixels_stand_in():
    noise = np.random.default_rng(0).integers(60, 200, (200, 200, 3)).astype(np.uint8)
    white = estimate_white_point(noise)
    assert white.source == "brightest"
    assert white.rgb == pytest.approx((199, 199, 199), abs=2)


def test_a_black_frame_has_a_dark_white_point():
    white = estimate_white_point(np.zeros((100, 100, 3), np.uint8))
    assert (white.rgb, white.source) == ((0.0, 0.0, 0.0), "brightest")


def test_a_picture_that_is_wholly_ignored_has_a_white_point_all_the_same():
    picture = np.full((50, 50, 3), 255, np.uint8)
    assert estimate_white_point(picture, np.ones((50, 50), bool)).rgb == (255.0, 255.0, 255.0)


def test_fluorescence_is_dark(real_slides):
    with open_slide(real_slides / "hamamatsu_fluorescence_dapi.ndpi") as slide:
        white = estimate_white_point(slide.overview(4.0).rgb)
    assert white.source == "brightest"
    assert min(white.rgb) < 100


def test_real_cores_have_the_white_point_measured_on_their_scanner(core_masks):
    for _, mask in core_masks.values():
        assert mask.white_point.source == "background"
        assert mask.white_point.rgb == pytest.approx((234, 233, 242), abs=3)


def test_the_table_puts_the_white_point_to_255_and_leaves_black():
    table = white_table((200.0, 220.0, 240.0))
    assert (table.shape, table.dtype) == ((256, 1, 3), np.uint8)
    assert [int(table[level, 0, channel]) for channel, level in enumerate((200, 220, 240))] == [255, 255, 255]
    assert (table[0] == 0).all()
    assert (table[245:] == 255).all()
    assert (np.diff(table[:, 0].astype(int), axis=0) >= 0).all()


def test_pure_white_is_glass_where_there_is_no_other(ihc_image):
    pixels = np.full((1200, 1200, 3), 255, np.uint8)
    pixels[300:812, 300:812] = (ihc_image * 0.8).astype(np.uint8)
    assert min(estimate_white_point(pixels).rgb) > 240
