"""Figures of a confusion matrix (float64 K x K, rows true, columns found; counts or weights)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def accuracy(confusion: Float64) -> float:
    """Share of the diagonal."""
    return float(np.trace(confusion) / confusion.sum())


def _present(confusion: Float64) -> npt.NDArray[np.bool_]:
    return np.asarray(confusion.sum(axis=1) > 0)


def recalls(confusion: Float64) -> Float64:
    """Of each class: the share that is found; 0 for one that is not there."""
    return np.asarray(np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1e-12))


def precisions(confusion: Float64) -> Float64:
    """Of each class: the share of what is called so that is so; 0 for one that is never called."""
    return np.asarray(np.diag(confusion) / np.maximum(confusion.sum(axis=0), 1e-12))


def mean_recall(confusion: Float64) -> float:
    """Mean over the classes that are there (balanced accuracy)."""
    return float(recalls(confusion)[_present(confusion)].mean())


def mean_precision(confusion: Float64) -> float:
    """Mean over the classes that are there."""
    return float(precisions(confusion)[_present(confusion)].mean())


def mean_f1(confusion: Float64) -> float:
    """Mean over the classes that are there."""
    total = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2 * np.diag(confusion) / np.maximum(total, 1e-12))[_present(confusion)].mean())


def matthews(confusion: Float64) -> float:
    """Matthews' correlation for any number of classes (Gorodkin 2004)."""
    total, right = confusion.sum(), np.trace(confusion)
    true, found = confusion.sum(axis=1), confusion.sum(axis=0)
    spread = (total**2 - (found**2).sum()) * (total**2 - (true**2).sum())
    return float((right * total - true @ found) / np.sqrt(spread)) if spread > 0 else float("nan")


def quadratic_kappa(confusion: Float64) -> float:
    """Cohen's kappa with quadratic weights over the classes in their order (Cohen 1968)."""
    steps = np.subtract.outer(np.arange(len(confusion)), np.arange(len(confusion))) ** 2
    chance = np.outer(confusion.sum(axis=1), confusion.sum(axis=0)) / confusion.sum()
    expected = (steps * chance).sum()
    return float(1 - (steps * confusion).sum() / expected) if expected > 0 else float("nan")
