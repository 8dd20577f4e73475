"""How well a classifier does on labelled patches, each figure with an interval that respects the groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_her2.learning.confusion import (
    accuracy,
    matthews,
    mean_f1,
    mean_precision,
    mean_recall,
    quadratic_kappa,
)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "auc",
    "mcc",
    "quadratic_kappa",
)


@dataclass(frozen=True)
class Estimate:
    """A figure and the central 95 % of its bootstrap resamples; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return "-"
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured.

    Attributes
    ----------
    classes : tuple of str
    estimates : dict of str to Estimate
        By name of `METRICS`. Precision, recall and F1 are means over the classes; the area under the curve is the
        mean of each class against the rest; the kappa takes the order of the classes as given.
    confusion : int64 K x K
        Rows true.
    images, groups : int
    """

    classes: tuple[str, ...]
    estimates: dict[str, Estimate]
    confusion: Int64
    images: int
    groups: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "classes": list(self.classes),
            "images": self.images,
            "groups": self.groups,
            "confusion": self.confusion.tolist(),
            "metrics": {
                name: [None if not np.isfinite(v) else round(v, 5) for v in (e.value, e.low, e.high)]
                for name, e in self.estimates.items()
            },
        }


def evaluate(
    probabilities: Float32,
    labels: Int64,
    classes: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    resamples: int = 300,
    seed: int = 0,
) -> Evaluation:
    """Compare probabilities with labels.

    Parameters
    ----------
    probabilities : float32 N x K
    labels : int64 N
    classes : sequence of str
    groups : sequence of str, optional
        Patients, cases or slides: whole groups are resampled, because patches of one resemble each other. By
        default each patch is one.
    resamples : int
    seed : int

    Raises
    ------
    ValueError
        There is nothing to compare, or the shapes do not fit.
    """
    count, number = probabilities.shape
    if count == 0 or labels.shape != (count,) or number != len(classes):
        raise ValueError(
            f"{labels.shape} labels and {len(classes)} classes for probabilities of {count} x {number}"
        )
    found = probabilities.argmax(axis=1)
    _, of_group = np.unique(np.arange(count) if groups is None else np.asarray(groups), return_inverse=True)
    of_group = of_group.reshape(-1)
    size = int(of_group.max()) + 1
    rng = np.random.default_rng(seed)
    weights = [np.ones(count)]
    for _ in range(resamples):
        weights.append(np.bincount(rng.integers(size, size=size), minlength=size)[of_group].astype(np.float64))
    drawn = np.array([_figures(probabilities, found, labels, weight) for weight in weights])
    with np.errstate(all="ignore"):
        low, high = central_95(drawn[1:])
    estimates = {
        name: Estimate(float(drawn[0, i]), float(low[i]), float(high[i])) for i, name in enumerate(METRICS)
    }
    confusion = np.zeros((number, number), np.int64)
    np.add.at(confusion, (labels, found), 1)
    return Evaluation(tuple(classes), estimates, confusion, count, size)


def central_95(drawn: Float64) -> tuple[Float64, Float64]:
    """2.5th and 97.5th percentile of each column (float64 B x M), of what is defined in it."""
    bounds = []
    for column in drawn.T:
        defined = column[np.isfinite(column)]
        bounds.append(np.percentile(defined, (2.5, 97.5)) if len(defined) else (np.nan, np.nan))
    low, high = np.array(bounds).T
    return low, high


def _figures(probabilities: Float32, found: Int64, labels: Int64, weight: Float64) -> list[float]:
    classes = probabilities.shape[1]
    counts = np.bincount(labels * classes + found, weights=weight, minlength=classes**2)
    confusion = counts.astype(np.float64).reshape(classes, classes)
    return [figure(confusion) for figure in _FROM_CONFUSION[:5]] + [
        _area_under_curve(probabilities, labels, weight),
        *(figure(confusion) for figure in _FROM_CONFUSION[5:]),
    ]


_FROM_CONFUSION: tuple[Callable[[Float64], float], ...] = (
    accuracy,
    mean_recall,
    mean_precision,
    mean_recall,
    mean_f1,
    matthews,
    quadratic_kappa,
)


def _area_under_curve(probabilities: Float32, labels: Int64, weight: Float64) -> float:
    """Mean over the classes of the weighted area under the curve of each against the rest; ties count half."""
    areas = []
    columns = range(1, 2) if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    for column in columns:
        values, place = np.unique(probabilities[:, column], return_inverse=True)
        positive = labels == column
        of_positive = np.bincount(place.reshape(-1), weights=weight * positive, minlength=len(values))
        of_negative = np.bincount(place.reshape(-1), weights=weight * ~positive, minlength=len(values))
        pairs = of_positive.sum() * of_negative.sum()
        if pairs > 0:
            below = np.cumsum(of_negative) - of_negative
            areas.append(float((of_positive * (below + of_negative / 2)).sum() / pairs))
    return float(np.mean(areas)) if areas else float("nan")
