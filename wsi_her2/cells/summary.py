"""What counted cells say of a slide: percentages by class, complete membranes, and the call that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wsi_her2.scoring.call import SlideCall, call_counts
from wsi_her2.scoring.confidence import resample
from wsi_her2.scoring.rule import Thresholds

Float64 = npt.NDArray[np.float64]
Sampling = Literal["sample", "all"]

_COMPLETE = (2, 3)


@dataclass(frozen=True)
class CellSummary:
    """The cells of a slide, counted.

    Attributes
    ----------
    sampling : {'sample', 'all'}
        Whether cells were looked for in some patches of tumour or in all.
    patches : int
        Patches of tumour in which cells were looked for.
    measured_mm2 : float
        Their area.
    nuclei : int
        Nuclei found.
    cells : int
        Of these, tumour cells: what the percentages are of.
    pct_complete_membrane : float
        Percent of the tumour cells with complete staining, whatever its intensity.
    complete_interval : tuple of float
        Central 90 % of its spatial resamples: the error of having looked at these patches, not that of the method.
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
    call: SlideCall


def summarise_cells(
    counts: Float64,
    nuclei: int,
    thresholds: Thresholds,
    *,
    sampling: Sampling,
    patches: int,
    measured_mm2: float,
    n_patches: int,
    tumour_patches: int,
    temperature: float = 1.0,
) -> CellSummary:
    """Summarise counted cells.

    Parameters
    ----------
    counts : float64 G x 4
        Tumour cells of 0, 1+, 2+ and 3+ in each spatial block.
    nuclei : int
    thresholds : Thresholds
        Of the rule.
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
    call = call_counts(
        counts, thresholds, temperature=temperature, n_patches=n_patches, tumour_patches=tumour_patches
    )
    drawn = resample(counts, _pct_complete)
    low, high = np.percentile(drawn[:, 0], (5, 95))
    return CellSummary(
        sampling=sampling,
        patches=patches,
        measured_mm2=measured_mm2,
        nuclei=nuclei,
        cells=int(counts.sum()),
        pct_complete_membrane=float(_pct_complete(counts.sum(axis=0, keepdims=True))[0, 0]),
        complete_interval=(float(low), float(high)),
        call=call,
    )


def _pct_complete(totals: Float64) -> Float64:
    complete = totals[:, _COMPLETE].sum(axis=1)
    return np.asarray(100 * complete / np.maximum(totals.sum(axis=1), 1e-12), np.float64)[:, None]
