"""Tissue is found where it is, pale or dark, and nowhere else."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_her2.slides import tissue as tissue_module
from wsi_her2.slides.density import optical_density
from wsi_her2.slides.slide import Box, Overview, open_slide, slide_from_array
from wsi_her2.slides.tissue import TissueSettings, detect_tissue, outline_pieces, tissue_mask, tissue_overlay
from wsi_her2.slides.white_point import WhitePoint

GLASS = (236, 233, 240)
CORES = ["score0_a", "score0_b", "score1_a", "score2_a", "score3_a"]


def disc_of_core(rgb):
    """The core found without the library: the largest piece darker than the corner by 6 grey levels, its hull."""
    grey = cv2.GaussianBlur(rgb, (0, 0), 3).astype(int).mean(axis=2)
    dark = (grey < np.median(grey[:12, :12]) - 6).astype(np.uint8)
    contours, _ = cv2.findContours(dark, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(max(contours, key=cv2.contourArea))
    return cv2.fillConvexPoly(np.zeros_like(dark), hull, 1).astype(bool)


def mask_of(tissue, downsample=4, x=0, y=0):
    """A mask over an empty overview."""
    height, width = tissue.shape
    overview = Overview(
        np.full((height, width, 3), 255, np.uint8),
        np.zeros((height, width), bool),
        2.0,
        Box(x, y, width * downsample, height * downsample),
    )
    white = WhitePoint((255.0, 255.0, 255.0), "background", 1.0)
    return tissue_mask(tissue, np.zeros_like(tissue), overview, white)


def picture_of(path):
    """A PNG as uint8 H x W x 3 RGB."""
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


def everything_in_one_part(overview, white, density, sigma_px):
    """In place of the parts that are denser than glass."""
    all_of_it = np.s_[0 : overview.rgb.shape[0], 0 : overview.rgb.shape[1]]
    yield all_of_it, optical_density(overview.rgb, white.rgb), all_of_it


@pytest.mark.parametrize("name", ["tcga-red-pen.png", "no-tissue-green-pen.png", "diagnostic-slide-thumb-rgb.png"])
def test_passing_over_glass_changes_nothing(data_dir, monkeypatch, name):
    glass = np.random.default_rng(3).integers(238, 242, (1500, 1900, 3), np.uint8)
    picture = picture_of(data_dir / "artefacts" / name)[:700, :800]
    glass[300 : 300 + picture.shape[0], 420 : 420 + picture.shape[1]] = picture
    slide = slide_from_array(glass, 4.0)
    mask = detect_tissue(slide)
    monkeypatch.setattr(tissue_module, "_dense_parts", everything_in_one_part)
    whole = detect_tissue(slide)
    assert whole.tissue.any() or whole.pen.any()
    np.testing.assert_array_equal(mask.tissue, whole.tissue)
    np.testing.assert_array_equal(mask.pen, whole.pen)


# Real cores


@pytest.mark.parametrize("name", CORES)
def test_a_core_keeps_its_disc_and_the_ground_around_it_stays_empty(core_masks, name):
    _, mask = core_masks[name]
    disc = disc_of_core(mask.overview.rgb)
    assert 0.3 < disc.mean() < 0.9
    assert mask.tissue[disc].mean() >= 0.90
    assert mask.tissue[~disc].mean() < 0.02


@pytest.mark.parametrize("name", CORES)
def test_a_core_carries_no_ink_and_has_the_area_of_its_mask(core_masks, name):
    _, mask = core_masks[name]
    assert mask.pen_share < 0.01
    assert mask.area_mm2 == pytest.approx(mask.tissue.mean() * (5468 * 0.25e-3) ** 2, rel=0.01)


def test_tissue_of_the_small_slide_is_where_it_was_put(ihc_mask):
    assert ihc_mask.overview.downsample == 8
    inside, outside = ihc_mask.tissue[40:163, 65:188], ihc_mask.tissue.copy()
    outside[34:169, 59:194] = False
    assert inside.mean() > 0.95
    assert not outside.any()


def test_tissue_of_he_is_found(real_slides):
    with open_slide(real_slides / "he_aperio_cmu1_small_region.svs") as slide:
        mask = detect_tissue(slide)
    assert 0.15 < mask.tissue.mean() < 0.6
    assert mask.overview.rgb[mask.tissue].mean() < mask.overview.rgb[~mask.tissue].mean() - 15


# Not tissue


@pytest.mark.parametrize(
    "name",
    [
        "almost-white-ihc.png",
        "no-tissue.png",
        "no-tissue2.png",
        "no-tissue-line.png",
        "no-tissue-green-pen.png",
    ],
)
def test_tiles_without_tissue_have_none(data_dir, name):
    mask = detect_tissue(slide_from_array(picture_of(data_dir / "artefacts" / name), 0.5))
    assert mask.area_mm2 < 0.001


@pytest.mark.parametrize(
    ("name", "mpp"), [("tcga-green-pen.png", 8.0), ("tcga-red-pen.png", 8.0), ("wsi-blue-pen.png", 10.0)]
)
def test_pen_on_a_slide_is_found_and_is_not_tissue(data_dir, name, mpp):
    rgb = picture_of(data_dir / "artefacts" / name)
    mask = detect_tissue(slide_from_array(rgb, mpp))
    assert mask.pen.any()
    assert not (mask.pen & mask.tissue).any()


@pytest.mark.parametrize(
    "ink", [(30, 150, 60), (200, 30, 40), (25, 90, 190), (25, 25, 28)], ids=["green", "red", "blue", "black"]
)
def test_a_stroke_of_ink_is_pen_and_the_tissue_beside_it_stays(ihc_picture, ink):
    rgb = ihc_picture.copy()
    rgb[40:200, 100:1700] = ink
    mask = detect_tissue(slide_from_array(rgb, 0.5))
    assert mask.pen[6:24, 14:210].mean() > 0.95
    assert not mask.tissue[6:24, 14:210].any()
    assert mask.tissue[45:160, 70:185].mean() > 0.9
    assert 0 < mask.pen_share < 0.5


@pytest.mark.parametrize("grey", [0, 128, 236, 255])
def test_one_colour_is_not_tissue(grey):
    mask = detect_tissue(slide_from_array(np.full((900, 900, 3), grey, np.uint8), 0.5))
    assert not mask.tissue.any()
    assert mask.area_mm2 == 0


def test_thin_lines_and_dust_are_not_tissue():
    rgb = np.empty((2400, 2400, 3), np.uint8)
    rgb[:] = GLASS
    cv2.line(rgb, (0, 300), (2399, 420), (200, 197, 204), 12)
    cv2.line(rgb, (1200, 0), (1260, 2399), (150, 140, 160), 4)
    for x, y in ((300, 900), (700, 1500), (1900, 2000)):
        cv2.circle(rgb, (x, y), 60, (150, 120, 90), -1)
    assert not detect_tissue(slide_from_array(rgb, 0.5)).tissue.any()


def test_sizes_are_microns_not_pixels(ihc_image):
    rgb = np.empty((900, 900, 3), np.uint8)
    rgb[:] = GLASS
    rgb[300:500, 300:500] = ihc_image[:200, :200]
    # 200 px are 100 um at 0.5 um/px, less than the least piece, and 400 um at 2 um/px.
    assert not detect_tissue(slide_from_array(rgb, 0.5)).tissue.any()
    assert detect_tissue(slide_from_array(rgb, 2.0)).area_mm2 == pytest.approx(0.4**2, rel=0.15)


def test_small_holes_are_filled_and_large_ones_are_not(ihc_picture):
    rgb = ihc_picture.copy()
    cv2.circle(rgb, (800, 600), 100, GLASS, -1)
    settings = TissueSettings(closing_um=8.0, max_hole_um2=20_000.0)
    filled = detect_tissue(slide_from_array(rgb, 0.5), settings)
    settings = TissueSettings(closing_um=8.0, max_hole_um2=1_000.0)
    kept = detect_tissue(slide_from_array(rgb, 0.5), settings)
    assert filled.tissue[75, 100]
    assert not kept.tissue[75, 100]


def test_the_overview_is_bounded_whatever_the_slide(ihc_picture):
    mask = detect_tissue(slide_from_array(ihc_picture, 0.5), TissueSettings(max_overview_px=120))
    assert max(mask.tissue.shape) <= 120
    assert mask.tissue[65, 60]


def test_unreadable_places_are_not_tissue(real_slides):
    with open_slide(real_slides / "truncated_ihc_core.tif") as slide:
        mask = detect_tissue(slide)
    assert mask.overview.unreadable.any()
    assert mask.tissue.any()
    assert not (mask.tissue & mask.overview.unreadable).any()


# Fractions and outlines

MASKS = st.builds(
    lambda seed, rows, columns: (
        cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(rows, columns)), (0, 0), 2) > 0
    ),
    st.integers(0, 10_000),
    st.integers(5, 40),
    st.integers(5, 40),
)


@given(MASKS, st.data())
def test_fractions_of_whole_pixels_are_the_share_of_tissue(tissue, data):
    mask = mask_of(tissue, downsample=4, x=8, y=16)
    rows, columns = tissue.shape
    width, height = data.draw(st.integers(1, columns)), data.draw(st.integers(1, rows))
    left = data.draw(st.integers(0, columns - width))
    top = data.draw(st.integers(0, rows - height))
    got = mask.fractions(np.array([8 + 4 * left]), np.array([16 + 4 * top]), 4 * width, 4 * height)
    assert got.dtype == np.float32
    assert got[0] == pytest.approx(tissue[top : top + height, left : left + width].mean(), abs=1e-6)


@given(MASKS, st.integers(-60, 200), st.integers(-60, 200), st.integers(16, 90), st.integers(16, 90))
def test_fractions_off_the_pixels_are_right_to_one_pixel_of_the_edge(tissue, x, y, width, height):
    downsample = 4
    mask = mask_of(tissue, downsample)
    fine = np.kron(tissue, np.ones((downsample, downsample), bool))
    padded = np.zeros((fine.shape[0] + 600, fine.shape[1] + 600), bool)
    padded[300:-300, 300:-300] = fine
    exact = padded[300 + y : 300 + y + height, 300 + x : 300 + x + width].mean() if min(x, y) > -300 else 0.0
    tolerance = 2 * downsample * (width + height) / (width * height)
    got = mask.fractions(np.array([x]), np.array([y]), width, height)
    assert 0 <= got[0] <= 1
    assert abs(float(got[0]) - exact) <= tolerance


def test_fractions_are_zero_beyond_the_slide():
    mask = mask_of(np.ones((10, 10), bool))
    x, y = np.array([40, 0, 1000, 55]), np.array([0, 40, 1000, 20])
    np.testing.assert_array_equal(mask.fractions(x, y, 40, 40), 0)


def test_a_patch_that_sticks_out_counts_what_lies_outside_as_empty():
    mask = mask_of(np.ones((10, 10), bool))
    assert mask.fractions(np.array([20]), np.array([0]), 40, 40)[0] == pytest.approx(0.5)


@given(MASKS)
def test_outlines_are_closed_rings_of_whole_level_0_pixels_within_the_slide(tissue):
    mask = mask_of(tissue, downsample=4, x=100, y=200)
    rows, columns = tissue.shape
    for piece in outline_pieces(mask):
        for ring in piece:
            assert len(ring) >= 4
            assert ring[0] == ring[-1]
            for x, y in ring:
                assert type(x) is int
                assert type(y) is int
                assert 100 <= x <= 100 + 4 * columns
                assert 200 <= y <= 200 + 4 * rows


def test_outlines_give_pieces_with_their_holes():
    tissue = np.zeros((100, 120), bool)
    tissue[10:50, 10:60] = True
    tissue[20:40, 25:45] = False
    tissue[60:95, 70:110] = True
    pieces = outline_pieces(mask_of(tissue))
    assert sorted(len(piece) for piece in pieces) == [1, 2]
    for piece in pieces:
        area = cv2.contourArea(np.array(piece[0])) - sum(cv2.contourArea(np.array(ring)) for ring in piece[1:])
        expected = 40 * 50 - 20 * 20 if len(piece) == 2 else 35 * 40
        assert area == pytest.approx(expected * 16, rel=0.1)


def test_no_tissue_has_no_outline():
    assert outline_pieces(mask_of(np.zeros((20, 20), bool))) == []


def test_the_overlay_marks_tissue_and_dims_the_rest(ihc_mask):
    before = ihc_mask.overview.rgb.copy()
    overlay = tissue_overlay(ihc_mask)
    assert overlay.shape == before.shape
    np.testing.assert_array_equal(ihc_mask.overview.rgb, before)
    assert overlay[~ihc_mask.tissue].mean() < 0.8 * before[~ihc_mask.tissue].mean()
    assert (overlay == (0, 150, 60)).all(axis=2).any()


def test_a_patch_beside_the_slide_holds_no_tissue():
    tissue = np.ones((10, 10), bool)
    overview = Overview(np.full((10, 10, 3), 255, np.uint8), ~tissue, 2.0, Box(0, 0, 40, 40))
    mask = tissue_mask(tissue, ~tissue, overview, WhitePoint((255.0, 255.0, 255.0), "background", 1.0))
    assert mask.fractions(np.array([-40, 0, 40]), np.array([0, -40, 0]), 40, 40).tolist() == [0, 0, 0]


def test_a_dark_scratch_is_not_tissue():
    rgb = np.full((2400, 2400, 3), (236, 233, 240), np.uint8)
    cv2.line(rgb, (0, 300), (2399, 420), (150, 140, 160), 8)
    assert detect_tissue(slide_from_array(rgb, 0.5)).area_mm2 == 0


def test_blue_ink_is_not_tissue():
    rgb = np.full((1200, 1600, 3), (236, 233, 240), np.uint8)
    rgb[300:600, 200:1400] = (30, 60, 170)
    mask = detect_tissue(slide_from_array(rgb, 0.5))
    assert not mask.tissue.any()
    assert mask.pen.any()


def test_red_ink_of_any_strength_is_not_tissue(data_dir):
    rgb = np.ascontiguousarray(cv2.imread(str(data_dir / "artefacts" / "no-tissue-red-pen.png"))[..., ::-1])
    assert detect_tissue(slide_from_array(rgb, 0.5)).area_mm2 < 0.001
