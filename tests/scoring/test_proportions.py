"""Proportions are estimated as such: corrected by the confusion matrix, unbiased for rare classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_her2.scoring.proportions import (
    correct_by_confusion,
    hard_counts,
    main_classes,
    response_matrix,
    share_counts,
)

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


def test_shares_are_added_up_by_weight():
    shares = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32)
    np.testing.assert_allclose(share_counts(shares, np.array([2.0, 4.0])), [[1, 1], [1, 3]])


def test_the_response_is_found_from_patches_that_are_mixed():
    rng = np.random.default_rng(1)
    true = rng.dirichlet(np.full(5, 0.4), size=2000).astype(np.float32)
    found = true @ CONFUSION + rng.normal(0, 0.02, (2000, 5))
    np.testing.assert_allclose(response_matrix(found.astype(np.float32), true), CONFUSION, atol=0.01)


def test_a_class_that_no_patch_holds_stands_for_itself():
    true = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.8, 0]], np.float32)
    response = response_matrix(true, true)
    np.testing.assert_allclose(response, np.eye(3), atol=1e-6)


def test_shares_that_lean_towards_the_middle_are_straightened_by_the_response():
    truth = np.array([0.55, 0.40, 0.0, 0.0, 0.05])
    leaning = 0.7 * np.eye(5) + 0.3 / 5
    rng = np.random.default_rng(2)
    true = rng.dirichlet(np.full(5, 0.3), size=1000).astype(np.float32)
    response = response_matrix((true @ leaning).astype(np.float32), true)
    observed = (truth @ leaning)[None]
    assert observed[0, 2] > 0.05
    np.testing.assert_allclose(correct_by_confusion(observed, response, iterations=5000)[0], truth, atol=0.01)


def test_a_patch_with_a_fifth_of_tumour_counts_as_tumour_where_outputs_are_shares():
    classes = ("other", "0", "1+", "2+", "3+")
    shares = np.array([[0.85, 0.1, 0.05, 0, 0], [0.75, 0.05, 0.2, 0, 0], [0.1, 0.3, 0.2, 0.2, 0.2]], np.float32)
    assert main_classes(shares, classes, shares=True).tolist() == [0, 2, 1]
    assert main_classes(shares, classes).tolist() == [0, 0, 1]
    assert main_classes(shares[:, 1:], classes[1:], shares=True).tolist() == [0, 1, 0]
