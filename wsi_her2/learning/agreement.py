"""How far the calls of slides agree with a ground truth: each figure with an interval from resampled cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_her2.learning.confusion import accuracy, matthews, mean_recall, precisions, quadratic_kappa, recalls
from wsi_her2.learning.metrics import Estimate, central_95
from wsi_her2.scoring.rule import SCORES, Score

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

CONFIDENCE_BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Edges; the last bin holds 1.0 too."""


@dataclass(frozen=True)
class ComparedSlide:
    """A slide's call beside its truth.

    Attributes
    ----------
    slide_id : str
    case : str
        Slides of one case are resampled together.
    truth : {'0', '1+', '2+', '3+'}
    call : {'0', '1+', '2+', '3+'} or None
        None for a slide that was not assessed.
    confidence : float or None
        Of the call.
    reason : str
        Why there is no call.
    true_percentages, found_percentages : tuple of float or None
        Of 0, 1+, 2+ and 3+ in the tumour.
    true_complete_pct, found_complete_pct : float or None
        Percent of cells with a completely stained membrane.
    """

    slide_id: str
    case: str
    truth: Score
    call: Score | None
    confidence: float | None = None
    reason: str = ""
    true_percentages: tuple[float, ...] | None = None
    found_percentages: tuple[float, ...] | None = None
    true_complete_pct: float | None = None
    found_complete_pct: float | None = None

    @property
    def percentage_error(self) -> float:
        """Mean absolute error of the four percentages, in points; NaN where one side is not known."""
        if self.true_percentages is None or self.found_percentages is None:
            return float("nan")
        return float(np.abs(np.subtract(self.true_percentages, self.found_percentages)).mean())

    @property
    def complete_error(self) -> float:
        """Absolute error of the percentage of complete membranes, in points; NaN where one side is not known."""
        if self.true_complete_pct is None or self.found_complete_pct is None:
            return float("nan")
        return abs(self.true_complete_pct - self.found_complete_pct)


@dataclass(frozen=True)
class ConfidenceBin:
    """Slides whose call has a confidence between two edges."""

    low: float
    high: float
    slides: int
    mean_confidence: float
    right: float


@dataclass(frozen=True, eq=False)
class Agreement:
    """What was measured.

    Attributes
    ----------
    slides : int
        With a truth.
    cases : int
    assessed : int
        Of the slides, those with a call; all figures but `assessed_share` are about them.
    estimates : dict of str to Estimate
        By name; see `measure_agreement`.
    confusion : int64 4 x 4
        Rows true.
    bins : tuple of ConfidenceBin
    """

    slides: int
    cases: int
    assessed: int
    estimates: dict[str, Estimate]
    confusion: Int64
    bins: tuple[ConfidenceBin, ...]


