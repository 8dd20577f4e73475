"""From the store of a slide and its cells to a call: when the slide is finished, and later on parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from pipelines.configuration import RunConfig
from pipelines.worker.cell_fields import FieldCells, count_cells
from wsi_her2.cells.field import CellCutoffs
from wsi_her2.cells.summary import CellSummary
from wsi_her2.errors import ConfigurationError
from wsi_her2.models.classifier import OTHER, PatchClassifier
from wsi_her2.models.loading import MEMBRANE
from wsi_her2.reports.patches import gives_shares
from wsi_her2.scoring.call import SlideCall, call_slide, tumour_classes_of
from wsi_her2.scoring.confidence import spatial_blocks
from wsi_her2.scoring.gate import GateReason, gate_patches, gate_quality
from wsi_her2.scoring.proportions import main_classes
from wsi_her2.scoring.rule import SCORES, Thresholds
from wsi_her2.scoring.second_opinion import SecondOpinion, Way, compare_calls
from wsi_her2.scoring.settings import CallSettings, CountingSettings
from wsi_her2.slides.lab_profile import LabProfile
from wsi_her2.slides.store import PatchStore

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Called:
    """What the patches and cells of a slide, or of a part of it, give.

    Attributes
    ----------
    reasons : tuple of GateReason
        Why there is no call; empty where there is one.
    call : SlideCall or None
    call_from : {'patches', 'cells'} or None
    cells : CellSummary or None
    second_opinion : SecondOpinion or None
    n_patches, tumour_patches : int
        Patches that were scored, and of these tumour.
    unreadable_fraction : float
        Of the patches that were to be scored.
    """

    reasons: tuple[GateReason, ...]
    call: SlideCall | None
    call_from: Way | None
    cells: CellSummary | None
    second_opinion: SecondOpinion | None
    n_patches: int
    tumour_patches: int
    unreadable_fraction: float


def call_settings(config: RunConfig, classifier: PatchClassifier, lab: LabProfile | None) -> CallSettings:
    """What a call follows from under a configuration, a classifier and a laboratory profile.

    Raises
    ------
    ConfigurationError
        Percentages are to be corrected, but the classifier's matrix was never measured.
    """
    cells, counting = config.cells, None
    if cells.mode != "none" and classifier.modality == "ihc":
        known = cells.scale_deviation
        counting = CountingSettings(
            sampling=cells.mode,
            sample_mm2=cells.sample_mm2,
            min_cells=cells.min_cells,
            cutoffs=cell_cutoffs(config, lab),
            scale_deviation=known.uncalibrated if lab is None else known.calibrated,
            class_deviation=cells.class_deviation,
        )
    return CallSettings(
        trained=classifier.trained,
        confusion=classifier.confusion if _corrects(config, classifier) else None,
        shares=classifier.outputs == "shares" and config.percentages != "counts",
        from_cells=called_from_cells(config, classifier),
        thresholds=_thresholds(config.thresholds, lab),
        gate=config.gate,
        counting=counting,
        block_um=config.confidence.block_um,
        temperature=config.confidence.temperature,
        margin_points=config.review.margin_points,
    )


def call_store(
    store: PatchStore,
    settings: CallSettings,
    *,
    modality: str,
    mpp: float,
    cells: FieldCells | None,
    tissue: Float32 | None = None,
    early_reasons: Sequence[GateReason] = (),
) -> Called:
    """Gate and call a slide, or a part of it, from its store and its cells.

    Parameters
    ----------
    store : PatchStore
        In which no block is to be scored any more.
    settings : CallSettings
    modality : {'ihc', 'he'}
    mpp : float
        Of level 0.
    cells : FieldCells or None
        They are taken only where nothing keeps the slide from being called.
    tissue : float32 N, optional
        How much of each patch counts, 0 to 1; the store's own shares of tissue by default. Patches with less than
        a patch must have to be scored are left out.
    early_reasons : sequence of GateReason
        Known before, so that there will be no call.
    """
    grid = store.grid
    tissue = store.tissue if tissue is None else tissue
    rows = tissue >= grid.min_tissue
    planned = int((rows & np.repeat(store.done, grid.block_rows)).sum())
    probabilities, quality = store.probabilities[rows], store.quality[rows]
    scored = ~np.isnan(probabilities).any(axis=1)
    # Patches that were read but failed have a quality and no probabilities.
    readable = ~np.isnan(quality).any(axis=1)
    unreadable = 1.0 - int(readable.sum()) / planned if planned else 0.0
    n_patches, in_tumour = int(scored.sum()), tumour_patches(probabilities, store.classes, gives_shares(store))
    reasons = tuple(early_reasons) or (
        *gate_quality(quality, modality, settings.gate),
        *gate_patches(unreadable, in_tumour, settings.trained, settings.gate),
    )
    if reasons:
        return Called(reasons, None, None, None, None, n_patches, in_tumour, unreadable)
    from_patches = call_slide(
        probabilities,
        store.classes,
        weights=tissue[rows],
        thresholds=settings.thresholds,
        blocks=spatial_blocks(store.xy[rows], mpp, settings.block_um),
        temperature=settings.temperature,
        **percentages_of(settings),
    )
    counted = None
    if cells is not None:
        counted = count_cells(cells, store, settings, mpp=mpp, n_patches=n_patches, tumour_patches=in_tumour)
    call, call_from, second = _first_and_second(from_patches, counted, settings)
    return Called((), call, call_from, counted, second, n_patches, in_tumour, unreadable)


class Percentages(TypedDict):
    """How percentages are made of patches, as `call_slide` takes it."""

    confusion: npt.NDArray[np.float64] | None
    shares: bool


def percentages_of(settings: CallSettings) -> Percentages:
    """How percentages are made of patches."""
    confusion = None if settings.confusion is None else np.asarray(settings.confusion, np.float64)
    return Percentages(confusion=confusion, shares=settings.shares)


def tumour_patches(probabilities: Float32, classes: tuple[str, ...], shares: bool) -> int:
    """How many patches are tumour.

    Parameters
    ----------
    probabilities : float32 N x K
        Rows with NaN were not scored.
    classes : tuple of str
    shares : bool
        Whether they are shares of each patch.
    """
    scored = probabilities[~np.isnan(probabilities).any(axis=1)]
    labels = main_classes(scored, classes, shares)
    tumour = [index for index, name in enumerate(classes) if name != OTHER]
    return int(np.isin(labels, tumour).sum())


def called_from_cells(config: RunConfig, classifier: PatchClassifier) -> bool:
    """Whether the call is made from counted cells: where that is asked for, and for the membrane scorer.

    The membrane scorer gives each patch one class, which is a poorer answer to a rule over cells than cells are
    (`docs/cells.md`). A trained classifier was trained for its task, so its own percentages stand.
    """
    if tuple(tumour_classes_of(classifier.classes)) != SCORES:
        return False
    return config.percentages == "cells" or (config.percentages is None and classifier.name == MEMBRANE)


def cell_cutoffs(config: RunConfig, lab: LabProfile | None) -> CellCutoffs:
    """Those of the run; a laboratory's own where its profile has some."""
    return config.cells.cutoffs if lab is None or lab.cell_cutoffs is None else lab.cell_cutoffs


