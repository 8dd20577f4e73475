"""Fitting the borders of the rule, and a temperature for the confidence, on slides of known score.

The rule stays the guideline's; only its borders move, and only as far as the slides ask for: of equally good
borders the one nearest the guideline's is taken. Whether it helps is asked on slides that the fit did not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wsi_her2.scoring.confidence import tempered
from wsi_her2.scoring.rule import Thresholds, scores_of

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

FITTED = ("positive_over_pct", "equivocal_over_pct", "low_over_pct", "intense_floor_pct")
"""Borders that are moved."""

TEMPERATURES = tuple(float(value) for value in np.round(np.geomspace(0.5, 6.0, 26), 4))

_LOWEST_PCT, _HIGHEST_PCT = 0.5, 60.0
_ROUNDS = 4
_PULL = 0.05
"""What a border that is twice or half the guideline's costs, in slides that are a class off."""

_FOLDS = 5


@dataclass(frozen=True)
class ThresholdFit:
    """What was fitted, and what it does on slides that it did not see.

    Attributes
    ----------
    thresholds : Thresholds
    temperature : float
        Above 1 where calls are less often right than their confidence says.
    slides, cases : int
    right_before, right_within, right_held_out : int
        Calls that are the truth with the borders given, with the fitted ones on the slides that they were fitted
        on, and with borders fitted on the other folds.
    off_before, off_within, off_held_out : int
        Sum of the classes that these calls are off, which is what the fit makes small.
    confidence_loss_before, confidence_loss_held_out : float
        Negative log-likelihood of a call being right, given its confidence as it is, or tempered on other folds.
    """

    thresholds: Thresholds
    temperature: float
    slides: int
    cases: int
    right_before: int
    right_within: int
    right_held_out: int
    off_before: int
    off_within: int
    off_held_out: int
    confidence_loss_before: float
    confidence_loss_held_out: float

    @property
    def helped(self) -> bool:
        """Whether held-out slides are called better with fitted borders than with those given."""
        return (self.right_held_out, -self.off_held_out) > (self.right_before, -self.off_before)


def fit_thresholds(
    percentages: Float64,
    truth: Int64,
    confidence: Float64,
    cases: Sequence[str],
    given: Thresholds | None = None,
    seed: int = 0,
) -> ThresholdFit:
    """Fit borders and temperature.

    Parameters
    ----------
    percentages : float64 N x 4
        Of 0, 1+, 2+ and 3+ as a run found them.
    truth : int64 N
        Index of the true score.
    confidence : float64 N
        Of the calls.
    cases : sequence of str
        Slides of one case stay in one fold.
    given : Thresholds, optional
        To start from and to stay near; the guideline's by default.
    seed : int
        Of the folds.

    Raises
    ------
    ValueError
        There are fewer than four cases, or all slides have one score.
    """
    given = given or Thresholds()
    names, of_case = np.unique(np.asarray(cases), return_inverse=True)
    if len(names) < 4 or len(np.unique(truth)) < 2:
        raise ValueError("borders need at least four cases and two scores")
    everyone = np.ones(len(truth), bool)
    fitted = _fit(percentages, truth, given)
    called = scores_of(percentages, given)
    folds = np.random.default_rng(seed).permutation(len(names))[of_case] % min(_FOLDS, len(names))
    held_out, loss = np.zeros(len(truth), np.int64), np.zeros(len(truth))
    right = called == truth
    for fold in np.unique(folds):
        seen, unseen = everyone & (folds != fold), folds == fold
        held_out[unseen] = scores_of(percentages[unseen], _fit(percentages[seen], truth[seen], given))
        temperature = _temperature(confidence[seen], right[seen])
        loss[unseen] = _surprise(tempered(confidence[unseen], temperature), right[unseen])
    within = scores_of(percentages, fitted)
    return ThresholdFit(
        thresholds=fitted,
        temperature=_temperature(confidence, within == truth),
        slides=len(truth),
        cases=len(names),
        right_before=int(right.sum()),
        right_within=int((within == truth).sum()),
        right_held_out=int((held_out == truth).sum()),
        off_before=int(np.abs(called - truth).sum()),
        off_within=int(np.abs(within - truth).sum()),
        off_held_out=int(np.abs(held_out - truth).sum()),
        confidence_loss_before=float(_surprise(confidence, right).mean()),
        confidence_loss_held_out=float(loss.mean()),
    )


def _fit(percentages: Float64, truth: Int64, given: Thresholds) -> Thresholds:
    """One border after the other, some rounds: each on its own is a search over what the slides can tell apart."""
    cumulative = np.cumsum(percentages[:, ::-1], axis=1)[:, ::-1]
    candidates = {
        "positive_over_pct": _between(cumulative[:, 3]),
        "equivocal_over_pct": _between(cumulative[:, 2]),
        "low_over_pct": _between(cumulative[:, 1]),
        "intense_floor_pct": _between(cumulative[:, 3]),
    }
    best = given
    for _ in range(_ROUNDS):
        before = best
        for name in FITTED:
            tried = [replace(best, **{name: value}) for value in (getattr(best, name), *candidates[name])]
            tried = [t for t in tried if t.intense_floor_pct <= t.positive_over_pct]
            best = min(tried, key=lambda t: _cost(percentages, truth, t, given))
        if best == before:
            break
    return best


def _between(values: Float64) -> list[float]:
    """Middles between neighbouring values: all borders that tell the slides apart differently."""
    steps = np.unique(np.clip(values, _LOWEST_PCT, _HIGHEST_PCT))
    return [round(float(value), 2) for value in (steps[1:] + steps[:-1]) / 2]


def _cost(percentages: Float64, truth: Int64, thresholds: Thresholds, given: Thresholds) -> float:
    off = float(np.abs(scores_of(percentages, thresholds) - truth).sum())
    moved = sum(abs(np.log2(getattr(thresholds, name) / getattr(given, name))) for name in FITTED)
    return off + _PULL * float(moved)


def _temperature(confidence: Float64, right: npt.NDArray[np.bool_]) -> float:
    # A temperature of 1 wins where the slides do not decide.
    cost = [
        _surprise(tempered(confidence, value), right).sum() + 0.05 * abs(np.log(value)) for value in TEMPERATURES
    ]
    return TEMPERATURES[int(np.argmin(cost))]


def _surprise(confidence: Float64, right: npt.NDArray[np.bool_]) -> Float64:
    """Negative log-likelihood of what happened, given the probability of being right."""
    bounded = np.clip(confidence, 1e-3, 1 - 1e-3)
    return np.asarray(-np.where(right, np.log(bounded), np.log1p(-bounded)), np.float64)
