"""What a call follows from, besides the patches and the cells of its slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsi_her2.cells.field import CellCutoffs
from wsi_her2.scoring.gate import GateLimits
from wsi_her2.scoring.rule import Thresholds


@dataclass(frozen=True)
class CountingSettings:
    """How cells were looked for and become counts.

    Attributes
    ----------
    sampling : {'sample', 'all'}
    sample_mm2 : float
        How much of the tumour is looked at with a sample.
    min_cells : int
        With fewer tumour cells there are no percentages of them.
    cutoffs : CellCutoffs
        The laboratory's own where its profile has some.
    scale_deviation : float
        Of the DAB scale, natural logarithm.
    class_deviation : float
        Of the odds that a cell stains at all, completely and intensely, natural logarithm.
    """

    sampling: Literal["sample", "all"]
    sample_mm2: float
    min_cells: int
    cutoffs: CellCutoffs
    scale_deviation: float
    class_deviation: float


@dataclass(frozen=True)
class CallSettings:
    """Everything by which patches and cells become a call, as the run, its classifier and its laboratory had it.

    Results keep it, so that a call can be made again from what is stored: without the classifier, the laboratory
    profile or the configuration, which may have changed or gone.

    Attributes
    ----------
    trained : bool
        Of the classifier.
    confusion : tuple of tuple of float or None
        By which percentages of patches are corrected, rows true; None where they are not.
    shares : bool
        Whether what a classifier gives are shares of each patch, to be added up.
    from_cells : bool
        Whether the call is made from counted cells where there are enough.
    thresholds : Thresholds
    gate : GateLimits
    counting : CountingSettings or None
        None where cells are not counted.
    block_um : float
        Side of the blocks that are resampled.
    temperature : float
        Of the confidence.
    margin_points : float
        By which two calls may differ without being flagged, percentage points.
    """

    trained: bool
    confusion: tuple[tuple[float, ...], ...] | None
    shares: bool
    from_cells: bool
    thresholds: Thresholds
    gate: GateLimits
    counting: CountingSettings | None
    block_um: float
    temperature: float
    margin_points: float