def measure_agreement(
    compared: Sequence[ComparedSlide],
    points: npt.NDArray[np.float64] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Compare calls with the truth.

    Parameters
    ----------
    compared : sequence of ComparedSlide
    points : float64 4 x 4, optional
        What a call (column) earns for a truth (row), as contests award it.
    resamples : int
        Of whole cases.
    seed : int

    Returns
    -------
    Agreement
        Estimates: `assessed_share`; `accuracy`; `within_one` (at most a class off); `balanced_accuracy`;
        `quadratic_kappa`; `mcc`; `recall_<score>` and `precision_<score>`; `percentage_error` and
        `complete_membrane_error` (mean, points); `mean_confidence`; `confidence_error` (mean difference between
        the confidence and the share that is right, over the bins); `brier` (of the confidence as the probability
        of being right); with `points`, `points_per_slide`.

    Raises
    ------
    ValueError
        No slide has a truth, or the points are not 4 x 4.
    """
    if not compared:
        raise ValueError("no slide has both a result and a truth")
    if points is not None and points.shape != (len(SCORES),) * 2:
        raise ValueError(f"points for {len(SCORES)} x {len(SCORES)} scores, not {points.shape}")
    truth = np.array([SCORES.index(slide.truth) for slide in compared])
    called = np.array([-1 if slide.call is None else SCORES.index(slide.call) for slide in compared])
    confidence = np.array([np.nan if s.confidence is None else s.confidence for s in compared], np.float64)
    errors = np.array([[slide.percentage_error, slide.complete_error] for slide in compared])
    _, of_case = np.unique([slide.case for slide in compared], return_inverse=True)
    cases = int(of_case.max()) + 1
    rng = np.random.default_rng(seed)

    def figures(weight: Float64) -> dict[str, float]:
        return _figures(truth, called, confidence, errors, points, weight)

    whole = figures(np.ones(len(compared)))
    drawn = [
        list(
            figures(np.bincount(rng.integers(cases, size=cases), minlength=cases)[of_case].astype(float)).values()
        )
        for _ in range(resamples)
    ]
    low, high = central_95(np.array(drawn))
    estimates = {
        name: Estimate(value, float(low[i]), float(high[i])) for i, (name, value) in enumerate(whole.items())
    }
    assessed = called >= 0
    confusion = np.zeros((len(SCORES),) * 2, np.int64)
    np.add.at(confusion, (truth[assessed], called[assessed]), 1)
    right = (truth == called)[assessed]
    return Agreement(
        slides=len(compared),
        cases=cases,
        assessed=int(assessed.sum()),
        estimates=estimates,
        confusion=confusion,
        bins=_bins(confidence[assessed], right),
    )


def _figures(
    truth: Int64, called: Int64, confidence: Float64, errors: Float64, points: Float64 | None, weight: Float64
) -> dict[str, float]:
    number = len(SCORES)
    assessed = called >= 0
    true, found, kept = truth[assessed], called[assessed], weight[assessed]
    counts = np.bincount(true * number + found, weights=kept, minlength=number**2)
    confusion = np.asarray(counts, np.float64).reshape(number, number)
    there = confusion.sum() > 0

    def of(figure: Callable[[Float64], float]) -> float:
        return figure(confusion) if there else float("nan")

    right = (true == found).astype(np.float64)
    sure = confidence[assessed]
    near = np.abs(np.subtract.outer(np.arange(number), np.arange(number))) <= 1
    result = {
        "assessed_share": _mean(assessed.astype(np.float64), weight),
        "accuracy": of(accuracy),
        "within_one": of(lambda c: float(c[near].sum() / c.sum())),
        "balanced_accuracy": of(mean_recall),
        "quadratic_kappa": of(quadratic_kappa),
        "mcc": of(matthews),
    }
    for name, values, of_row in (
        ("recall", recalls(confusion), confusion.sum(axis=1)),
        ("precision", precisions(confusion), confusion.sum(axis=0)),
    ):
        for score, value, total in zip(SCORES, values, of_row, strict=True):
            result[f"{name}_{score}"] = float(value) if total > 0 else float("nan")
    result |= {
        "percentage_error": _mean(errors[assessed, 0], kept),
        "complete_membrane_error": _mean(errors[assessed, 1], kept),
        "mean_confidence": _mean(sure, kept),
        "confidence_error": _calibration_error(sure, right, kept),
        "brier": _mean((sure - right) ** 2, kept),
    }
    if points is not None:
        result["points_per_slide"] = _mean(points[true, found], kept)
    return result


def _mean(values: Float64, weight: Float64) -> float:
    """Weighted mean of what is known; NaN where nothing is."""
    known = np.isfinite(values) & (weight > 0)
    return float(np.average(values[known], weights=weight[known])) if known.any() else float("nan")


def _bin_of(confidence: Float64) -> Int64:
    return np.clip(np.searchsorted(CONFIDENCE_BINS, confidence, side="right") - 1, 0, len(CONFIDENCE_BINS) - 2)


def _calibration_error(confidence: Float64, right: Float64, weight: Float64) -> float:
    known = np.isfinite(confidence) & (weight > 0)
    if not known.any():
        return float("nan")
    places, gap = _bin_of(confidence[known]), (confidence - right)[known] * weight[known]
    return float(np.abs(np.bincount(places, weights=gap)).sum() / weight[known].sum())


def _bins(confidence: Float64, right: npt.NDArray[np.bool_]) -> tuple[ConfidenceBin, ...]:
    known = np.isfinite(confidence)
    confidence, right = confidence[known], right[known]
    places = _bin_of(confidence)
    return tuple(
        ConfidenceBin(
            CONFIDENCE_BINS[index],
            CONFIDENCE_BINS[index + 1],
            int((places == index).sum()),
            float(confidence[places == index].mean()),
            float(right[places == index].mean()),
        )
        for index in np.unique(places)
    )
