"""Proportions are estimated as such: corrected by the confusion matrix, unbiased for rare classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_her2.scoring.proportions import correct_by_confusion, hard_counts

CONFUSION = np.array(
    [
        [0.92, 0.07, 0.01, 0.00, 0.00],
        [0.05, 0.75, 0.18, 0.02, 0.00],
        [0.02, 0.20, 0.66, 0.11, 0.01],
        [0.01, 0.02, 0.15, 0.72, 0.10],
        [0.00, 0.00, 0.02, 0.13, 0.85],
    ]
)

PROPORTIONS = st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5).filter(lambda row: sum(row) > 0.1)


def test_the_most_probable_class_is_counted_with_its_weight():
    probabilities = np.array([[0.4, 0.35, 0.25], [0.1, 0.2, 0.7]], np.float32)
    np.testing.assert_array_equal(hard_counts(probabilities, np.array([0.5, 2.0])), [[0.5, 0, 0], [0, 0, 2.0]])


def test_soft_probability_of_a_class_that_is_never_first_is_not_counted():
    probabilities = np.tile(np.array([[0.6, 0.4]], np.float32), (100, 1))
    assert hard_counts(probabilities, np.ones(100)).sum(axis=0).tolist() == [100, 0]


@given(PROPORTIONS)
def test_known_mixtures_are_recovered_through_the_confusion_matrix(row):
    truth = np.array(row)[None] / sum(row)
    found = correct_by_confusion(truth @ CONFUSION, CONFUSION, prior=0, iterations=3000)
    np.testing.assert_allclose(found, truth, atol=0.02)


@given(st.lists(PROPORTIONS, min_size=1, max_size=6))
def test_rows_stay_on_the_simplex_and_do_not_depend_on_each_other(rows):
    observed = np.array(rows)
    observed /= observed.sum(axis=1, keepdims=True)
    found = correct_by_confusion(observed, CONFUSION)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[:1], correct_by_confusion(observed[:1], CONFUSION), atol=1e-9)


def test_a_perfect_classifier_needs_no_correction():
    observed = np.array([[0.5, 0.3, 0.1, 0.06, 0.04]])
    np.testing.assert_allclose(correct_by_confusion(observed, np.eye(5), prior=0), observed, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03])
def test_a_rare_class_is_estimated_without_bias(share):
    rng = np.random.default_rng(7)
    truth = np.array([0.3, 0.7 - share, 0.0, 0.0, share])
    counts = rng.multinomial(1000, truth @ CONFUSION, size=300)
    found = correct_by_confusion(counts / 1000, CONFUSION)
    assert found[:, 4].mean() == pytest.approx(share, abs=0.003)


def test_the_plain_count_of_a_negative_slide_is_biased_and_the_corrected_one_is_not():
    truth = np.array([[0.2, 0.8, 0.0, 0.0, 0.0]])
    observed = truth @ CONFUSION
    assert observed[0, 2] > 0.12
    assert correct_by_confusion(observed, CONFUSION)[0, 2] < 0.02
