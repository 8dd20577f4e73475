"""Fitting borders: they move where the slides ask for it, and the gain is stated on slides that were not seen."""

import numpy as np
import pytest

from wsi_her2.learning.threshold_fit import fit_thresholds
from wsi_her2.scoring.confidence import tempered
from wsi_her2.scoring.rule import Thresholds, scores_of


def slides(number, seed=0, inflated=1.0):
    """Percentages with random shares; `inflated` multiplies the found 3+ as a classifier of strong stains does."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet((0.5, 0.5, 0.5, 0.3), number) * 100
    truth = scores_of(true, Thresholds(intense_floor_pct=0.01))
    found = true.copy()
    found[:, 3] *= inflated
    return 100 * found / found.sum(axis=1, keepdims=True), truth


def test_borders_of_a_classifier_that_is_right_stay_the_guidelines():
    percentages, truth = slides(60)
    fit = fit_thresholds(percentages, truth, np.full(60, 0.9), [str(i) for i in range(60)])
    assert fit.right_before >= 55
    assert abs(fit.thresholds.positive_over_pct - 10) < 4
    assert abs(fit.thresholds.low_over_pct - 10) < 4


def test_a_border_moves_to_where_the_slides_divide_and_helps_on_slides_it_did_not_see():
    percentages, truth = slides(80, inflated=3.0)
    fit = fit_thresholds(percentages, truth, np.full(80, 0.9), [str(i) for i in range(80)])
    assert fit.thresholds.positive_over_pct > 14
    assert fit.right_held_out > fit.right_before
    assert fit.helped


def test_on_noise_the_held_out_figure_does_not_pretend():
    rng = np.random.default_rng(1)
    percentages, truth = rng.dirichlet(np.ones(4), 40) * 100, rng.integers(4, size=40)
    fit = fit_thresholds(percentages, truth, np.full(40, 0.9), [str(i) for i in range(40)])
    assert fit.off_within < fit.off_held_out


def test_a_confidence_that_promises_too_much_is_lowered_and_a_true_one_stays():
    percentages, truth = slides(100)
    wrong = truth.copy()
    wrong[::3] = (wrong[::3] + 1) % 4
    cases = [str(i) for i in range(100)]
    too_sure = fit_thresholds(percentages, wrong, np.full(100, 0.999), cases)
    assert too_sure.temperature > 1.5
    assert too_sure.confidence_loss_held_out < too_sure.confidence_loss_before
    assert tempered(np.array(0.9), 1.0) == 0.9
    assert tempered(np.array(0.9), 2.0) == pytest.approx(0.75)
    assert tempered(np.array([0.0, 1.0]), 2.0).tolist() == pytest.approx([0.0219, 0.9781], abs=1e-3)


def test_too_little_to_fit_on_is_an_error():
    percentages, truth = slides(10)
    with pytest.raises(ValueError, match="four cases"):
        fit_thresholds(percentages, truth, np.full(10, 0.9), ["a"] * 10)
    with pytest.raises(ValueError, match="two scores"):
        fit_thresholds(percentages, np.zeros(10, np.int64), np.full(10, 0.9), [str(i) for i in range(10)])
