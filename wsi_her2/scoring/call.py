"""The slide-level call: percentages of the tumour, the rule over them, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wsi_her2.errors import ClassifierError
from wsi_her2.scoring.confidence import complete, resample, tempered
from wsi_her2.scoring.proportions import correct_by_confusion, hard_counts, main_classes, share_counts
from wsi_her2.scoring.rule import GROUPS, SCORES, Score, Thresholds, apply_rule, scores_of

Float64 = npt.NDArray[np.float64]
Group = Literal["negative", "equivocal", "positive"]

_OTHER = "other"
_BINARY = ("negative", "positive")


@dataclass(frozen=True)
class SlideCall:
    """A call and what it rests on.

    Attributes
    ----------
    score : {'0', '1+', '2+', '3+'} or None
        None for a classifier that only tells negative from positive.
    group : {'negative', 'equivocal', 'positive'}
    her2_low : bool or None
        True for 1+; None for 2+, where in-situ hybridisation decides, and where the score is not known.
    some_staining : bool
        A score of 0 with some faint staining (HER2-ultralow): a flag, not a category.
    percentages : dict of str to float
        Of the tumour, by class.
    intervals : dict of str to tuple of float
        Central 90 % of the resamples of each percentage.
    h_score : float or None
        0 to 300: the percentages of 1+, 2+ and 3+ weighted 1, 2 and 3.
    branch : str
        The clause of the rule that fired.
    explanation : str
        The clause in words.
    margin_points : float
        Percentage points to the nearest other score.
    margin_towards : str
        That score.
    confidence : float
        Share of the resamples with the same score.
    n_patches : int
        Patches that were scored.
    tumour_patches : int
        Of these, patches of tumour.
    """

    score: Score | None
    group: Group
    her2_low: bool | None
    some_staining: bool
    percentages: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    h_score: float | None
    branch: str
    explanation: str
    margin_points: float
    margin_towards: str
    confidence: float
    n_patches: int
    tumour_patches: int


def call_slide(
    probabilities: npt.NDArray[np.float32],
    classes: tuple[str, ...],
    weights: npt.NDArray[np.floating] | None = None,
    thresholds: Thresholds | None = None,
    *,
    blocks: npt.NDArray[np.int64] | None = None,
    unseen: int | None = None,
    confusion: npt.NDArray[np.float64] | None = None,
    shares: bool = False,
    temperature: float = 1.0,
) -> SlideCall:
    """Call a slide from the probabilities of its patches.

    Parameters
    ----------
    probabilities : float32 N x K
        Rows with NaN were not scored and are left out.
    classes : tuple of str
        Names of the columns: some of 'other', '0', '1+', '2+', '3+', or 'negative' and 'positive'.
    weights : float N, optional
        How much tissue each patch holds; 1 by default.
    thresholds : Thresholds, optional
    blocks : int64 N, optional
        Spatial block of each patch, for the bootstrap; by default each patch is one.
    unseen : int, optional
        How many more such blocks there are that were not scored. The confidence and the intervals are then those
        of the call that all of them together would give.
    confusion : float64 K x K, optional
        The classifier's own, rows true; the counts are corrected by it.
    shares : bool
        Whether the probabilities are shares of each patch, which are added up, instead of what the patch may be.
    temperature : float
        Of the confidence; see `wsi_her2.scoring.confidence.tempered`.

    Raises
    ------
    ValueError
        No patch is tumour, or the shapes do not fit.
    ClassifierError
        The classes are not of a kind that can be called.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] != len(classes):
        raise ValueError(f"{len(classes)} classes for probabilities of shape {probabilities.shape}")
    tumour_classes = tumour_classes_of(classes)
    thresholds = thresholds or Thresholds()
    kept = ~np.isnan(probabilities).any(axis=1)
    weight = np.ones(len(probabilities)) if weights is None else np.asarray(weights, np.float64)
    group = np.arange(len(probabilities)) if blocks is None else blocks
    for name, given in (("weights", weight), ("blocks", group)):
        if given.shape != (len(probabilities),):
            raise ValueError(f"{name} of shape {given.shape} for {len(probabilities)} patches")
    if not (np.isfinite(weight[kept]).all() and (weight[kept] >= 0).all()):
        raise ValueError("weights of patches are numbers from 0 on")
    scored = probabilities[kept]
    labels = main_classes(scored, classes, shares)
    is_tumour = np.isin(labels, [classes.index(name) for name in tumour_classes])
    if not weight[kept][is_tumour].sum() > 0:
        raise ValueError("none of the patches is tumour, so there is nothing to call")
    count = share_counts if shares else hard_counts
    counts = _sum_by_block(count(scored, weight[kept]), group[kept])

    def estimate(totals: Float64) -> Float64:
        return _tumour_percentages(totals, classes, tumour_classes, confusion)

    percentages = estimate(counts.sum(axis=0, keepdims=True))[0]
    if unseen is None:
        drawn = resample(counts, estimate)
    else:
        # What the classifier makes of a block that is all of one class of tumour.
        found = np.eye(len(classes)) if confusion is None else confusion
        pure = found[[classes.index(name) for name in tumour_classes]] * counts.sum(axis=1).mean()
        drawn = complete(counts, unseen, pure, estimate)
    shared = _shared(tumour_classes, percentages, drawn, int(kept.sum()), int(is_tumour.sum()))
    if tuple(tumour_classes) == SCORES:
        return _graded(percentages, drawn, thresholds, temperature, shared)
    return _binary(percentages, drawn, thresholds, temperature, shared)


