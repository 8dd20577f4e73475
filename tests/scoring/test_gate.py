"""A slide that must not be called is refused, each for its own reason, and a real core for none."""

import cv2
import numpy as np
import pytest

from wsi_her2.scoring.gate import GateLimits, GateReason, gate_overview, gate_patches, gate_quality
from wsi_her2.scoring.quality import QUALITY, measure_quality
from wsi_her2.slides.blocks import sample_patches
from wsi_her2.slides.grid import plan_patches
from wsi_her2.slides.slide import open_slide, slide_from_array
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.tissue import detect_tissue

LIMITS = GateLimits()
CORES = ["score0_a", "score0_b", "score1_a", "score2_a", "score3_a"]


def overview_codes(rgb, mpp=0.5):
    return [reason.code for reason in gate_overview(detect_tissue(slide_from_array(rgb, mpp)), LIMITS)]


def quality_codes(patches, modality="ihc"):
    return [reason.code for reason in gate_quality(measure_quality(patches), modality, LIMITS)]


@pytest.fixture(scope="module")
def he_patches(real_slides):
    with open_slide(real_slides / "he_aperio_cmu1_small_region.svs") as slide:
        mask = detect_tissue(slide)
        sample = sample_patches(slide, plan_patches(slide, mask, 128, 0.5), 40)
    return StainCorrection("white-point", mask.white_point.rgb).apply(sample)


# Refused for what the overview shows


def test_blank_glass_has_too_little_tissue():
    assert overview_codes(np.full((1500, 1500, 3), 236, np.uint8)) == ["too_little_tissue"]


def test_pure_white_has_too_little_tissue():
    assert overview_codes(np.full((1500, 1500, 3), 255, np.uint8)) == ["too_little_tissue"]


def test_a_black_frame_is_not_brightfield():
    assert overview_codes(np.zeros((1500, 1500, 3), np.uint8)) == ["not_brightfield"]


def test_a_fluorescence_slide_is_not_brightfield(real_slides):
    for name in ("hamamatsu_fluorescence_dapi.ndpi", "hamamatsu fluorescence é (560).ndpi"):
        with open_slide(real_slides / name) as slide:
            assert [r.code for r in gate_overview(detect_tissue(slide), LIMITS)] == ["not_brightfield"]


def test_ink_over_most_of_the_tissue_is_pen(ihc_picture):
    rgb = ihc_picture.copy()
    rgb[300:1100, 500:1524] = (30, 150, 60)
    assert "pen" in overview_codes(rgb)


def test_a_crumb_of_tissue_is_too_little(ihc_image):
    rgb = np.full((1500, 1500, 3), 236, np.uint8)
    rgb[600:900, 600:900] = ihc_image[:300, :300]
    mask = detect_tissue(slide_from_array(rgb, 0.5))
    assert mask.tissue.any()
    (reason,) = gate_overview(mask, LIMITS)
    assert (reason.code, reason.measured, reason.limit) == ("too_little_tissue", mask.area_mm2, 0.1)


def test_a_frame_of_noise_is_refused():
    rng = np.random.default_rng(0)
    assert overview_codes(rng.integers(0, 256, (1500, 1500, 3)).astype(np.uint8))


# Refused for what the patches show


def test_pixel_noise_is_noise():
    rng = np.random.default_rng(0)
    assert "noise" in quality_codes(rng.integers(0, 256, (10, 128, 128, 3)).astype(np.uint8))


def test_he_given_to_an_ihc_classifier_is_the_wrong_modality(he_patches):
    assert quality_codes(he_patches) == ["wrong_modality"]
    assert quality_codes(he_patches, "he") == []


@pytest.mark.parametrize("name", CORES)
def test_ihc_given_to_an_he_classifier_is_the_wrong_modality(core_patches, name):
    assert quality_codes(core_patches[name], "he") == ["wrong_modality"]


@pytest.mark.parametrize("name", CORES)
def test_a_blurred_core_is_out_of_focus(core_patches, name):
    # 1.5 um, as when the scanner focuses on the coverslip.
    blurred = np.stack([cv2.GaussianBlur(patch, (0, 0), 3.0) for patch in core_patches[name]])
    assert quality_codes(blurred) == ["out_of_focus"]


def test_colours_of_another_stain_are_unknown(core_patches):
    green = core_patches["score1_a"][..., [1, 0, 1]].copy()
    green[..., 1] = 255 - (255 - green[..., 1]) // 6
    assert "unknown_stain" in quality_codes(green)


def test_a_real_core_is_refused_for_nothing(core_masks, core_patches):
    for name in CORES:
        assert gate_overview(core_masks[name][1], LIMITS) == []
        assert quality_codes(core_patches[name]) == []


def test_the_small_ihc_slide_is_refused_for_nothing(ihc_picture, ihc_mask):
    slide = slide_from_array(ihc_picture, 0.5)
    sample = sample_patches(slide, plan_patches(slide, ihc_mask, 128, 0.5), 40)
    assert gate_overview(ihc_mask, LIMITS) == []
    assert quality_codes(StainCorrection("white-point", ihc_mask.white_point.rgb).apply(sample)) == []


