"""A slide that must not be called is refused, each for its own reason, and a real core for none."""

import cv2
import numpy as np
import pytest

from wsi_her2.scoring.gate import (
    GateLimits,
    GateReason,
    failing_patches,
    gate_overview,
    gate_patches,
    gate_quality,
)
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


USUAL = {
    "focus": 0.5,
    "coarseness": 0.8,
    "structure": 2.0,
    "veil": 0.01,
    "eosin_share": 0.05,
    "foreign_share": 0.02,
    "stained_share": 0.6,
}


def rows(count, **changes):
    """Quality of so many equal patches of sharp IHC, but for what is changed."""
    return np.array([[(USUAL | changes)[name] for name in QUALITY]] * count, np.float32)


@pytest.mark.parametrize(
    ("modality", "changes", "codes"),
    [
        ("ihc", {}, []),
        ("ihc", {"focus": 0.12}, []),
        ("ihc", {"focus": 0.10}, ["out_of_focus"]),
        ("ihc", {"coarseness": 2.9}, []),
        ("ihc", {"coarseness": 3.1}, ["out_of_focus"]),
        ("ihc", {"focus": 4.9}, []),
        ("ihc", {"focus": 5.1}, ["noise"]),
        ("ihc", {"structure": 0.51}, []),
        ("ihc", {"structure": 0.49}, ["noise"]),
        ("ihc", {"structure": 0.3, "focus": 9.0}, ["noise"]),
        ("ihc", {"veil": 0.14}, []),
        ("ihc", {"veil": 0.16}, ["covered"]),
        ("ihc", {"eosin_share": 0.24}, []),
        ("ihc", {"eosin_share": 0.26}, ["wrong_modality"]),
        ("ihc", {"foreign_share": 0.39}, []),
        ("ihc", {"foreign_share": 0.41}, ["unknown_stain"]),
        ("ihc", {"foreign_share": 0.9, "stained_share": 0.01}, []),
        ("ihc", {"eosin_share": 0.6, "foreign_share": 0.6}, ["wrong_modality"]),
        ("ihc", {"eosin_share": 0.6, "focus": 0.01}, ["out_of_focus"]),
        ("he", {"eosin_share": 0.11}, []),
        ("he", {"eosin_share": 0.09}, ["wrong_modality"]),
        ("he", {"eosin_share": 0.5, "foreign_share": 0.9}, []),
        ("he", {"eosin_share": 0.5, "veil": 0.4}, ["covered"]),
    ],
)
def test_quality_is_judged_at_its_limits(modality, changes, codes):
    usual = {"eosin_share": 0.4} if modality == "he" else {}
    reasons = gate_quality(rows(30, **(usual | changes)), modality, LIMITS)
    assert [reason.code for reason in reasons] == codes


def test_colour_is_judged_over_the_patches_that_are_stained():
    nearly_blank = rows(30, eosin_share=0.9, stained_share=0.01)
    assert gate_quality(np.concatenate([nearly_blank, rows(10)]), "ihc", LIMITS) == []


def test_patches_under_ink_do_not_decide_on_the_stain():
    inked = rows(14, veil=0.5, foreign_share=1.0, stained_share=1.0)
    assert gate_quality(np.concatenate([inked, rows(16, stained_share=0.1)]), "ihc", LIMITS) == []


def test_a_slide_of_which_most_patches_fail_each_for_its_own_fault_is_refused():
    faults = [rows(5, focus=0.01), rows(5, veil=0.5), rows(5, foreign_share=0.9), rows(5, focus=9.0)]
    assert gate_quality(np.concatenate([*faults, rows(21)]), "ihc", LIMITS) == []
    (reason,) = gate_quality(np.concatenate([*faults, rows(19)]), "ihc", LIMITS)
    assert reason.code == "too_many_failed"
    assert reason.measured == pytest.approx(20 / 39)
    assert reason.limit == 0.5


# Patches that fail


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({}, False),
        ({"focus": 0.1}, True),
        ({"focus": 5.1}, True),
        ({"coarseness": 3.1}, True),
        ({"structure": 0.1}, False),
        ({"veil": 0.16}, True),
        ({"eosin_share": 0.26}, True),
        ({"foreign_share": 0.41}, True),
        ({"foreign_share": 0.41, "stained_share": 0.01}, False),
        ({"focus": float("nan")}, False),
    ],
)
def test_a_patch_fails_beyond_its_limits(changes, fails):
    assert failing_patches(rows(3, **changes), "ihc", LIMITS).tolist() == [fails] * 3


def test_eosin_is_no_fault_of_a_patch_on_he():
    assert not failing_patches(rows(1, eosin_share=0.9, foreign_share=0.9), "he", LIMITS).any()


def test_a_patch_that_was_not_read_did_not_fail():
    assert not failing_patches(np.full((4, len(QUALITY)), np.nan, np.float32), "ihc", LIMITS).any()


@pytest.mark.parametrize("name", CORES)
def test_hardly_a_patch_of_a_real_core_fails(core_patches, name):
    assert failing_patches(measure_quality(core_patches[name]), "ihc", LIMITS).mean() <= 0.02


@pytest.mark.parametrize("name", CORES)
def test_patches_under_thin_ink_fail(core_patches, name):
    inked = (core_patches[name] * np.array([0.35, 0.45, 0.75])).astype(np.uint8)
    assert failing_patches(measure_quality(inked), "ihc", LIMITS).mean() > 0.9


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
