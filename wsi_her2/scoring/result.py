"""`SlideResult`: everything known of one slide after a run, as it stands in `result.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from wsi_her2.cells.summary import CellSummary
from wsi_her2.scoring.call import SlideCall
from wsi_her2.scoring.gate import GateReason
from wsi_her2.scoring.rule import Thresholds
from wsi_her2.scoring.second_opinion import SecondOpinion, Way
from wsi_her2.scoring.settings import CallSettings
from wsi_her2.slides.controls import ControlPiece
from wsi_her2.slides.regions import UsedRegions
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.white_point import WhitePoint

Status = Literal["scored", "not_assessable", "failed"]
Cause = Literal["passing", "setup", "lasting"]


@dataclass(frozen=True)
class ReaderInfo:
    """How the slide was read.

    Attributes
    ----------
    backend, backend_requested : str
    mpp : float
        Of level 0, um/px.
    mpp_source : str
    dimensions : tuple of int
        Of level 0, pixels.
    """

    backend: str
    backend_requested: str
    mpp: float
    mpp_source: str
    dimensions: tuple[int, int]


@dataclass(frozen=True)
class ModelInfo:
    """What scored the patches; see `wsi_her2.models.classifier.PatchClassifier`."""

    name: str
    sha256: str
    classes: tuple[str, ...]
    patch_px: int
    mpp: float
    card: dict[str, Any] = field(default_factory=dict)
    runtime: str = "numpy"
    precision: str = "fp32"
    augmentation: str = "none"


@dataclass(frozen=True)
class Sample:
    """What was scored where not all was.

    Attributes
    ----------
    asked : float
        Confidence from which on a sample was to be enough.
    confidence : float
        That the call of all patches would be the same; 1 where all were scored.
    patches, of_patches : int
        How many patches were chosen, and of how many.
    """

    asked: float
    confidence: float
    patches: int
    of_patches: int


@dataclass(frozen=True)
class SlideResult:
    """A slide's row and everything behind it.

    Attributes
    ----------
    slide_id, path : str
    status : {'scored', 'not_assessable', 'failed'}
    reason : str
        Empty when scored.
    cause : {'passing', 'setup', 'lasting'} or None
        Of a failure: whether it may be gone by itself, someone has to see to it, or it will come again with
        the same file, settings and software. None unless failed.
    modality : str
    calibration : str
        'none', or 'lab:' and the profile's name.
    call : SlideCall or None
        None unless scored.
    call_from : {'patches', 'cells'} or None
        What its percentages are of.
    thresholds : Thresholds or None
        Those of the rule; None unless scored.
    gate : tuple of GateReason
    reader : ReaderInfo or None
        None when the slide could not be opened.
    model : ModelInfo
    white_point : WhitePoint or None
    stain : StainCorrection or None
    regions : UsedRegions or None
        Which annotated regions decided what was scored; None where all tissue was.
    controls : tuple of ControlPiece
        Pieces of tissue that may be on-slide controls.
    controls_left_out : bool
        Whether they were kept out of the call.
    cells : CellSummary or None
        None where cells were not measured, or too few were found.
    second_opinion : SecondOpinion or None
        What the other way to a call gives; None where there is one way only.
    sample : Sample or None
        None where all patches were scored because that was asked for.
    n_patches, tumour_patches : int
    tissue_mm2 : float or None
    pct_complete_membrane : float or None
        None where cells were not measured.
    unreadable_fraction : float or None
    fingerprint : str
        Of slide, configuration, classifier and software; equal fingerprints give equal results.
    version : str
        Of this software.
    settings : CallSettings or None
        By what patches and cells became the call; None where the slide failed, and in results of versions that
        did not keep it.
    timings_s : dict of str to float
        Seconds, the only part that differs between two runs.
    """

    slide_id: str
    path: str
    status: Status
    reason: str
    modality: str
    model: ModelInfo
    version: str
    fingerprint: str = ""
    cause: Cause | None = None
    calibration: str = "none"
    call: SlideCall | None = None
    call_from: Way | None = None
    thresholds: Thresholds | None = None
    gate: tuple[GateReason, ...] = ()
    reader: ReaderInfo | None = None
    white_point: WhitePoint | None = None
    stain: StainCorrection | None = None
    regions: UsedRegions | None = None
    controls: tuple[ControlPiece, ...] = ()
    controls_left_out: bool = False
    cells: CellSummary | None = None
    second_opinion: SecondOpinion | None = None
    sample: Sample | None = None
    n_patches: int = 0
    tumour_patches: int = 0
    tissue_mm2: float | None = None
    pct_complete_membrane: float | None = None
    unreadable_fraction: float | None = None
    settings: CallSettings | None = None
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def stands(self) -> bool:
        """Whether scoring again, with an equal fingerprint, would give the same."""
        return self.status != "failed" or self.cause == "lasting"
