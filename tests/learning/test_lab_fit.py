"""Fitting a laboratory's gain: found again where it is known, honest about controls it was not fitted on."""

import numpy as np
import pytest

from wsi_her2.learning.lab_fit import GAINS, Control, fit_gain, fit_stains
from wsi_her2.scoring.rule import SCORES
from wsi_her2.slides.density import HEMATOXYLIN_DAB, StainVectors
from wsi_her2.slides.lab_profile import scaled_correction
from wsi_her2.slides.stain import StainCorrection

WHITE = (240.0, 238.0, 242.0)
STRENGTH = {"0": 0.02, "1+": 0.12, "2+": 0.33, "3+": 0.75}


def stained(dab, stains=HEMATOXYLIN_DAB, side=24, number=3):
    """Patches with an even layer of DAB over some hematoxylin."""
    rng = np.random.default_rng(0)
    amounts = np.zeros((number, side, side, 3))
    amounts[..., 0] = 0.25 * rng.random((number, side, side))
    amounts[..., 1] = dab * rng.random((number, side, side)) * 2
    return np.rint(np.array(WHITE) * 10 ** -(amounts @ stains.matrix())).clip(0, 255).astype(np.uint8)


def controls_of(gain, scores=SCORES):
    return [Control(score, score, stained(STRENGTH[score] * gain), WHITE) for score in scores]


def percentages(patches):
    """A classifier that only looks at how much DAB there is."""
    density = -np.log10(np.maximum(patches.reshape(-1, 3), 1) / 255.0)
    dab = float((density @ HEMATOXYLIN_DAB.unmixing().T)[:, 1].mean())
    shares = np.exp(-(((np.log(dab + 0.02) - np.log([0.04, 0.14, 0.35, 0.77])) / 0.35) ** 2))
    return tuple(float(share) for share in 100 * shares / shares.sum())


def uncalibrated(control):
    return percentages(StainCorrection("white-point", control.white).apply(control.patches))


def calibrated(control, gain):
    return percentages(scaled_correction(control.white, HEMATOXYLIN_DAB, gain).apply(control.patches))


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_a_known_gain_is_found_and_controls_are_called_what_they_are(gain):
    fit = fit_gain(controls_of(gain), uncalibrated, calibrated)
    assert abs(np.log(fit.gain / gain)) < 0.4, "controls leave room between their borders, but not more"
    assert fit.calls == SCORES
    if gain != 1:
        assert fit.uncalibrated != SCORES
        assert fit.helped


def test_a_laboratory_on_the_classifiers_scale_is_told_that_a_profile_does_not_help():
    fit = fit_gain(controls_of(1.0), uncalibrated, calibrated)
    assert fit.uncalibrated == SCORES
    assert not fit.helped


def test_every_control_is_called_once_by_a_gain_that_did_not_see_it():
    fit = fit_gain(controls_of(2.0), uncalibrated, calibrated)
    assert [held.name for held in fit.held_out] == list(SCORES)
    assert all(held.gain in GAINS for held in fit.held_out)


def test_controls_without_tumour_are_no_call_and_all_of_them_are_an_error():
    found = {"0": None, "2+": (0, 0, 100, 0)}
    controls = controls_of(1.0, ("0", "2+"))
    fit = fit_gain(controls, lambda control: found[control.name], lambda control, _: found[control.name])
    assert fit.calls == ("no call", "2+")
    with pytest.raises(ValueError, match="none of the controls"):
        fit_gain(controls_of(1.0), lambda _: None, lambda *_: None)
    with pytest.raises(ValueError, match="two controls"):
        fit_gain(controls_of(1.0)[:1], uncalibrated, calibrated)


def test_hues_are_those_of_the_laboratory():
    own = StainVectors((0.76, 0.60, 0.22), (0.40, 0.55, 0.73))
    patches = [stained(0.6, own)]
    found, note = fit_stains(patches, [WHITE])
    assert note == ""
    np.testing.assert_allclose(found.matrix()[1], own.matrix()[1], atol=0.08)
    pale, note = fit_stains([np.full((2, 8, 8, 3), 240, np.uint8)], [WHITE])
    assert pale == HEMATOXYLIN_DAB
    assert "reference" in note
