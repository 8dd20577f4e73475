"""Figures on patches are those of a reference implementation, and their intervals respect the groups."""

import numpy as np
import pytest

from wsi_her2.learning.metrics import METRICS, evaluate

torchmetrics = pytest.importorskip("torchmetrics")
torch = pytest.importorskip("torch")


def drawn(count, classes, seed=0, skill=1.5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    logits = rng.standard_normal((count, classes)) + skill * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("classes", [2, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_figures_equal_those_of_torchmetrics(classes, seed):
    probabilities, labels = drawn(200, classes, seed)
    found = evaluate(probabilities, labels, [str(i) for i in range(classes)], resamples=2).estimates
    functional = torchmetrics.functional.classification
    given, true = torch.from_numpy(probabilities), torch.from_numpy(labels)
    if classes == 2:
        area = functional.binary_auroc(given[:, 1], true)
    else:
        area = functional.multiclass_auroc(given, true, classes, average="macro")
    expected = {
        "accuracy": functional.multiclass_accuracy(given, true, classes, average="micro"),
        "balanced_accuracy": functional.multiclass_accuracy(given, true, classes, average="macro"),
        "precision": functional.multiclass_precision(given, true, classes, average="macro"),
        "recall": functional.multiclass_recall(given, true, classes, average="macro"),
        "f1": functional.multiclass_f1_score(given, true, classes, average="macro"),
        "auc": area,
        "mcc": functional.multiclass_matthews_corrcoef(given, true, classes),
        "quadratic_kappa": functional.multiclass_cohen_kappa(given, true, classes, weights="quadratic"),
    }
    assert set(found) == set(METRICS) == set(expected)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(float(value), abs=1e-5), name


def test_perfect_probabilities_give_one_everywhere():
    labels = np.repeat(np.arange(4), 10)
    found = evaluate(np.eye(4, dtype=np.float32)[labels], labels, "abcd", resamples=20)
    assert all(estimate.value == estimate.low == estimate.high == 1 for estimate in found.estimates.values())
    assert (found.confusion == 10 * np.eye(4)).all()


def test_intervals_are_wider_when_patches_of_a_group_resemble_each_other():
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.integers(2, size=20), 50)
    right = np.repeat(rng.random(20) < 0.7, 50)
    found = np.where(right, labels, 1 - labels)
    probabilities = np.eye(2, dtype=np.float32)[found]
    alone = evaluate(probabilities, labels, "ab").estimates["accuracy"]
    grouped = evaluate(probabilities, labels, "ab", np.repeat(np.arange(20), 50)).estimates["accuracy"]
    assert alone.value == grouped.value
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)
    assert grouped.low < 0.7 < grouped.high


def test_a_single_class_leaves_undefined_figures_undefined():
    found = evaluate(np.array([[0.9, 0.1]] * 4, np.float32), np.zeros(4, np.int64), "ab").estimates
    assert found["accuracy"].value == 1
    assert np.isnan(found["auc"].value)
    assert np.isnan(found["mcc"].value)
    assert str(found["auc"]) == "-"


@pytest.mark.parametrize(("count", "classes", "names"), [(0, 2, "ab"), (3, 2, "abc")])
def test_nothing_to_compare_is_an_error(count, classes, names):
    with pytest.raises(ValueError, match="labels"):
        evaluate(np.ones((count, classes), np.float32), np.zeros(count, np.int64), names)
