"""Slides of a run that are unlike the others: not wrong for that, but worth a look before a trend is believed."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wsi_her2.reports.slide_table import SlideRow
from wsi_her2.scoring.rule import SCORES

Truths = npt.NDArray[np.bool_]

LEAST_SLIDES = 20
"""Of fewer slides it cannot be said what is usual."""

_FAR = 3.5
"""So many robust standard deviations from the median is an outlier (Iglewicz and Hoaglin's rule)."""

_TO_SIGMA = 1.4826
"""From the median absolute deviation to the standard deviation of normal values."""

_SCALE_SHARE, _UNREADABLE_SHARE = 0.05, 0.01


@dataclass(frozen=True)
class Outliers:
    """Slides that are unlike the others in one respect.

    Attributes
    ----------
    key : str
        A short name that stays the same when the page is made again.
    text : str
        In words.
    slides : tuple of int
        Places of the slides, in the order in which they came.
    """

    key: str
    text: str
    slides: tuple[int, ...]


@dataclass
class OutlierSearch:
    """Takes of each slide the numbers that it is judged by, and keeps nothing else."""

    _mpp: array[float] = field(default_factory=lambda: array("d"))
    _tissue: array[float] = field(default_factory=lambda: array("d"))
    _unreadable: array[float] = field(default_factory=lambda: array("d"))
    _h_score: array[float] = field(default_factory=lambda: array("d"))
    _scores: list[str | None] = field(default_factory=list)

    def add(self, row: SlideRow) -> None:
        """Take a slide in."""
        for kept, value in (
            (self._mpp, row.mpp),
            (self._tissue, row.tissue_mm2),
            (self._unreadable, row.unreadable_fraction),
            (self._h_score, row.h_score),
        ):
            kept.append(np.nan if value is None else value)
        self._scores.append(row.her2_score)

    def found(self) -> list[Outliers]:
        """What there is, in the order in which the page shows it."""
        return [
            Outliers(key, text, tuple(places.tolist()))
            for key, text, unlike in self._kinds()
            if len(places := np.flatnonzero(unlike))
        ]

    def _kinds(self) -> Iterator[tuple[str, str, Truths]]:
        unreadable = np.asarray(self._unreadable) > _UNREADABLE_SHARE
        yield "unreadable", f"unreadable patches, over {100 * _UNREADABLE_SHARE:g} %", unreadable
        mpp = np.asarray(self._mpp)
        if np.isfinite(mpp).sum() >= LEAST_SLIDES:
            usual = float(np.nanmedian(mpp))
            text = f"another scale than most ({usual:.3g} µm per pixel)"
            yield "scale", text, np.abs(mpp / usual - 1) > _SCALE_SHARE
        tissue = _deviations(np.log(np.maximum(np.asarray(self._tissue), 1e-3)))
        yield "little", "far less tissue than most", tissue < -_FAR
        yield "much", "far more tissue than most", tissue > _FAR
        yield "h-score", "H-score unlike others of the same score", self._unlike_their_score()

    def _unlike_their_score(self) -> Truths:
        h_scores, scores = np.asarray(self._h_score), np.asarray(self._scores, object)
        unlike = np.zeros(len(h_scores), bool)
        for score in SCORES:
            of_score = np.flatnonzero(scores == score)
            unlike[of_score] = np.abs(_deviations(h_scores[of_score])) > _FAR
        return unlike


def _deviations(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How many robust standard deviations each value is from the median; 0 where that cannot be said."""
    known = values[np.isfinite(values)]
    if len(known) < LEAST_SLIDES:
        return np.zeros(len(values))
    middle = np.median(known)
    spread = _TO_SIGMA * np.median(np.abs(known - middle))
    if spread == 0:
        return np.zeros(len(values))
    return np.asarray(np.nan_to_num((values - middle) / spread), np.float64)
