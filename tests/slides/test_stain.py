"""Stain correction never rescales DAB, and gives up, with a reason, on what carries no stain."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from wsi_her2.errors import StainFitError
from wsi_her2.slides.density import HEMATOXYLIN_DAB, optical_density, unmix
from wsi_her2.slides.normalisation import (
    MIN_STAINED_PX,
    concentration_maxima,
    lab_statistics,
    macenko_vectors,
    stained,
    vahadane_vectors,
)
from wsi_her2.slides.stain import StainCorrection, StainSettings, fit_stain
from wsi_her2.slides.white_point import WhitePoint

WHITE = WhitePoint((234.0, 229.0, 241.0), "background", 0.3)
HE = np.array([[0.55, 0.74, 0.38], [0.18, 0.85, 0.49]])
FITTED = [("ihc", "align-hues"), ("he", "macenko"), ("he", "vahadane"), ("he", "reinhard")]


def unit(rows):
    rows = np.asarray(rows, float)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def render(amounts, vectors, white=WHITE.rgb):
    """Pixels (uint8 N x 3) of amounts (N x 2) of two stains."""
    return np.clip(np.rint(np.array(white) * 10.0 ** -(amounts @ unit(vectors))), 0, 255).astype(np.uint8)


def tissue_amounts(count=20_000, seed=0):
    """Amounts of two stains as in tissue: some places of one alone, most of both, some glass."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(3.0, 0.08, (count, 2)) + 0.05
    amounts[: count // 4, 1] *= 0.02
    amounts[count // 4 : count // 2, 0] *= 0.02
    amounts[-count // 10 :] = 0
    return np.minimum(amounts, 0.9)


def fit(sample, modality, method):
    return fit_stain(sample, WHITE, modality, StainSettings(**{modality: method}))


def angles(found, meant):
    return np.degrees(np.arccos(np.clip((unit(found) * unit(meant)).sum(axis=1), -1, 1)))


# IHC


def test_white_point_correction_is_the_default_of_ihc_and_macenko_of_he():
    sample = render(tissue_amounts(), HE)
    assert fit_stain(sample, WHITE, "ihc").method == "white-point"
    assert fit_stain(sample, WHITE, "he").method == "macenko"


def test_white_point_correction_leaves_dab_density_as_it_is_against_glass():
    amounts = np.stack(np.meshgrid(np.linspace(0, 0.5, 25), np.linspace(0, 0.7, 25)), axis=-1).reshape(-1, 2)
    rgb = render(amounts, HEMATOXYLIN_DAB.matrix()[:2])[None]
    corrected = fit_stain(rgb[0], WHITE, "ihc").apply(rgb)
    before = unmix(optical_density(rgb, WHITE.rgb))[0, :, 1]
    after = unmix(optical_density(corrected))[0, :, 1]
    assert np.abs(after - before).max() < 0.03
    assert np.polyfit(before, after, 1) == pytest.approx((1.0, 0.0), abs=0.01)


def test_white_point_correction_does_not_depend_on_how_strong_the_stain_is():
    weak, strong = (render(gain * tissue_amounts(), HEMATOXYLIN_DAB.matrix()[:2]) for gain in (0.1, 1.0))
    assert fit_stain(weak, WHITE, "ihc") == fit_stain(strong, WHITE, "ihc")


def test_a_weak_stain_stays_weak_when_hues_are_aligned():
    vectors = [(0.66, 0.68, 0.33), (0.36, 0.55, 0.75)]
    means = []
    for gain in (0.4, 1.0):
        sample = render(gain * tissue_amounts(), vectors)
        correction = fit(sample, "ihc", "align-hues")
        assert correction.method == "align-hues"
        means.append(unmix(optical_density(correction.apply(sample[None])))[0, :, 1].mean())
    assert means[0] / means[1] == pytest.approx(0.4, abs=0.04)


def test_aligning_hues_keeps_concentrations_and_turns_hues():
    vectors = [(0.66, 0.68, 0.33), (0.36, 0.55, 0.75)]
    amounts = tissue_amounts()
    rgb = render(amounts, vectors)
    corrected = fit(rgb, "ihc", "align-hues").apply(rgb[None])
    got = unmix(optical_density(corrected))[0]
    assert np.abs(got[:, :2] - amounts).mean() < 0.01
    assert np.abs(got[:, 2]).mean() < np.abs(unmix(optical_density(rgb[None], WHITE.rgb))[0, :, 2]).mean() / 2


def test_hues_are_not_aligned_without_dab():
    amounts = tissue_amounts()
    amounts[:, 1] *= 0.01
    sample = render(
        amounts + np.random.default_rng(1).normal(0, 0.02, amounts.shape), HEMATOXYLIN_DAB.matrix()[:2]
    )
    correction = fit(sample, "ihc", "align-hues")
    assert correction.method == "white-point"
    assert "align-hues" in correction.note


# H&E


@pytest.mark.parametrize("estimate", [macenko_vectors, vahadane_vectors])
@pytest.mark.parametrize("vectors", [HE, [(0.65, 0.70, 0.29), (0.07, 0.99, 0.11)]])
def test_known_stain_vectors_are_recovered(estimate, vectors):
    sample = render(tissue_amounts(), vectors)
    density = stained(optical_density(sample[None], WHITE.rgb)[0].astype(float))
    found = estimate(density)
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert angles(found, vectors).max() < 4


@pytest.mark.parametrize("estimate", [macenko_vectors, vahadane_vectors])
def test_hematoxylin_comes_first_whatever_dominates(estimate):
    for flip in (1, -1):
        amounts = tissue_amounts() * np.array([1.0, 0.5])[::flip]
        density = stained(optical_density(render(amounts, HE)[None], WHITE.rgb)[0].astype(float))
        assert angles(estimate(density), HE).max() < 8


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_slides_of_two_laboratories_come_closer(method):
    amounts = tissue_amounts()
    one = render(amounts, HE)
    other = render(0.6 * amounts, [(0.65, 0.70, 0.29), (0.10, 0.95, 0.25)])
    corrected = [fit(rgb, "he", method).apply(rgb[None]).astype(int) for rgb in (one, other)]
    before = np.abs(one.astype(int) - other).mean()
    assert np.abs(corrected[0] - corrected[1]).mean() < before / 3


def test_reinhard_gives_the_references_mean_and_deviation():
    sample = render(tissue_amounts(), HE)
    corrected = fit(sample, "he", "reinhard").apply(sample[None])[0]
    tissue = corrected[corrected.mean(axis=1) < 215]
    mean, _ = lab_statistics(tissue)
    assert mean == pytest.approx((65, 19, -11), abs=6)


@pytest.mark.parametrize("method", ["macenko", "vahadane", "reinhard", "white-point"])
def test_glass_stays_white(method):
    sample = render(tissue_amounts(), HE)
    glass = np.full((8, 8, 3), WHITE.rgb).round().astype(np.uint8)
    assert fit(sample, "he", method).apply(glass).min() >= 250


# Fallbacks


@pytest.mark.parametrize(("modality", "method"), FITTED)
@pytest.mark.parametrize("colour", [(255, 255, 255), (234, 229, 241), (0, 0, 0), (150, 90, 160)])
def test_blank_black_and_one_colour_fall_back_to_the_white_point_with_a_note(modality, method, colour):
    sample = np.full((5000, 3), colour, np.uint8)
    correction = fit(sample, modality, method)
    assert correction.method == "white-point"
    assert correction.note.startswith(f"{method} was not fitted")
    assert correction == StainCorrection("white-point", WHITE.rgb, correction.note)


@pytest.mark.parametrize(("modality", "method"), FITTED)
def test_too_few_pixels_fall_back(modality, method):
    sample = render(tissue_amounts(MIN_STAINED_PX // 2), HE)
    assert fit(sample, modality, method).method == "white-point"


def test_a_stain_that_is_absent_is_a_fit_error():
    with pytest.raises(StainFitError, match="absent"):
        concentration_maxima(np.outer(np.linspace(0.2, 1, 600), unit(HE[0])), unit(HE))


# Applying


def corrections():
    sample = render(tissue_amounts(), HE)
    ihc = render(tissue_amounts(), HEMATOXYLIN_DAB.matrix()[:2])
    yield fit(sample, "he", "none")
    yield fit(sample, "he", "white-point")
    yield fit(sample, "he", "macenko")
    yield fit(sample, "he", "vahadane")
    yield fit(sample, "he", "reinhard")
    yield fit(ihc, "ihc", "align-hues")
    yield fit(np.zeros((600, 3), np.uint8), "he", "macenko")


@pytest.mark.parametrize("correction", [*corrections()], ids=lambda c: f"{c.method}{'*' if c.note else ''}")
def test_a_batch_is_corrected_as_each_patch_is(correction, ihc_image):
    batch = np.stack([ihc_image[:128, :128], ihc_image[128:256, 300:428], ihc_image[380:508, 7:135]])
    before = batch.copy()
    got = correction.apply(batch)
    assert (got.dtype, got.shape) == (np.uint8, batch.shape)
    for one, patch in zip(got, batch, strict=True):
        np.testing.assert_array_equal(one, correction.apply(patch))
    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize("correction", [*corrections()], ids=lambda c: f"{c.method}{'*' if c.note else ''}")
def test_a_correction_survives_json(correction, ihc_image):
    adapter = TypeAdapter(StainCorrection)
    again = adapter.validate_json(adapter.dump_json(correction))
    assert again == correction
    np.testing.assert_array_equal(again.apply(ihc_image), correction.apply(ihc_image))


def test_none_changes_nothing(ihc_image):
    np.testing.assert_array_equal(fit(ihc_image.reshape(-1, 3), "he", "none").apply(ihc_image), ihc_image)


def test_nothing_is_corrected_to_nothing():
    empty = np.zeros((0, 16, 16, 3), np.uint8)
    for correction in corrections():
        assert correction.apply(empty).shape == empty.shape


FITTED = [("ihc", "align-hues"), ("he", "macenko"), ("he", "vahadane"), ("he", "reinhard")]


@pytest.mark.parametrize(("modality", "method"), FITTED)
def test_an_empty_sample_falls_back_to_the_white_point(modality, method):
    white = WhitePoint((230.0, 230.0, 230.0), "background", 0.3)
    correction = fit_stain(np.zeros((0, 3), np.uint8), white, modality, StainSettings(**{modality: method}))
    assert correction.method == "white-point"
    assert "no pixels" in correction.note


@pytest.mark.parametrize(("modality", "method"), FITTED)
@pytest.mark.parametrize("seed", range(3))
def test_a_dark_frame_with_sensor_noise_falls_back_to_the_white_point(modality, method, seed):
    sample = np.random.default_rng(seed).integers(0, 6, (5000, 3)).astype(np.uint8)
    white = WhitePoint((230.0, 230.0, 230.0), "background", 0.3)
    correction = fit_stain(sample, white, modality, StainSettings(**{modality: method}))
    assert correction.method == "white-point"
    assert correction.note
