"""Agreement of calls with a truth: what is counted, what is left out, and intervals that hold cases together."""

import numpy as np
import pytest

from wsi_her2.learning.agreement import ComparedSlide, measure_agreement
from wsi_her2.scoring.rule import SCORES


def compared(pairs, confidence=0.9, cases=None):
    return [
        ComparedSlide(f"s{i}", cases[i] if cases else f"s{i}", truth, call, confidence if call else None)
        for i, (truth, call) in enumerate(pairs)
    ]


def test_figures_are_those_of_the_confusion_matrix():
    pairs = [("0", "0"), ("0", "1+"), ("1+", "1+"), ("2+", "2+"), ("2+", "3+"), ("3+", "3+"), ("3+", "1+")]
    found = measure_agreement(compared(pairs), resamples=50)
    assert found.confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]]
    value = {name: estimate.value for name, estimate in found.estimates.items()}
    assert value["accuracy"] == pytest.approx(4 / 7)
    assert value["within_one"] == pytest.approx(6 / 7)
    assert value["recall_2+"] == pytest.approx(0.5)
    assert value["precision_1+"] == pytest.approx(1 / 3)
    assert np.isnan(value["percentage_error"])


def test_quadratic_kappa_and_matthews_are_those_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=60)
    call = np.clip(truth + rng.integers(-1, 2, size=60), 0, 3)
    pairs = [(SCORES[t], SCORES[c]) for t, c in zip(truth, call, strict=True)]
    found = measure_agreement(compared(pairs), resamples=10).estimates
    given = torch.from_numpy(call), torch.from_numpy(truth), 4
    assert found["quadratic_kappa"].value == pytest.approx(
        float(torchmetrics.multiclass_cohen_kappa(*given, weights="quadratic")), abs=1e-5
    )
    assert found["mcc"].value == pytest.approx(float(torchmetrics.multiclass_matthews_corrcoef(*given)), abs=1e-5)


def test_a_slide_without_a_call_counts_only_as_not_assessed():
    with_refusal = measure_agreement(compared([("0", "0"), ("3+", "3+"), ("2+", None)]), resamples=20)
    assert with_refusal.assessed == 2
    assert with_refusal.estimates["assessed_share"].value == pytest.approx(2 / 3)
    assert with_refusal.estimates["accuracy"].value == 1


def test_nothing_but_refusals_has_no_figures_but_is_no_error():
    found = measure_agreement(compared([("0", None), ("2+", None)]), resamples=5)
    assert found.estimates["assessed_share"].value == 0
    assert np.isnan(found.estimates["accuracy"].value)
    assert found.bins == ()


def test_intervals_are_wider_when_slides_belong_to_few_cases():
    pairs = [("2+", "2+")] * 20 + [("2+", "3+")] * 20
    alone = measure_agreement(compared(pairs)).estimates["accuracy"]
    in_cases = measure_agreement(compared(pairs, cases=[f"c{i // 10}" for i in range(40)])).estimates["accuracy"]
    assert in_cases.high - in_cases.low > 1.5 * (alone.high - alone.low)


def test_confidence_is_measured_against_what_is_right():
    sure = measure_agreement(compared([("0", "0"), ("0", "1+")] * 10, confidence=1.0), resamples=20)
    assert sure.estimates["confidence_error"].value == pytest.approx(0.5)
    assert sure.estimates["brier"].value == pytest.approx(0.5)
    assert [(part.low, part.high, part.slides, part.right) for part in sure.bins] == [(0.99, 1.0, 20, 0.5)]


def test_points_are_those_of_the_matrix():
    points = np.diag([15.0, 15, 15, 15])
    points[3, 2] = 5
    found = measure_agreement(compared([("3+", "2+"), ("0", "0")]), points, resamples=20)
    assert found.estimates["points_per_slide"].value == pytest.approx(10)
    with pytest.raises(ValueError, match="points for 4 x 4"):
        measure_agreement(compared([("0", "0")]), np.zeros((3, 4)))


def test_errors_of_percentages_are_means_over_what_is_known():
    slides = [
        ComparedSlide("a", "a", "2+", "2+", 0.9, "", (0, 20, 80, 0), (10, 20, 70, 0), 80.0, 71.0),
        ComparedSlide("b", "b", "0", "0", 0.9, "", None, (100, 0, 0, 0), 0.0, None),
    ]
    found = measure_agreement(slides, resamples=20).estimates
    assert found["percentage_error"].value == pytest.approx(5)
    assert found["complete_membrane_error"].value == pytest.approx(9)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="no slide"):
        measure_agreement([])
