"""The page of an evaluation: what agrees, what does not, and how far the confidence can be believed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wsi_her2.reports.pages import write_page
from wsi_her2.scoring.rule import SCORES

if TYPE_CHECKING:
    from pipelines.agreement.evaluate import Evaluation
    from wsi_her2.learning.metrics import Estimate

_SHARES = {
    "accuracy": "Call is the truth",
    "within_one": "At most one class off",
    "balanced_accuracy": "Mean recall of the classes",
    "assessed_share": "Slides that got a call",
}
_COEFFICIENTS = {"quadratic_kappa": "Cohen's kappa, quadratic weights", "mcc": "Matthews' correlation"}
_POINTS = {
    "percentage_error": "Percentages of 0, 1+, 2+ and 3+: mean error",
    "complete_membrane_error": "Percentage of complete membranes: mean error",
}
_CONFIDENCE = {
    "mean_confidence": "Mean confidence of the calls",
    "confidence_error": "Confidence and share that is right differ by",
}
_PLOT_PX = 240


def write_evaluation_page(path: Path, evaluation: Evaluation) -> None:
    """Write the page.

    Parameters
    ----------
    path : pathlib.Path
        Reports of the slides are linked if they lie in the folder above.
    evaluation : pipelines.agreement.evaluate.Evaluation
    """
    agreement, comparison = evaluation.agreement, evaluation.comparison
    figures = [(words, _as_percent(agreement.estimates[name])) for name, words in _SHARES.items()]
    figures += [(words, str(agreement.estimates[name])) for name, words in _COEFFICIENTS.items()]
    figures += [(words, _as_points(agreement.estimates[name])) for name, words in _POINTS.items()]
    figures += [(words, _as_percent(agreement.estimates[name])) for name, words in _CONFIDENCE.items()]
    if "points_per_slide" in agreement.estimates:
        figures.append(("Points per slide", str(agreement.estimates["points_per_slide"])))
    rows = agreement.confusion.sum(axis=1, keepdims=True).clip(1)
    context = {
        "slides": agreement.slides,
        "cases": agreement.cases,
        "assessed": agreement.assessed,
        "figures": [(words, value) for words, value in figures if value != "-"],
        "scores": SCORES,
        "confusion": [
            [(int(count), round(float(count / total[0]), 3)) for count in row]
            for row, total in zip(agreement.confusion, rows, strict=True)
        ],
        "recalls": [_as_percent(agreement.estimates[f"recall_{score}"]) for score in SCORES],
        "precisions": [_as_percent(agreement.estimates[f"precision_{score}"]) for score in SCORES],
        "bins": agreement.bins,
        "plot_px": _PLOT_PX,
        "membranes": [
            (slide.true_complete_pct, slide.found_complete_pct, slide.slide_id)
            for slide in comparison.compared
            if math.isfinite(slide.complete_error)
        ],
        "off": [_described(slide, path) for slide in comparison.compared if slide.call != slide.truth],
        "without_truth": comparison.without_truth,
        "without_result": comparison.without_result,
        "notes": comparison.notes,
    }
    write_page(path, "evaluation.html.j2", "evaluation.js", context, images="data:")


def _described(slide: Any, page: Path) -> dict[str, Any]:
    report = page.parent.parent / slide.slide_id / "report.html"
    return {
        "id": slide.slide_id,
        "link": f"../{quote(slide.slide_id)}/report.html" if report.is_file() else "",
        "truth": slide.truth,
        "call": slide.call or "no call",
        "far": slide.call is not None and abs(SCORES.index(slide.call) - SCORES.index(slide.truth)) > 1,
        "confidence": "" if slide.confidence is None else f"{slide.confidence:.2f}",
        "reason": slide.reason,
    }


def _as_percent(estimate: Estimate) -> str:
    if not math.isfinite(estimate.value):
        return "-"
    return f"{100 * estimate.value:.1f} % ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _as_points(estimate: Estimate) -> str:
    if not math.isfinite(estimate.value):
        return "-"
    return f"{estimate.value:.1f} points ({estimate.low:.1f} to {estimate.high:.1f})"
