"""Names of HER2 grades as they stand in file names, folders and tables."""

from __future__ import annotations

import re
from typing import Literal

from wsi_her2.models.classifier import GRADES

Grouping = Literal["grades", "binary"]
"""'grades': 0, 1+, 2+, 3+. 'binary': 0 and 1+ are negative, 2+ and 3+ are positive."""

NEGATIVE, POSITIVE = "negative", "positive"

_CLASSES: dict[Grouping, tuple[str, ...]] = {"grades": GRADES, "binary": (NEGATIVE, POSITIVE)}
_GRADE = re.compile(r"([0-3])(?:\.0+)?\s*\+?")


def parse_grade(text: str) -> str | None:
    """The grade that a text means ('2', '2+', '2.0', '0+'), None if it means none."""
    found = _GRADE.fullmatch(text.strip())
    return GRADES[int(found[1])] if found else None


def classes_of(grouping: Grouping) -> tuple[str, ...]:
    """The classes of a grouping, in their order.

    Raises
    ------
    ValueError
        There is no such grouping.
    """
    if grouping not in _CLASSES:
        raise ValueError(f"grouping is one of {', '.join(_CLASSES)}, not {grouping!r}")
    return _CLASSES[grouping]


def grouped(grade: str, grouping: Grouping) -> str:
    """The class of a grade."""
    if grouping == "grades":
        return grade
    return POSITIVE if GRADES.index(grade) >= 2 else NEGATIVE
