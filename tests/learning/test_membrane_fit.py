"""The membrane scorer is fitted on phantoms, and what it is said to do is measured on unseen scenes."""

import json

import numpy as np
import pytest

from wsi_her2.learning.membrane import describe, draw_examples, fit_membrane_scorer, join
from wsi_her2.models.membrane.measures import MEASURES
from wsi_her2.models.membrane.scorer import membrane_scorer


@pytest.fixture(scope="module")
def examples():
    return join(list(draw_examples(240, ("nanozoomer", "oesophagus_tma"), seed=5)))


@pytest.fixture(scope="module")
def fit(examples):
    return fit_membrane_scorer(examples)


@pytest.mark.slow
def test_examples_do_not_depend_on_the_workers():
    one, two = (join(list(draw_examples(12, ("aperio",), seed=3, workers=workers))) for workers in (1, 2))
    np.testing.assert_array_equal(one.measures, two.measures)
    np.testing.assert_array_equal(one.class_shares, two.class_shares)


def test_unknown_looks_are_named():
    with pytest.raises(ValueError, match="no_such_look"):
        next(draw_examples(4, ("no_such_look",), seed=0))


@pytest.mark.slow
def test_the_fit_does_better_than_chance_on_unseen_scenes(fit):
    assert fit.held_out["tumour_accuracy"] > 0.75
    assert fit.held_out["grade_accuracy_pure"] > 0.45  # one of four by chance


def test_more_of_every_staining_measure_never_lowers_the_grade(fit, examples):
    more = examples.measures.copy()
    for name in ("ridge_p90", "cytoplasm_ridge_p90", "ridge_ratio"):
        more[:, MEASURES.index(name)] *= 1.5
    assert (fit.regression.grade(more) >= fit.regression.grade(examples.measures) - 1e-4).mean() > 0.95


def test_rows_of_the_confusion_matrix_are_shares_and_the_diagonal_leads(fit):
    matrix = np.asarray(fit.confusion)
    assert matrix.sum(axis=1) == pytest.approx(1)
    assert (matrix >= 0).all()
    assert matrix[0].argmax() == 0
    assert matrix[4].argmax() == 4


def test_the_file_written_is_the_scorer_that_was_fitted(fit, examples):
    content = json.dumps(describe(fit, "mine", {"validated": False})).encode()
    scorer = membrane_scorer(content, "mine.json")
    np.testing.assert_allclose(
        scorer.regression.probabilities(examples.measures),
        fit.regression.probabilities(examples.measures),
        atol=2e-3,
    )
    assert np.asarray(scorer.confusion) == pytest.approx(np.asarray(fit.confusion), abs=1e-4)


def test_held_out_scenes_do_not_change_the_regressions(examples):
    spoilt = examples.measures.copy()
    held_out = examples.scene % 4 == 0
    spoilt[held_out] = 0
    from dataclasses import replace

    whole, other = fit_membrane_scorer(examples), fit_membrane_scorer(replace(examples, measures=spoilt))
    assert whole.regression == other.regression
    assert whole.confusion != other.confusion