def test_patches_that_were_not_measured_are_left_out(core_patches):
    quality = measure_quality(core_patches["score2_a"])
    blank = np.full((200, len(QUALITY)), np.nan, np.float32)
    assert gate_quality(np.concatenate([blank, quality]), "ihc", LIMITS) == []
    assert gate_quality(blank, "ihc", LIMITS) == []


@pytest.mark.parametrize(
    ("modality", "changes", "codes"),
    [
        ("ihc", {}, []),
        ("ihc", {"focus": 0.12}, []),
        ("ihc", {"focus": 0.10}, ["out_of_focus"]),
        ("ihc", {"focus": 4.9}, []),
        ("ihc", {"focus": 5.1}, ["noise"]),
        ("ihc", {"eosin_share": 0.49}, []),
        ("ihc", {"eosin_share": 0.51}, ["wrong_modality"]),
        ("ihc", {"foreign_share": 0.49}, []),
        ("ihc", {"foreign_share": 0.51}, ["unknown_stain"]),
        ("ihc", {"eosin_share": 0.6, "foreign_share": 0.6}, ["wrong_modality"]),
        ("ihc", {"eosin_share": 0.6, "focus": 0.01}, ["out_of_focus", "wrong_modality"]),
        ("he", {"eosin_share": 0.11}, []),
        ("he", {"eosin_share": 0.09}, ["wrong_modality"]),
        ("he", {"eosin_share": 0.5, "foreign_share": 0.9}, []),
    ],
)
def test_quality_is_judged_at_its_limits(modality, changes, codes):
    usual = {"focus": 0.5, "eosin_share": 0.05, "foreign_share": 0.02, "stained_share": 0.6}
    if modality == "he":
        usual["eosin_share"] = 0.4
    row = np.array([[(usual | changes)[name] for name in QUALITY]], np.float32)
    reasons = gate_quality(np.repeat(row, 30, axis=0), modality, LIMITS)
    assert [reason.code for reason in reasons] == codes


def test_colour_is_judged_over_the_stained_area_and_focus_over_the_patches():
    row = {"focus": 0.5, "eosin_share": 0.9, "foreign_share": 0.0, "stained_share": 0.01}
    nearly_blank = np.array([[row[name] for name in QUALITY]] * 30, np.float32)
    row |= {"eosin_share": 0.0, "stained_share": 0.8}
    stained = np.array([[row[name] for name in QUALITY]] * 10, np.float32)
    assert gate_quality(np.concatenate([nearly_blank, stained]), "ihc", LIMITS) == []


# Refused for what was scored


@pytest.mark.parametrize(
    ("unreadable", "tumour", "trained", "codes"),
    [
        (0.0, 20, True, []),
        (0.1, 20, True, []),
        (0.11, 20, True, ["unreadable"]),
        (0.0, 19, True, ["too_few_tumour_patches"]),
        (0.0, 20, False, ["untrained"]),
        (1.0, 0, False, ["untrained", "unreadable", "too_few_tumour_patches"]),
    ],
)
def test_unreadable_too_few_and_untrained_at_their_limits(unreadable, tumour, trained, codes):
    reasons = gate_patches(unreadable, tumour, trained, LIMITS)
    assert sorted(reason.code for reason in reasons) == sorted(codes)


def test_limits_are_settings(core_masks):
    _, mask = core_masks["score0_a"]
    (reason,) = gate_overview(mask, GateLimits(min_tissue_mm2=2.0))
    assert (reason.code, reason.limit) == ("too_little_tissue", 2.0)
    assert reason.measured == mask.area_mm2


def test_a_reason_says_what_was_measured_and_the_limit():
    reason = GateReason("pen", "pen covers the tissue", 0.61234, 0.5)
    assert str(reason) == "pen covers the tissue (0.612; limit 0.5)"


# Quality itself


def test_focus_falls_with_blur_and_does_not_depend_on_the_stain(ihc_image):
    patch = ihc_image[100:356, 100:356]
    focus = [
        measure_quality(blurred[None])[0, 0]
        for blurred in (patch, *(cv2.GaussianBlur(patch, (0, 0), sigma) for sigma in (0.7, 1.5, 3.0)))
    ]
    assert (np.diff(focus) < 0).all()
    density = -np.log10(np.maximum(patch, 1) / 255)
    pale = np.rint(255 * 10 ** (-0.5 * density)).astype(np.uint8)
    assert measure_quality(pale[None])[0, 0] == pytest.approx(focus[0], rel=0.25)


def test_quality_is_one_float32_row_a_patch(ihc_image):
    batch = np.stack(
        [ihc_image[:128, :128], np.full((128, 128, 3), 255, np.uint8), np.zeros((128, 128, 3), np.uint8)]
    )
    got = measure_quality(batch)
    assert (got.dtype, got.shape) == (np.float32, (3, len(QUALITY)))
    assert np.isfinite(got).all()
    assert (got[:, 1:] >= 0).all()
    assert (got[:, 1:] <= 1).all()
    np.testing.assert_array_equal(got[1], 0)