def call_counts(
    counts: Float64,
    thresholds: Thresholds | None = None,
    *,
    temperature: float = 1.0,
    n_patches: int,
    tumour_patches: int,
    intervals: dict[str, tuple[float, float]] | None = None,
) -> SlideCall:
    """Call a slide from counted cells.

    Parameters
    ----------
    counts : float64 G x 4
        Cells of 0, 1+, 2+ and 3+ in each spatial block.
    thresholds : Thresholds, optional
    temperature : float
        As of `call_slide`.
    n_patches, tumour_patches : int
        Patches that were scored, and of these tumour: where cells were looked for.
    intervals : dict of str to tuple of float, optional
        Of the percentages, where more is known of their error than resampling tells.

    Raises
    ------
    ValueError
        There is no cell.
    """
    if not counts.sum() > 0:
        raise ValueError("there are no cells, so there is nothing to call")

    def estimate(totals: Float64) -> Float64:
        return _tumour_percentages(totals, SCORES, list(SCORES), None)

    percentages = estimate(counts.sum(axis=0, keepdims=True))[0]
    drawn = resample(counts, estimate)
    shared = _shared(list(SCORES), percentages, drawn, n_patches, tumour_patches)
    shared["intervals"] = intervals or shared["intervals"]
    return _graded(percentages, drawn, thresholds or Thresholds(), temperature, shared)


def tumour_classes_of(classes: tuple[str, ...]) -> list[str]:
    """The classes that are tumour, in order.

    Raises
    ------
    ClassifierError
        No call can be made from such classes.
    """
    tumour_classes = [name for name in classes if name != _OTHER]
    if tuple(tumour_classes) not in (SCORES, _BINARY):
        raise ClassifierError(
            f"classes {', '.join(classes)} cannot be called; a classifier has {', '.join(SCORES)} "
            f"or {' and '.join(_BINARY)}, in this order, with or without {_OTHER!r} before them"
        )
    return tumour_classes


def _shared(
    names: list[str], percentages: Float64, drawn: Float64, n_patches: int, tumour_patches: int
) -> dict[str, object]:
    """What a call says whatever its classes are."""
    low, high = np.percentile(drawn, (5, 95), axis=0)
    return {
        "percentages": {name: float(pct) for name, pct in zip(names, percentages, strict=True)},
        "intervals": {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)},
        "n_patches": n_patches,
        "tumour_patches": tumour_patches,
    }


def _graded(
    percentages: Float64, drawn: Float64, thresholds: Thresholds, temperature: float, shared: dict[str, object]
) -> SlideCall:
    pct_0, pct_1, pct_2, pct_3 = (float(value) for value in percentages)
    verdict = apply_rule((pct_0, pct_1, pct_2, pct_3), thresholds)
    same = scores_of(drawn, thresholds) == SCORES.index(verdict.score)
    return SlideCall(
        score=verdict.score,
        group=GROUPS[verdict.score],  # type: ignore[arg-type]
        her2_low={"0": False, "1+": True, "2+": None, "3+": False}[verdict.score],
        some_staining=verdict.score == "0" and 100 - pct_0 >= thresholds.staining_floor_pct,
        h_score=pct_1 + 2 * pct_2 + 3 * pct_3,
        branch=verdict.branch,
        explanation=verdict.explanation,
        margin_points=verdict.margin_points,
        margin_towards=verdict.margin_towards,
        confidence=float(tempered(same.mean(), temperature)),
        **shared,  # type: ignore[arg-type]
    )


def _binary(
    percentages: Float64, drawn: Float64, thresholds: Thresholds, temperature: float, shared: dict[str, object]
) -> SlideCall:
    limit, positive_pct = thresholds.positive_over_pct, float(percentages[1])
    positive = positive_pct > limit
    return SlideCall(
        score=None,
        group="positive" if positive else "negative",
        her2_low=None,
        some_staining=False,
        h_score=None,
        branch="positive_over_limit" if positive else "positive_within_limit",
        explanation=f"{positive_pct:.1f} % of the tumour is classified as positive, "
        f"{'more' if positive else 'not more'} than {limit:g} %",
        margin_points=abs(positive_pct - limit),
        margin_towards="negative" if positive else "positive",
        confidence=float(tempered(((drawn[:, 1] > limit) == positive).mean(), temperature)),
        **shared,  # type: ignore[arg-type]
    )


def _sum_by_block(counted: Float64, blocks: npt.NDArray[np.int64]) -> Float64:
    _, numbers = np.unique(blocks, return_inverse=True)
    sums = np.zeros((int(numbers.max()) + 1, counted.shape[1]))
    np.add.at(sums, numbers.reshape(-1), counted)
    return sums


def _tumour_percentages(
    totals: Float64, classes: tuple[str, ...], tumour_classes: list[str], confusion: Float64 | None
) -> Float64:
    if confusion is not None:
        totals = correct_by_confusion(totals / np.maximum(totals.sum(axis=1, keepdims=True), 1e-12), confusion)
    tumour = totals[:, [classes.index(name) for name in tumour_classes]]
    percentages = 100 * tumour / np.maximum(tumour.sum(axis=1, keepdims=True), 1e-12)
    # A tenth of the patches is 10 %, not 10.000000000000002 %, and 10 % is not more than 10 %.
    return np.asarray(np.round(percentages, 9), np.float64)