def confusion_of(config: RunConfig, classifier: PatchClassifier) -> npt.NDArray[np.float64] | None:
    """The matrix by which percentages are corrected (float64 K x K); None where they are not.

    Raises
    ------
    ConfigurationError
        They are to be corrected, but the classifier's matrix was never measured.
    """
    return np.asarray(classifier.confusion, np.float64) if _corrects(config, classifier) else None


_SUITABLE = {"classes": "counts", "shares": "corrected"}
"""How percentages are made where nothing was asked for, by what a classifier's outputs are."""


def _corrects(config: RunConfig, classifier: PatchClassifier) -> bool:
    suitable = _SUITABLE[classifier.outputs]
    asked = suitable if config.percentages in (None, "cells") else config.percentages
    if asked != "corrected":
        return False
    if classifier.confusion is None:
        raise ConfigurationError(
            f"the confusion matrix of {classifier.name!r} was never measured, so that percentages cannot be "
            "corrected by it: set percentages to counts or shares"
        )
    return True


def _thresholds(given: Thresholds, lab: LabProfile | None) -> Thresholds:
    """Those of the run; what a laboratory's negative controls show of false intense staining raises the floor."""
    if lab is None or lab.intense_floor_pct is None or lab.intense_floor_pct <= given.intense_floor_pct:
        return given
    return replace(given, intense_floor_pct=lab.intense_floor_pct)


def _first_and_second(
    from_patches: SlideCall, cells: CellSummary | None, settings: CallSettings
) -> tuple[SlideCall, Way, SecondOpinion | None]:
    """The call, what it is from, and the call beside it."""
    margin = settings.margin_points
    if cells is None:
        return from_patches, "patches", None
    if settings.from_cells:
        return cells.call, "cells", compare_calls(cells.call, from_patches, "patches", margin)
    return from_patches, "patches", compare_calls(from_patches, cells.call, "cells", margin)
