"""Fitting a laboratory's cut-offs for cells on controls of known score.

Each of the three cut-offs decides one border: stained 0 or 1+, complete 1+ or 2+, intense 2+ or 3+. A stronger DAB
moves all three alike; haze, a coarse scanner or a pale counterstain move one of them more. So a common gain is
sought with a little freedom for each cut-off around it, such that every control lies on its own side of every
border, as far from it as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wsi_her2.cells.field import CellCutoffs
from wsi_her2.cells.scale import Percentages
from wsi_her2.learning.lab_fit import GAINS, HeldOut, LabFit, called, unlikely
from wsi_her2.scoring.rule import SCORES, Score, Thresholds

Float64 = npt.NDArray[np.float64]

_COMMON_SPREAD = 0.5
"""Log-normal spread of the gain between laboratories."""

_OWN_SPREAD = 0.25
"""Log-normal spread of a cut-off around the common gain."""

_PRIOR_WEIGHT = 0.3

_WITHIN_SPREAD = 0.25
"""Log-normal spread of DAB within a laboratory: a cut-off must do for slides that stain so much more or less."""


@dataclass(frozen=True)
class CellControl:
    """A control of known score; `at` gives its percentages with other cut-offs, None without tumour cells."""

    name: str
    score: Score
    uncalibrated: Percentages | None
    at: Callable[[CellCutoffs], Percentages | None]


@dataclass(frozen=True)
class CellLabFit:
    """What was fitted.

    Attributes
    ----------
    fit : LabFit
        The common gain, and the calls of the controls with the cut-offs.
    cutoffs : CellCutoffs
        For cells whose DAB was divided by the gain.
    """

    fit: LabFit
    cutoffs: CellCutoffs


def fit_cutoffs(
    controls: Sequence[CellControl], cutoffs: CellCutoffs, thresholds: Thresholds | None = None
) -> CellLabFit:
    """Fit gain and cut-offs.

    Parameters
    ----------
    controls : sequence of CellControl
        Measured with the laboratory's hues, DAB as it is.
    cutoffs : CellCutoffs
        Those of the software.
    thresholds : Thresholds, optional
        Of the rule.

    Raises
    ------
    ValueError
        There are fewer than two controls, or tumour cells are found in none.
    """
    if len(controls) < 2:
        raise ValueError("a gain needs at least two controls")
    limits = thresholds or Thresholds()
    loss = np.array([_losses(control, cutoffs, limits) for control in controls])
    if not np.isfinite(loss).any():
        raise ValueError("tumour is found in none of the controls")
    loss = np.where(np.isfinite(loss), loss, 0.0)
    everyone = np.ones(len(controls), bool)
    gain, own = _best(loss, everyone)
    held_out = []
    for index, control in enumerate(controls):
        others = everyone.copy()
        others[index] = False
        of_others, own_of_others = _best(loss, others)
        after = control.at(_moved(cutoffs, own_of_others))
        held_out.append(
            HeldOut(
                control.name,
                control.score,
                called(control.uncalibrated, limits),
                called(after, limits),
                of_others,
            )
        )
    found = tuple(control.at(_moved(cutoffs, own)) for control in controls)
    fit = LabFit(
        gain,
        found,
        tuple(called(percentages, limits) for percentages in found),
        tuple(called(control.uncalibrated, limits) for control in controls),
        tuple(held_out),
    )
    return CellLabFit(fit, _moved(cutoffs, tuple(round(value / gain, 4) for value in own)))


def _losses(control: CellControl, cutoffs: CellCutoffs, limits: Thresholds) -> Float64:
    """Loss of a control at each border for each factor on its cut-off (float64 3 x GAINS); NaN without tumour."""
    place = SCORES.index(control.score)
    loss = np.full((3, len(GAINS)), np.nan)
    for step, factor in enumerate(GAINS):
        found = control.at(_moved(cutoffs, (factor, factor, factor)))
        if found is None:
            continue
        _, one, two, three = found
        beyond = (
            one + two + three - limits.low_over_pct,
            two + three - limits.equivocal_over_pct,
            three - limits.positive_over_pct,
        )
        for border, points in enumerate(beyond):
            loss[border, step] = unlikely(points if place > border else -points)
    return loss


def _best(loss: Float64, of: npt.NDArray[np.bool_]) -> tuple[float, tuple[float, float, float]]:
    """The common gain, and the factor of each cut-off."""
    log_gains = np.log(GAINS)
    apart = log_gains[:, None] - log_gains[None]
    slides = np.exp(-((apart / _WITHIN_SPREAD) ** 2) / 2)
    expected = loss[of].sum(axis=0) @ (slides / slides.sum(axis=0, keepdims=True))
    # For each border: rows are the common gain, columns the factor.
    costs = expected[:, None, :] + _PRIOR_WEIGHT * (apart / _OWN_SPREAD)[None] ** 2 / 2
    common = costs.min(axis=2).sum(axis=0) + _PRIOR_WEIGHT * (log_gains / _COMMON_SPREAD) ** 2 / 2
    chosen = int(np.argmin(common))
    first, second, third = (GAINS[int(step)] for step in costs[:, chosen].argmin(axis=1))
    return GAINS[chosen], (first, second, third)


def _moved(cutoffs: CellCutoffs, factors: tuple[float, ...]) -> CellCutoffs:
    stained, complete, intense = factors
    return replace(
        cutoffs,
        stained=round(cutoffs.stained * stained, 6),
        complete=round(cutoffs.complete * complete, 6),
        intense=round(cutoffs.intense * intense, 6),
    )
