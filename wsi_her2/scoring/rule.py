"""The guideline as a rule over percentages of invasive tumour (ASCO/CAP 2018, affirmed 2023).

    3+  complete, intense, circumferential membrane staining in more than 10 %
    2+  weak to moderate complete staining in more than 10 %, or intense complete staining in at most 10 %
    1+  faint, incomplete staining in more than 10 %
    0   no staining, or faint incomplete staining in at most 10 %

Each border counts the staining at and above it, so that a tumour with 8 % of 2+ and 8 % of 3+ is 2+.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Score = Literal["0", "1+", "2+", "3+"]
SCORES: tuple[Score, ...] = ("0", "1+", "2+", "3+")

_DECIMALS = 9

GROUPS: dict[Score, str] = {"0": "negative", "1+": "negative", "2+": "equivocal", "3+": "positive"}


@dataclass(frozen=True)
class Thresholds:
    """Borders of the rule, in percent of the tumour.

    Attributes
    ----------
    positive_over_pct : float
        More intense complete staining than this is 3+.
    equivocal_over_pct : float
        More complete staining than this, of any intensity, is at least 2+.
    low_over_pct : float
        More staining than this, of any kind, is at least 1+.
    intense_floor_pct : float
        Intense staining in few cells makes 2+ only from here on: below lie the classifier's own mistakes.
    staining_floor_pct : float
        From here on a score of 0 is flagged as having some faint staining (HER2-ultralow).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    positive_over_pct: float = 10.0
    equivocal_over_pct: float = 10.0
    low_over_pct: float = 10.0
    intense_floor_pct: float = 3.0
    staining_floor_pct: float = 2.0


@dataclass(frozen=True)
class Verdict:
    """What the rule says.

    Attributes
    ----------
    score : {'0', '1+', '2+', '3+'}
    branch : str
        Name of the clause that fired.
    explanation : str
        The clause in words, with the numbers.
    margin_points : float
        How many percentage points of the tumour would have to change class for another score.
    margin_towards : {'0', '1+', '2+', '3+'}
        The score that lies nearest.
    """

    score: Score
    branch: str
    explanation: str
    margin_points: float
    margin_towards: Score


def apply_rule(percentages: tuple[float, float, float, float], thresholds: Thresholds) -> Verdict:
    """Apply the rule.

    Parameters
    ----------
    percentages : tuple of float
        Of 0, 1+, 2+ and 3+, summing to 100.
    thresholds : Thresholds
    """
    _, pct_1, pct_2, intense = percentages
    # Sums of rounded percentages are rounded again: 4.1 and 5.9 are 10, not a little more.
    complete, any_staining = round(pct_2 + intense, _DECIMALS), round(pct_1 + pct_2 + intense, _DECIMALS)
    t = thresholds
    if intense > t.positive_over_pct:
        return Verdict(
            "3+",
            "intense_complete_over_limit",
            f"{intense:.1f} % of the tumour stains intensely and completely, more than {t.positive_over_pct:g} %",
            intense - t.positive_over_pct,
            "2+",
        )
    to_positive = t.positive_over_pct - intense
    if complete > t.equivocal_over_pct:
        # To leave 2+ downwards, both of its clauses must fail.
        down = max(complete - t.equivocal_over_pct, intense - t.intense_floor_pct)
        return Verdict(
            "2+",
            "complete_over_limit",
            f"{complete:.1f} % of the tumour stains completely, more than {t.equivocal_over_pct:g} %, "
            f"of which {intense:.1f} % intensely, not more than {t.positive_over_pct:g} %",
            *_nearer((down, _below_equivocal(any_staining, t)), (to_positive, "3+")),
        )
    if intense >= t.intense_floor_pct:
        return Verdict(
            "2+",
            "intense_complete_in_few",
            f"{intense:.1f} % of the tumour stains intensely and completely, not more than "
            f"{t.positive_over_pct:g} % but more than chance findings ({t.intense_floor_pct:g} %)",
            *_nearer((intense - t.intense_floor_pct, _below_equivocal(any_staining, t)), (to_positive, "3+")),
        )
    to_equivocal = min(t.equivocal_over_pct - complete, t.intense_floor_pct - intense)
    if any_staining > t.low_over_pct:
        return Verdict(
            "1+",
            "faint_over_limit",
            f"{any_staining:.1f} % of the tumour stains faintly or more, more than {t.low_over_pct:g} %, "
            f"and {complete:.1f} % completely, not more than {t.equivocal_over_pct:g} %",
            *_nearer((any_staining - t.low_over_pct, "0"), (to_equivocal, "2+")),
        )
    return Verdict(
        "0",
        "staining_within_limit",
        f"{any_staining:.1f} % of the tumour stains at all, not more than {t.low_over_pct:g} %",
        *_nearer((t.low_over_pct - any_staining, "1+"), (to_equivocal, "2+")),
    )


def scores_of(percentages: npt.NDArray[np.float64], thresholds: Thresholds) -> npt.NDArray[np.int64]:
    """The rule over many rows at once.

    Parameters
    ----------
    percentages : float64 B x 4
        Of 0, 1+, 2+ and 3+.
    thresholds : Thresholds

    Returns
    -------
    int64 B
        Index into `SCORES`.
    """
    intense = percentages[:, 3]
    complete = np.round(percentages[:, 2] + intense, _DECIMALS)
    any_staining = np.round(percentages[:, 1] + percentages[:, 2] + intense, _DECIMALS)
    return np.select(
        [
            intense > thresholds.positive_over_pct,
            (complete > thresholds.equivocal_over_pct) | (intense >= thresholds.intense_floor_pct),
            any_staining > thresholds.low_over_pct,
        ],
        [3, 2, 1],
        default=0,
    ).astype(np.int64)


def _below_equivocal(any_staining: float, thresholds: Thresholds) -> Score:
    return "1+" if any_staining > thresholds.low_over_pct else "0"


def _nearer(first: tuple[float, Score], second: tuple[float, Score]) -> tuple[float, Score]:
    return min(first, second, key=lambda pair: pair[0])
