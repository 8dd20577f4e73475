"""What counted cells say of a slide: percentages by class, complete membranes, and the call that follows."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from wsi_her2.scoring.call import SlideCall, call_counts
from wsi_her2.scoring.confidence import RESAMPLES, resample
from wsi_her2.scoring.rule import SCORES, Score, Thresholds, scores_of

Float64 = npt.NDArray[np.float64]
Sampling = Literal["sample", "all"]


SCALES = 15
"""DAB scales that are tried between 4 % and 96 % of what a laboratory may have."""

_LEAST_SHARE = 0.01
"""Shares far below this are known to about as much: without it, none of many cells would be known for certain."""

_SEED = 20180


@dataclass(frozen=True)
class CellSummary:
    """The cells of a slide, counted.

    Attributes
    ----------
    sampling : {'sample', 'all'}
        Whether cells were looked for in some of the patches that may hold tumour or in all.
    patches : int
        Patches in which cells were looked for: those that may hold tumour.
    measured_mm2 : float
        Their area.
    nuclei : int
        Nuclei found.
    cells : int
        Of these, tumour cells: what the percentages are of.
    pct_complete_membrane : float
        Percent of the tumour cells with complete staining, whatever its intensity.
    complete_interval : tuple of float
        90 % interval of it; see `summarise_cells`.
    weaker_score, stronger_score : {'0', '1+', '2+', '3+'}
        What the call would be, were all DAB of the slide weaker or stronger by one deviation of the scale.
    scale_deviation : float
        That deviation, natural logarithm.
    call : SlideCall
        What the rule makes of the counted cells.
    """

    sampling: Sampling
    patches: int
    measured_mm2: float
    nuclei: int
    cells: int
    pct_complete_membrane: float
    complete_interval: tuple[float, float]
    weaker_score: Score
    stronger_score: Score
    scale_deviation: float
    call: SlideCall


def tried_scales(deviation: float) -> Float64:
    """Factors on DAB strength (float64 SCALES), ascending, each as likely as the next; the middle one is 1.

    Parameters
    ----------
    deviation : float
        Of the natural logarithm of a laboratory's DAB scale.
    """
    quantiles = (np.arange(SCALES) + 0.5) / SCALES
    normal = [NormalDist().inv_cdf(quantile) for quantile in quantiles.tolist()]
    return np.exp(deviation * np.round(normal, 6))


def summarise_cells(
    counts: Float64,
    nuclei: int,
    thresholds: Thresholds,
    *,
    scale_deviation: float,
    class_deviation: float,
    sampling: Sampling,
    patches: int,
    measured_mm2: float,
    n_patches: int,
    tumour_patches: int,
    temperature: float = 1.0,
) -> CellSummary:
    """Summarise counted cells.

    Intervals hold three errors: of having looked at these fields and no others (spatial resamples), of the DAB
    scale of the slide, which differs between laboratories and shifts all cells at once, and of taking cells for
    what they are not. Each resample takes the cells as they would be classed on one of the tried scales, and
    shifts the odds of staining at all, completely and intensely by what they may be wrong. The
    confidence of the call is that of the resamples alone.

    Parameters
    ----------
    counts : float64 SCALES x G x 4
        Tumour cells of 0, 1+, 2+ and 3+ in each spatial block, for each of `tried_scales`.
    nuclei : int
    thresholds : Thresholds
        Of the rule.
    scale_deviation : float
        That the scales were made with.
    class_deviation : float
        By how much the odds of each kind of staining are wrong, natural logarithm.
    sampling, patches, measured_mm2
        As in `CellSummary`.
    n_patches, tumour_patches : int
        Of the slide.
    temperature : float
        Of the confidence.

    Raises
    ------
    ValueError
        There is no cell.
    """
    measured = counts[SCALES // 2]
    drawn = np.concatenate(
        [resample(of_scale, _percentages, RESAMPLES // SCALES) for of_scale in counts if of_scale.sum() > 0]
        or [np.zeros((1, len(SCORES) + 1))]
    )
    low, high = np.percentile(_misjudged(drawn, class_deviation), (5, 95), axis=0)
    intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    call = call_counts(
        measured,
        thresholds,
        temperature=temperature,
        n_patches=n_patches,
        tumour_patches=tumour_patches,
        intervals=dict(zip(SCORES, intervals[:-1], strict=True)),
    )
    totals = _percentages(counts.sum(axis=1))
    scores = scores_of(np.round(totals[:, :-1], 9), thresholds)
    # One deviation to either side: the 16th and the 84th percentile of the scales.
    weaker, stronger = (SCORES[int(scores[round(share * (SCALES - 1))])] for share in (0.16, 0.84))
    return CellSummary(
        sampling=sampling,
        patches=patches,
        measured_mm2=measured_mm2,
        nuclei=nuclei,
        cells=int(measured.sum()),
        pct_complete_membrane=float(totals[SCALES // 2, -1]),
        complete_interval=intervals[-1],
        weaker_score=weaker,
        stronger_score=stronger,
        scale_deviation=scale_deviation,
        call=call,
    )


def _percentages(totals: Float64) -> Float64:
    """Percent of each class, and of those with complete staining (float64 B x 5), from counts (B x 4)."""
    pct = 100 * totals / np.maximum(totals.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(np.concatenate([pct, pct[:, 2:].sum(axis=1, keepdims=True)], axis=1), np.float64)


def _misjudged(drawn: Float64, deviation: float) -> Float64:
    """Percentages (float64 B x 5, as of `_percentages`) with the odds of each kind of staining shifted."""
    if deviation == 0:
        return drawn
    # At least 1+, at least 2+, 3+.
    shares = np.cumsum(drawn[:, 3:0:-1], axis=1)[:, ::-1] / 100
    shares = (shares + _LEAST_SHARE) / (1 + 2 * _LEAST_SHARE)
    shift = np.random.default_rng(_SEED).normal(0, deviation, shares.shape)
    odds = shares / (1 - shares) * np.exp(shift)
    shifted = np.clip(odds / (1 + odds) * (1 + 2 * _LEAST_SHARE) - _LEAST_SHARE, 0, 1)
    any_staining, complete, intense = 100 * np.minimum.accumulate(shifted, axis=1).T
    return np.stack([100 - any_staining, any_staining - complete, complete - intense, intense, complete], axis=1)
