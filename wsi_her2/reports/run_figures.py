"""What all slides of a run say together: calls, confidence, why slides have none, and how much work they were."""

from __future__ import annotations

import re
import statistics
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from wsi_her2.reports.slide_table import SlideRow

LABELS = ("0", "1+", "2+", "3+", "negative", "positive", "not assessable", "failed")
"""What the page calls the outcome of a slide, in the order in which it sorts."""

CONFIDENCE_EDGES = (0.0, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Where the distribution of confidences is cut. A bin holds its lower edge; the last one holds 1 as well."""

_STATUS_LABELS = {"not_assessable": "not assessable", "failed": "failed"}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LEFT_OUT = "…"


def label_of(row: SlideRow) -> str:
    """The outcome of a slide: its score, its group where the model gives no score, or why it has none."""
    if row.status == "scored":
        return row.her2_score or row.her2_group or row.status
    return _STATUS_LABELS[row.status]


@dataclass
class Cause:
    """A reason that slides share for not being scored.

    Attributes
    ----------
    status : str
    text : str
        In words. Names of slides, and numbers that are not the same for all of them, are left out.
    count : int
    """

    status: str
    text: str
    count: int = 0

    @property
    def key(self) -> str:
        """A short name that stays the same when the page is made again."""
        return f"{zlib.crc32(f'{self.status} {_without_numbers(self.text)}'.encode(errors='replace')):08x}"


@dataclass(frozen=True)
class Work:
    """How long workers worked on slides that were scored, as their results say.

    Attributes
    ----------
    slides : int
    seconds : float
        Of all slides together, summed over workers.
    median_s, most_s : float
        Of a slide; nine in ten take at most `most_s`.
    patches : int
    """

    slides: int
    seconds: float
    median_s: float
    most_s: float
    patches: int

    @property
    def slides_per_hour(self) -> float:
        """For each worker."""
        return 3600 * self.slides / self.seconds

    @property
    def patches_per_second(self) -> float:
        """For each worker."""
        return self.patches / self.seconds


@dataclass
class RunFigures:
    """Grows row by row, and keeps none of them.

    Attributes
    ----------
    slides : int
    labels : Counter of str
        Slides by outcome; see `LABELS`.
    review : int
        Slides that somebody must look at, because two ways of calling them disagree.
    uncalibrated : int
        Calls that rest on no laboratory's profile.
    confidences : Counter of int
        Calls by bin between `CONFIDENCE_EDGES`.
    causes : list of Cause
        In the order in which they were met.
    """

    slides: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    review: int = 0
    uncalibrated: int = 0
    confidences: Counter[int] = field(default_factory=Counter)
    causes: list[Cause] = field(default_factory=list)
    _place: dict[tuple[str, str], int] = field(default_factory=dict)
    _seconds: array[float] = field(default_factory=lambda: array("d"))
    _patches: int = 0

    def add(self, row: SlideRow) -> tuple[int, ...]:
        """Count a slide.

        Returns
        -------
        tuple of int
            The slide's places in `causes`; none where it was scored.
        """
        self.slides += 1
        self.labels[label_of(row)] += 1
        self.review += row.review is True
        if row.status == "scored":
            self.uncalibrated += row.calibration == "none"
            if row.confidence is not None:
                self.confidences[confidence_bin(row.confidence)] += 1
            if row.seconds:
                self._seconds.append(row.seconds)
                self._patches += row.n_patches or 0
            return ()
        return tuple(self._count(row.status, text) for text in row.refusals or (_without_names(row),))

    @property
    def work(self) -> Work | None:
        """None where no result says how long it took."""
        if not self._seconds:
            return None
        times = sorted(self._seconds)
        return Work(
            slides=len(times),
            seconds=sum(times),
            median_s=statistics.median(times),
            most_s=times[-1 - len(times) // 10],
            patches=self._patches,
        )

    def _count(self, status: str, text: str) -> int:
        place = self._place.setdefault((status, _without_numbers(text)), len(self.causes))
        if place == len(self.causes):
            self.causes.append(Cause(status, text))
        cause = self.causes[place]
        cause.text = _common(cause.text, text)
        cause.count += 1
        return place


def confidence_bin(confidence: float) -> int:
    """In which bin between `CONFIDENCE_EDGES` a confidence lies, as the page shows it: with three decimals."""
    shown = round(confidence, 3)
    inside = [low <= shown < high for low, high in pairwise(CONFIDENCE_EDGES)]
    return inside.index(True) if any(inside) else len(inside) - 1


def _without_names(row: SlideRow) -> str:
    # The longest first, because the path holds the file's name, and that may hold the slide's.
    names = {row.path, Path(row.path).name, row.slide_id} - {"", "."}
    text = row.reason
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", _LEFT_OUT, text)
    return text


def _without_numbers(text: str) -> str:
    return _NUMBER.sub(_LEFT_OUT, text)


def _common(first: str, second: str) -> str:
    """Two texts that differ in nothing but numbers, without the numbers that differ."""
    if first == second:
        return first
    # A number that was left out before is no number any more, so both are cut at the same places.
    parts = re.split(f"({_NUMBER.pattern}|{_LEFT_OUT})", first)
    others = re.split(f"({_NUMBER.pattern}|{_LEFT_OUT})", second)
    return "".join(one if one == other else _LEFT_OUT for one, other in zip(parts, others, strict=True))
