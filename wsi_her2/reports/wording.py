"""A call in plain words, the same on every page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsi_her2.scoring.call import SlideCall
from wsi_her2.scoring.result import Sample, Status
from wsi_her2.scoring.rule import SCORES, Thresholds, apply_rule
from wsi_her2.slides.controls import ControlPiece
from wsi_her2.slides.regions import UsedRegions

_STATUS_WORDS: dict[Status, str] = {
    "scored": "Scored",
    "not_assessable": "Not assessable",
    "failed": "Failed",
}

_GROUP_WORDS = {
    "negative": "HER2 negative",
    "equivocal": "HER2 equivocal: reflex ISH",
    "positive": "HER2 positive",
}
_CARD_FIRST = {
    "origin": "Origin",
    "trained_on": "Trained on",
    "checked_on": "Checked on",
    "validated_on": "Validated on",
    "validated": "Validated",
}


@dataclass(frozen=True)
class Clause:
    """One score of the rule and how this slide stands to it.

    Attributes
    ----------
    score : str
    condition : str
        What the score asks for.
    finding : str
        What was measured against it.
    fired : bool
        This is the score of the slide.
    """

    score: str
    condition: str
    finding: str
    fired: bool


def status_in_words(status: Status) -> str:
    """What became of a slide."""
    return _STATUS_WORDS[status]


def group_in_words(call: SlideCall) -> str:
    """Negative, equivocal or positive, with what follows from it."""
    return _GROUP_WORDS[call.group]


def sample_in_words(sample: Sample) -> str:
    """How much of the tissue was scored, and why that was enough."""
    if sample.patches == sample.of_patches:
        return f"all {sample.of_patches:,} patches: no sample of them was sure enough ({100 * sample.asked:g} %)"
    return (
        f"{sample.patches:,} of {sample.of_patches:,} patches ({100 * sample.patches / sample.of_patches:.0f} %), "
        "spread evenly over the tissue and coloured on the map; the patches of all the tissue would give the same "
        f"score with {100 * sample.confidence:.1f} % confidence ({100 * sample.asked:g} % were asked for)"
    )


def her2_low_in_words(call: SlideCall) -> str:
    """HER2-low and HER2-ultralow; empty where the question does not arise."""
    if call.score is None:
        return "HER2-low: not known; this model only tells negative from positive."
    if call.score == "1+":
        return "HER2-low (IHC 1+)."
    if call.score == "2+":
        return "HER2-low if ISH is negative."
    if call.score == "3+":
        return ""
    if call.some_staining:
        return "HER2-ultralow: a score of 0 with some faint staining (a flag, not a category)."
    return "Not HER2-low."


def margin_in_words(call: SlideCall) -> str:
    """How far the next score is."""
    return (
        f"{call.margin_points:.1f} percentage points of the tumour would have to change class "
        f"for {call.margin_towards}."
    )


def confidence_in_words(call: SlideCall) -> str:
    """What the confidence is and is not; reads on from the number."""
    verb = "give" if call.score is not None else "lie on"
    what = "the same score" if call.score is not None else "the same side of the limit"
    return (
        f"of the resamples of this tissue {verb} {what}. This tells how evenly the tumour stains, "
        "not how often the method is right."
    )


def calibration_in_words(calibration: str) -> str:
    """On whose DAB scale the call stands."""
    if calibration == "none":
        return (
            "Uncalibrated: DAB scale differs between laboratories; "
            "the H-score ranks but the cut-offs are not yours."
        )
    name = calibration.removeprefix("lab:")
    return f"Calibrated with the laboratory profile {name}."


def clauses(call: SlideCall, thresholds: Thresholds) -> list[Clause]:
    """The rule from 3+ down to 0, with what this slide has to say to each of its clauses.

    Empty where the rule does not lead to the call: the thresholds are then not those of the call, and reasons
    drawn from them would be invented.

    Parameters
    ----------
    call : SlideCall
    thresholds : Thresholds
        Those the call was made with.
    """
    if call.score is None:
        return []
    pct_0, pct_1, pct_2, intense = (call.percentages[name] for name in SCORES)
    verdict = apply_rule((pct_0, pct_1, pct_2, intense), thresholds)
    if (verdict.score, verdict.branch) != (call.score, call.branch):
        return []
    t = thresholds
    complete, stained = pct_2 + intense, pct_1 + pct_2 + intense
    rank = SCORES.index(verdict.score)
    rows = (
        (
            3,
            f"Intense complete staining in more than {t.positive_over_pct:g} %",
            f"{intense:.1f} % stains intensely and completely",
            intense > t.positive_over_pct,
        ),
        (
            2,
            f"Complete staining in more than {t.equivocal_over_pct:g} %, or intense complete staining in "
            f"{t.intense_floor_pct:g} to {t.positive_over_pct:g} %",
            f"{complete:.1f} % stains completely, {intense:.1f} % of the tumour intensely",
            complete > t.equivocal_over_pct or intense >= t.intense_floor_pct,
        ),
        (
            1,
            f"Staining of any kind in more than {t.low_over_pct:g} %",
            f"{stained:.1f} % stains at all",
            stained > t.low_over_pct,
        ),
        (
            0,
            f"Staining of any kind in at most {t.low_over_pct:g} %",
            f"{stained:.1f} % stains at all",
            stained <= t.low_over_pct,
        ),
    )
    found = []
    for level, condition, finding, met in rows:
        outcome = f"met, but {verdict.score} ranks higher" if met else "not met"
        if level == rank:
            outcome = "this score"
        found.append(Clause(SCORES[level], condition, f"{finding}: {outcome}", level == rank))
    return found


def card_statements(card: dict[str, Any]) -> list[tuple[str, str]]:
    """What a model's card says, as label and text: where it comes from, on what it was trained and checked first.

    A card that says nothing is itself a statement.
    """
    statements = [(label, _plain(card[key])) for key, label in _CARD_FIRST.items() if key in card]
    if not statements:
        statements = [("Card", "the model does not say on what it was trained or validated")]
    rest = [
        (key.replace("_", " ").capitalize(), _plain(card[key])) for key in sorted(card) if key not in _CARD_FIRST
    ]
    return statements + rest


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def regions_in_words(regions: UsedRegions) -> str:
    """What annotated regions decided: what was scored, what was left out, what was passed over."""
    parts = [
        f"{words} {_listed(counts)}"
        for words, counts in (
            ("scored within", regions.included),
            ("left out", regions.excluded),
            ("passed over", regions.ignored),
        )
        if counts
    ]
    return f"{regions.file}: {'; '.join(parts)}"


def controls_in_words(controls: Sequence[ControlPiece], left_out: bool) -> str:
    """Pieces of tissue that may be on-slide controls, where they lie, and whether they count."""
    number = len(controls)
    where = "; ".join(f"{piece.area_mm2:.2f} mm² at x {piece.x}, y {piece.y}" for piece in controls)
    pieces = "a small round piece of tissue lies" if number == 1 else f"{number} small round pieces of tissue lie"
    what = "left out of the call" if left_out else "counted: set controls.action to leave_out if they are controls"
    return f"{pieces} apart ({where}), {what}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} x {name or 'unnamed'}" for name, number in counts.items())
