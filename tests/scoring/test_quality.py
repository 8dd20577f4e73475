"""What is measured of a patch tells tissue from blur, noise, ink and other stains."""

import cv2
import numpy as np
import pytest

from wsi_her2.scoring.quality import QUALITY, measure_quality


def measured(batch, name):
    return measure_quality(batch)[:, QUALITY.index(name)]


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
    assert (got >= 0).all()
    shares = [index for index, name in enumerate(QUALITY) if name.endswith("_share")]
    assert (got[:, shares] <= 1).all()
    np.testing.assert_array_equal(got[1], 0)


def test_coarseness_rises_with_blur_even_under_noise(ihc_image):
    patch = ihc_image[100:356, 100:356]
    noise = np.random.default_rng(0).normal(0, 2, patch.shape)
    blurred = [
        np.clip(cv2.GaussianBlur(patch, (0, 0), sigma) + noise, 0, 255).astype(np.uint8)[None]
        for sigma in (0.7, 3.0, 5.0)
    ]
    coarseness = [measured(batch, "coarseness")[0] for batch in blurred]
    assert (np.diff(coarseness) > 0).all()
    assert coarseness[0] < 1.5
    assert coarseness[1] > 3.0
    # What is added after the blur fools the finest detail.
    assert measured(blurred[2], "focus")[0] > 0.2


@pytest.mark.parametrize("grain_px", [0.5, 0.8, 1.2])
def test_noise_of_any_grain_has_less_structure_than_tissue(ihc_image, grain_px):
    noise = cv2.GaussianBlur(
        np.random.default_rng(0).normal(0, 1, (10, 128, 128)).T.astype(np.float32), (0, 0), grain_px
    )
    noise = np.clip(0.35 + 0.2 * noise / noise.std(), 0, 2).transpose(2, 0, 1)
    grey = np.rint(255 * 10**-noise)[..., None].repeat(3, axis=3).astype(np.uint8)
    tissue = np.stack([ihc_image[y : y + 128, x : x + 128] for y in (0, 128, 256) for x in (0, 128, 256)])
    assert np.median(measured(grey, "structure")) < 0.4
    assert np.median(measured(tissue, "structure")) > 0.6


def test_the_veil_is_the_density_that_lies_over_everything(ihc_image):
    patch = ihc_image[None, 100:356, 100:356]
    under_ink = (patch * 0.5).astype(np.uint8)
    bare, inked = measured(patch, "veil")[0], measured(under_ink, "veil")[0]
    assert bare < 0.1
    assert inked == pytest.approx(bare + np.log10(2), abs=0.02)


def test_what_has_no_colour_is_foreign(ihc_image):
    patch = ihc_image[100:356, 100:356]
    grey = cv2.cvtColor(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    assert measured(patch[None], "foreign_share")[0] < 0.2
    assert measured(grey[None], "foreign_share")[0] == 1.0


def test_the_red_of_another_chromogen_is_foreign():
    density = np.full((1, 128, 128, 1), 0.4) * np.array([0.2139, 0.8511, 0.4779])
    assert measured(np.rint(255 * 10**-density).astype(np.uint8), "foreign_share")[0] == 1.0


def test_a_patch_is_measured_the_same_in_any_batch(ihc_image):
    batch = np.stack([ihc_image[y : y + 128, :128] for y in (0, 128, 256)])
    alone = np.concatenate([measure_quality(patch[None]) for patch in batch])
    np.testing.assert_array_equal(measure_quality(batch), alone)
