"""Two calls of one slide beside each other, reached in different ways: from patches and from counted cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsi_her2.scoring.call import SlideCall
from wsi_her2.scoring.rule import SCORES

Way = Literal["patches", "cells"]


@dataclass(frozen=True)
class SecondOpinion:
    """The other call of a slide, and whether somebody must look.

    Attributes
    ----------
    way : {'patches', 'cells'}
        What the other call was made from.
    score : str
        '0' to '3+'; the group where no score is known.
    agrees : bool
    review : bool
        Whether they disagree by more than the margin.
    explanation : str
        In words.
    """

    way: Way
    score: str
    agrees: bool
    review: bool
    explanation: str


def compare_calls(first: SlideCall, second: SlideCall, way: Way, margin_points: float) -> SecondOpinion:
    """Put a second call beside the first.

    Calls that differ lie on different sides of one or more borders of the rule: how much of the tumour stains at
    all, completely, intensely. They disagree by more than the margin where these percentages do.

    Parameters
    ----------
    first : SlideCall
        The call of the slide.
    second : SlideCall
    way : {'patches', 'cells'}
        What the second was made from.
    margin_points : float
        Percentage points.
    """
    if first.score is None or second.score is None:
        agrees = first.group == second.group
        return SecondOpinion(
            way, second.group, agrees, not agrees, _in_words(second.group, way, agrees, not agrees)
        )
    agrees = first.score == second.score
    low, high = sorted((SCORES.index(first.score), SCORES.index(second.score)))
    apart = [abs(one - other) for one, other in zip(_from_class(first), _from_class(second), strict=True)]
    review = any(points > margin_points for points in apart[low:high])
    return SecondOpinion(way, second.score, agrees, review, _in_words(second.score, way, agrees, review))


def _from_class(call: SlideCall) -> list[float]:
    """Percent of the tumour of at least 1+, 2+ and 3+."""
    return [sum(call.percentages[score] for score in SCORES[rank:]) for rank in range(1, len(SCORES))]


def _in_words(score: str, way: Way, agrees: bool, review: bool) -> str:
    source = {"patches": "The classifier's patches", "cells": "Counted cells"}[way]
    if agrees:
        return f"{source} give {score} as well"
    if review:
        return f"{source} give {score}: the two ways disagree, so the slide needs review"
    return f"{source} give {score}, but by little: the slide lies at the border"
