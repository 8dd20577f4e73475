"""Fitting a laboratory's DAB gain on controls of known score, and asking by cross-validation whether it helps.

One control of each score says where the laboratory's borders lie: the gain sought is the one at which every
control
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_her2.cells.scale import Percentages
from wsi_her2.errors import StainFitError
from wsi_her2.scoring.rule import SCORES, Score, Thresholds, apply_rule
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.density import HEMATOXYLIN_DAB, StainVectors, Vector
from wsi_her2.slides.stain import StainCorrection, hematoxylin_dab_vectors

Float64 = npt.NDArray[np.float64]

GAINS = tuple(float(gain) for gain in np.round(np.geomspace(0.3, 3.3, 29), 4))
"""Gains that are tried; neighbours differ by 9 %."""

_BORDER_POINTS = 4.0
"""A control this far from a border, in percentage points, is called what it is with a probability of 0.73."""

_FAR_POINTS = 20.0
"""Further from a border than this is not better."""

_PRIOR_SPREAD = 0.5
"""Log-normal spread of the gain between laboratories, where the controls do not decide."""

_PRIOR_WEIGHT = 0.3


@dataclass(frozen=True, eq=False)
class Control:
    """Tissue of known score.

    Attributes
    ----------
    name : str
    score : {'0', '1+', '2+', '3+'}
    patches : uint8 N x H x W x 3
        As they were read, of the classifier's size.
    white : tuple of float
        White point, grey levels.
    """

    name: str
    score: Score
    patches: RGB
    white: Vector


@dataclass(frozen=True)
class HeldOut:
    """A control that was called by a gain fitted on the others."""

    name: str
    score: Score
    before: str
    after: str
    gain: float


@dataclass(frozen=True)
class LabFit:
    """What was fitted.

    Attributes
    ----------
    gain : float
    percentages : tuple of tuple of float
        Of each control at that gain.
    calls, uncalibrated : tuple of str
        Of each control, with and without the profile; 'no call' where no tumour was found.
    held_out : tuple of HeldOut
        Each control once.
    """

    gain: float
    percentages: tuple[Percentages | None, ...]
    calls: tuple[str, ...]
    uncalibrated: tuple[str, ...]
    held_out: tuple[HeldOut, ...]

    @property
    def helped(self) -> bool:
        """Whether held-out controls are called better with the profile than without, by distance in classes."""
        return sum(_off(h.score, h.after) for h in self.held_out) < sum(
            _off(h.score, h.before) for h in self.held_out
        )


def fit_gain(
    controls: Sequence[Control],
    uncalibrated: Callable[[Control], Percentages | None],
    calibrated: Callable[[Control, float], Percentages | None],
    thresholds: Thresholds | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LabFit:
    """Fit the DAB gain.

    Parameters
    ----------
    controls : sequence of Control
    uncalibrated : callable
        Percentages of 0, 1+, 2+ and 3+ in the tumour of a control as it is; None where there is no tumour.
    calibrated : callable
        The same once the control's DAB was divided by a gain.
    thresholds : Thresholds, optional
    progress : callable, optional
        Called with the gains done and all gains.

    Raises
    ------
    ValueError
        There are fewer than two controls, or tumour is found in none.
    """
    if len(controls) < 2:
        raise ValueError("a gain needs at least two controls")
    limits = thresholds or Thresholds()
    plain = [uncalibrated(control) for control in controls]
    table: list[list[Percentages | None]] = []
    for done, gain in enumerate(GAINS, 1):
        table.append([calibrated(control, gain) for control in controls])
        if progress:
            progress(done, len(GAINS))
    if not any(found is not None for row in table for found in row):
        raise ValueError("tumour is found in none of the controls")
    loss = np.array(
        [[_loss(c.score, found, limits) for c, found in zip(controls, row, strict=True)] for row in table]
    )
    everyone = np.ones(len(controls), bool)
    best = _best(loss, everyone)
    held_out = []
    for index, control in enumerate(controls):
        others = everyone.copy()
        others[index] = False
        chosen = _best(loss, others)
        held_out.append(
            HeldOut(
                control.name,
                control.score,
                called(plain[index], limits),
                called(table[chosen][index], limits),
                GAINS[chosen],
            )
        )
    return LabFit(
        GAINS[best],
        tuple(table[best]),
        tuple(called(found, limits) for found in table[best]),
        tuple(called(found, limits) for found in plain),
        tuple(held_out),
    )


def fit_stains(patches: Sequence[RGB], whites: Sequence[Vector]) -> tuple[StainVectors, str]:
    """Hues of a laboratory's hematoxylin and DAB from its controls, and why the reference stands in if it does."""
    sample = [
        StainCorrection("white-point", white).apply(part.reshape(-1, 1, 3)[:: max(1, part.size // 600_000)])
        for part, white in zip(patches, whites, strict=True)
    ]
    try:
        return hematoxylin_dab_vectors(np.concatenate(sample)), ""
    except StainFitError as error:
        return HEMATOXYLIN_DAB, f"the hues of the reference are used: {error}"


def _best(loss: Float64, of: npt.NDArray[np.bool_]) -> int:
    """The gain of the smallest loss; neighbours lend a hand, so that a lone lucky gain does not win."""
    prior = _PRIOR_WEIGHT * (np.log(GAINS) / _PRIOR_SPREAD) ** 2 / 2
    total = loss[:, of].sum(axis=1)
    smooth = np.convolve(np.pad(total, 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
    return int(np.argmin(smooth + prior))


def _loss(score: Score, found: Percentages | None, limits: Thresholds) -> float:
    """Negative log-probability that a control is called its score, by its distance to the borders."""
    if found is None:
        return 3.0
    _, one, two, three = found
    distances = (
        one + two + three - limits.low_over_pct,
        two + three - limits.equivocal_over_pct,
        three - limits.positive_over_pct,
    )
    place = SCORES.index(score)
    loss = 0.0
    if place > 0:
        loss += unlikely(distances[place - 1])
    if place < len(SCORES) - 1:
        loss += unlikely(-distances[place])
    return loss


def unlikely(points: float) -> float:
    """Of being on the right side of a border, for points on the right side of it."""
    return float(np.log1p(np.exp(-min(points, _FAR_POINTS) / _BORDER_POINTS)))


def called(found: Percentages | None, limits: Thresholds) -> str:
    """What a control is called by its percentages."""
    return "no call" if found is None else apply_rule(found, limits).score


def _off(score: Score, call: str) -> int:
    return len(SCORES) if call not in SCORES else abs(SCORES.index(score) - SCORES.index(call))
