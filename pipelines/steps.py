"""The three steps of a slide, as they run inside a worker: prepare it, score a block, finish it.

A step gets paths and numbers and returns numbers; pixels never travel between processes. What one step leaves
for the next lies in the slide's partial folder, which is also what an interrupted run continues from.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from pipelines.calling import call_settings, call_store, cell_cutoffs, percentages_of, tumour_patches
from pipelines.cell_fields import (
    choose_fields,
    drop_parts,
    joined_cells,
    measure_fields,
    pending_parts,
    plan_parts,
)
from pipelines.configuration import RunConfig
from pipelines.fingerprint import slide_fingerprint, software_version
from pipelines.results import partial_folder, publish, read_result, write_json, write_result
from pipelines.sampling import Assessment, assess_sample, block_edge
from pipelines.slide_files import write_slide_files
from wsi_her2.cells.field import CellSettings
from wsi_her2.errors import (
    ClassifierError,
    LabProfileError,
    RegionsError,
    SlideChanged,
    SlideForbidden,
    SlideReadError,
    SlideUnreachable,
    StoreError,
)
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.models.loading import ClassifierChoice
from wsi_her2.scoring.call import SlideCall, call_slide
from wsi_her2.scoring.gate import GateReason, failing_patches, gate_overview, gate_quality
from wsi_her2.scoring.quality import QUALITY, measure_quality
from wsi_her2.scoring.result import ModelInfo, ReaderInfo, SlideResult
from wsi_her2.slides.blocks import read_block, sample_patches
from wsi_her2.slides.controls import ControlPiece, find_controls, without_controls
from wsi_her2.slides.grid import PatchGrid, plan_patches
from wsi_her2.slides.lab_profile import LabProfile, read_profile
from wsi_her2.slides.location import SlideLocation
from wsi_her2.slides.regions import UsedRegions, restrict
from wsi_her2.slides.slide import Overview, Slide, open_slide
from wsi_her2.slides.stain import StainCorrection, fit_stain
from wsi_her2.slides.store import PatchStore
from wsi_her2.slides.tissue import TissueMask, detect_tissue
from wsi_her2.slides.white_point import WhitePoint

STORE = "patches.zarr"
_PLAN = "plan.json"
_SAMPLED_PATCHES = 64
_PICTURE_PX = 1600


@dataclass(frozen=True)
class SlideTask:
    """What a worker needs to know of a slide.

    Attributes
    ----------
    slide_id : str
    path : pathlib.Path or SlideUrl
    output : pathlib.Path
        Folder of the run.
    config : RunConfig
    classifier : ClassifierChoice
        With the runtime that was chosen for the whole run.
    classifier_sha256 : str
        Of the classifier as the run began.
    fresh : bool
        Whether to ignore what earlier runs left.
    regions : pathlib.Path or None
        Annotations of the slide.
    lab : pathlib.Path or None
        Laboratory profile.
    lab_sha256 : str or None
        Of that file as the run began.
    """

    slide_id: str
    path: SlideLocation
    output: Path
    config: RunConfig
    classifier: ClassifierChoice
    classifier_sha256: str
    fresh: bool = False
    regions: Path | None = None
    lab: Path | None = None
    lab_sha256: str | None = None

    @property
    def partial(self) -> Path:
        """Where the results grow."""
        return partial_folder(self.output, self.slide_id)


@dataclass(frozen=True)
class Plan:
    """What was found out about a slide before its blocks are scored."""

    fingerprint: str
    reader: ReaderInfo
    white_point: WhitePoint
    stain: StainCorrection
    tissue_mm2: float
    regions: UsedRegions | None
    controls: tuple[ControlPiece, ...]
    seconds: float


@dataclass(frozen=True)
class Prepared:
    """A slide that is ready: either its blocks are to be scored, or there is a result already.

    Attributes
    ----------
    fingerprint : str
        Of the plan that the blocks belong to.
    n_blocks : int
    pending : tuple of int
        Blocks that are still to be scored.
    result : SlideResult or None
    reused : bool
        Whether the result is an earlier run's.
    """

    fingerprint: str
    n_blocks: int = 0
    pending: tuple[int, ...] = ()
    result: SlideResult | None = None
    reused: bool = False


@dataclass(frozen=True)
class SampleExtended:
    """A round of a slide's sample is scored, and was assessed.

    Attributes
    ----------
    pending : tuple of int
        Blocks of the next round; none where the sample is enough.
    n_left_out : int
        Blocks that will then not be scored.
    """

    pending: tuple[int, ...]
    n_left_out: int = 0


@dataclass(frozen=True)
class CellsPlanned:
    """A slide whose blocks are scored and whose cells are to be counted.

    Attributes
    ----------
    n_parts : int
        0 where no cells are to be counted.
    pending : tuple of int
        Parts that are still to be measured.
    """

    n_parts: int
    pending: tuple[int, ...]


@dataclass(frozen=True)
class CellsMeasured:
    """A part of a slide's cells is on disk."""

    nuclei: int
    seconds: float


@dataclass(frozen=True)
class BlockScored:
    """A block that is in the store."""

    n_patches: int
    seconds: float


def model_info(classifier: PatchClassifier) -> ModelInfo:
    """A classifier as results name it."""
    return ModelInfo(
        name=classifier.name,
        sha256=classifier.sha256,
        classes=classifier.classes,
        patch_px=classifier.patch_px,
        mpp=classifier.mpp,
        card=dict(classifier.card),
        runtime=classifier.runtime,
        precision=classifier.precision,
        augmentation=classifier.augmentation,
    )


def prepare_slide(task: SlideTask) -> Prepared:
    """Open a slide, find its tissue, look whether it can be assessed, fit its stain, plan its blocks.

    Raises
    ------
    HER2Error, OSError
        The slide cannot be read or the results cannot be written.
    """
    started = time.perf_counter()
    _settle_process()
    classifier = _classifier(task.classifier, task.classifier_sha256)
    fingerprint = fingerprint_of(task)
    if not task.fresh:
        earlier = read_result(task.output / task.slide_id)
        if earlier is not None and earlier.fingerprint == fingerprint and earlier.stands:
            return Prepared(fingerprint, result=replace(earlier, path=str(task.path)), reused=True)
        interrupted = _pending_blocks(task, fingerprint)
        if interrupted is not None:
            return interrupted
    shutil.rmtree(task.partial, ignore_errors=True)
    task.partial.mkdir(parents=True)
    slide = open_slide(task.path, mpp=task.config.mpp, backend=task.config.backend)
    mask = detect_tissue(slide, task.config.tissue)
    _refuse_damaged(slide, mask, task.config.gate.max_unreadable_fraction)
    controls = find_controls(mask, task.config.controls.limits)
    if task.config.controls.action == "leave_out":
        mask = without_controls(mask, task.config.controls.limits)
    mask, regions = _within_regions(task, mask)
    reasons = gate_overview(mask, task.config.gate)
    edge = task.config.patches.block_edge
    if edge is None and _samples(task.config):
        edge = block_edge(mask.area_mm2, classifier.patch_px, classifier.mpp)
    grid = plan_patches(
        slide,
        mask,
        classifier.patch_px,
        classifier.mpp,
        min_tissue=task.config.patches.min_tissue,
        block_edge=edge,
    )
    sample = sample_patches(slide, grid, 0 if reasons else _SAMPLED_PATCHES)
    lab = _lab(task.lab, task.lab_sha256)
    if lab is not None:
        stain = lab.correction(mask.white_point)
    else:
        stain = fit_stain(sample.reshape(-1, 3), mask.white_point, classifier.modality, task.config.stain)
    if not reasons:
        glass = StainCorrection("white-point", mask.white_point.rgb).apply(sample)
        reasons = gate_quality(measure_quality(glass), classifier.modality, task.config.gate)
    store = PatchStore.create(
        task.partial / STORE,
        grid if not reasons else _nothing_of(grid),
        classes=classifier.classes,
        quality=QUALITY,
        measures=classifier.measure_names,
        pixels=task.config.store_patches,
        attributes={
            "slide": task.path.name,
            "classifier": classifier.name,
            "sha256": classifier.sha256,
            "outputs": classifier.outputs,
            "sampled": _samples(task.config),
        },
    )
    store.write_overview(mask, _picture(slide, mask))
    plan = Plan(
        fingerprint=fingerprint,
        reader=ReaderInfo(slide.backend, slide.backend_requested, slide.mpp, slide.mpp_source, slide.dimensions),
        white_point=mask.white_point,
        stain=stain,
        tissue_mm2=mask.area_mm2,
        regions=regions,
        controls=controls,
        seconds=time.perf_counter() - started,
    )
    slide.close()
    if reasons:
        return Prepared(fingerprint, result=_publish(task, plan, store, classifier, reasons))
    write_json(task.partial / _PLAN, _PLANS.dump_python(plan, mode="json"))
    if _samples(task.config):
        assessment = _assess_sample(task, store, classifier)
        return Prepared(fingerprint, grid.n_blocks, assessment.pending)
    return Prepared(fingerprint, grid.n_blocks, tuple(range(grid.n_blocks)))


def fingerprint_of(task: SlideTask) -> str:
    """What the slide's result depends on, as things are now.

    Raises
    ------
    OSError
        The slide, or its regions, have gone.
    """
    return slide_fingerprint(
        task.path,
        task.config,
        task.classifier_sha256,
        task.classifier.runtime,
        regions=task.regions,
        lab_sha256=task.lab_sha256,
    )


def score_block(task: SlideTask, fingerprint: str, block: int) -> BlockScored:
    """Read a block once, cut it, correct its stain, classify its patches, write one chunk.

    Parameters
    ----------
    task : SlideTask
    fingerprint : str
        Of the plan, from `Prepared`.
    block : int

    Raises
    ------
    OSError
        The block cannot be written. Pixels that cannot be read are no error: they are left out and counted.
    """
    started = time.perf_counter()
    job = _open_planned(task, fingerprint)
    patches, readable = read_block(job.slide, job.grid, block)
    probabilities = np.full((len(patches), len(job.classifier.classes)), np.nan, np.float32)
    quality = np.full((len(patches), len(QUALITY)), np.nan, np.float32)
    measures = np.full((len(patches), len(job.classifier.measure_names)), np.nan, np.float32)
    if readable.any():
        chosen = patches if readable.all() else patches[readable]
        glass = job.glass.apply(chosen)
        quality[readable] = measure_quality(glass)
        corrected = glass if job.stain == job.glass else job.stain.apply(chosen)
        probabilities[readable], measures[readable] = job.classifier.predict_and_measure(corrected)
        # A patch without probabilities is not scored: all that counts, and the heatmap, leave it out.
        probabilities[failing_patches(quality, job.classifier.modality, task.config.gate)] = np.nan
    job.store.write_block(block, probabilities, quality, measures, patches)
    return BlockScored(int(readable.sum()), time.perf_counter() - started)


def extend_sample(task: SlideTask, fingerprint: str) -> SampleExtended:
    """Look, once a round of a sample is scored, whether it is enough, or which blocks come next.

    Parameters
    ----------
    task : SlideTask
    fingerprint : str
        Of the plan, from `Prepared`.

    Raises
    ------
    OSError
    """
    job = _open_planned(task, fingerprint)
    assessment = _assess_sample(task, job.store, job.classifier)
    left_out = 0 if assessment.pending else int((~job.store.done).sum())
    return SampleExtended(assessment.pending, left_out)


def plan_cells(task: SlideTask, fingerprint: str) -> CellsPlanned:
    """Choose where a slide's cells are counted, once all its blocks are scored.

    Parameters
    ----------
    task : SlideTask
    fingerprint : str
        Of the plan, from `Prepared`.

    Raises
    ------
    OSError
    """
    job = _open_planned(task, fingerprint)
    if task.config.cells.mode == "none" or job.classifier.modality != "ihc":
        return CellsPlanned(0, ())
    rows = choose_fields(job.store, task.config.cells, job.slide.mpp)
    if len(rows) == 0:
        return CellsPlanned(0, ())
    count = plan_parts(task.partial, rows, job.grid.patch_px0 * job.slide.mpp)
    return CellsPlanned(count, pending_parts(task.partial, count))


def measure_cell_part(task: SlideTask, fingerprint: str, part: int) -> CellsMeasured:
    """Find and measure the cells of one part of the chosen fields.

    Parameters
    ----------
    task : SlideTask
    fingerprint : str
    part : int

    Raises
    ------
    OSError
        The part cannot be written. Fields that cannot be read are passed over.
    """
    started = time.perf_counter()
    job = _open_planned(task, fingerprint)
    settings = CellSettings(cutoffs=cell_cutoffs(task.config, _lab(task.lab, task.lab_sha256)))
    nuclei = measure_fields(task.partial, part, job.slide, job.store, job.stain, settings)
    return CellsMeasured(nuclei, time.perf_counter() - started)


def finish_slide(
    task: SlideTask, fingerprint: str, block_seconds: float, cell_seconds: float = 0.0
) -> SlideResult:
    """Gate and call a slide whose blocks are all scored, write its files, put its folder in place.

    A worker can be killed between the last two, so a result that is complete is taken as it is.

    Parameters
    ----------
    task : SlideTask
    fingerprint : str
        Of the plan, from `Prepared`.
    block_seconds, cell_seconds : float
        What the blocks and the cells took, for the record.

    Raises
    ------
    HER2Error, OSError
    """
    plan = _read_plan(task)
    if plan is None or plan.fingerprint != fingerprint:
        return _finished_before(task, fingerprint)
    # One that has gone was read to its end; its report does without example patches.
    with suppress(FileNotFoundError):
        if fingerprint_of(task) != fingerprint:
            raise SlideChanged(f"{task.path}: the slide has changed while it was scored")
    classifier = _classifier(task.classifier, task.classifier_sha256)
    spent = {"blocks": round(block_seconds, 3), "cells": round(cell_seconds, 3)}
    try:
        store = PatchStore.open(task.partial / STORE, complete=True)
        if not _samples(task.config) and not store.done.all():
            raise StoreError(f"{task.partial / STORE}: blocks that were written have gone")
        return _publish(task, plan, store, classifier, [], spent)
    except FileNotFoundError:
        # Dask runs a step twice when it has lost sight of a worker that lives on.
        return _finished_before(task, fingerprint)


def _finished_before(task: SlideTask, fingerprint: str) -> SlideResult:
    """The result of an attempt to finish that was cut off at its end."""
    unpublished = read_result(task.partial)
    if unpublished is not None and unpublished.fingerprint == fingerprint:
        publish(task.output, task.slide_id)
        return unpublished
    published = read_result(task.output / task.slide_id)
    if published is not None and published.fingerprint == fingerprint:
        return published
    raise StoreError(f"{task.partial}: what was done of the slide has gone")


def _publish(
    task: SlideTask,
    plan: Plan,
    store: PatchStore,
    classifier: PatchClassifier,
    early_reasons: list[GateReason],
    spent: dict[str, float] | None = None,
) -> SlideResult:
    """Turn the store into a result, write the slide's files and rename its folder into place."""
    started = time.perf_counter()
    result = replace(
        _result_of(task, plan, store, classifier, early_reasons),
        timings_s={"prepare": round(plan.seconds, 3), **(spent or {})},
    )
    # Example patches come from the slide itself; where that is gone by now the report does without.
    write_slide_files(task.partial, result, store, _reopened(task, plan))
    finish = round(time.perf_counter() - started, 3)
    result = replace(result, timings_s={**result.timings_s, "finish": finish})
    write_result(task.partial, result)
    drop_parts(task.partial)
    (task.partial / _PLAN).unlink(missing_ok=True)
    publish(task.output, task.slide_id)
    return result


def _result_of(
    task: SlideTask, plan: Plan, store: PatchStore, classifier: PatchClassifier, early_reasons: list[GateReason]
) -> SlideResult:
    lab = _lab(task.lab, task.lab_sha256)
    settings = call_settings(task.config, classifier, lab)
    cells = None if settings.counting is None else joined_cells(task.partial, task.config.cells.tumour_surround)
    called = call_store(
        store,
        settings,
        modality=classifier.modality,
        mpp=plan.reader.mpp,
        cells=cells,
        early_reasons=early_reasons,
    )
    return SlideResult(
        slide_id=task.slide_id,
        path=str(task.path),
        status="not_assessable" if called.reasons else "scored",
        reason="; ".join(str(reason) for reason in called.reasons),
        modality=classifier.modality,
        model=model_info(classifier),
        version=software_version(),
        fingerprint=plan.fingerprint,
        call=called.call,
        call_from=called.call_from,
        calibration="none" if lab is None else f"lab:{lab.name}",
        thresholds=settings.thresholds if called.call is not None else None,
        gate=called.reasons,
        reader=plan.reader,
        white_point=plan.white_point,
        stain=plan.stain,
        regions=plan.regions,
        controls=plan.controls,
        controls_left_out=bool(plan.controls) and task.config.controls.action == "leave_out",
        cells=called.cells,
        second_opinion=called.second_opinion,
        sample=_assess_sample(task, store, classifier).sample if _samples(task.config) else None,
        pct_complete_membrane=None if called.cells is None else called.cells.pct_complete_membrane,
        n_patches=called.n_patches,
        tumour_patches=called.tumour_patches,
        tissue_mm2=plan.tissue_mm2,
        unreadable_fraction=called.unreadable_fraction,
        settings=settings,
    )


def _samples(config: RunConfig) -> bool:
    return config.sampling.mode == "adaptive"


def _assess_sample(task: SlideTask, store: PatchStore, classifier: PatchClassifier) -> Assessment:
    """Whether what is scored of a slide is enough for its call from patches."""
    settings = call_settings(task.config, classifier, _lab(task.lab, task.lab_sha256))
    weights, made = store.tissue, percentages_of(settings)

    def call(
        probabilities: npt.NDArray[np.float32], blocks: npt.NDArray[np.int64], unseen: int
    ) -> SlideCall | None:
        found = tumour_patches(probabilities, classifier.classes, classifier.outputs == "shares")
        if found < settings.gate.min_tumour_patches:
            return None
        return call_slide(
            probabilities, classifier.classes, weights, settings.thresholds, blocks=blocks, unseen=unseen, **made
        )

    return assess_sample(store, call, task.config.sampling.confidence)


@lru_cache(maxsize=2)
def _lab(path: Path | None, sha256: str | None) -> LabProfile | None:
    if path is None:
        return None
    profile, found = read_profile(path)
    if found != sha256:
        raise LabProfileError(f"{path}: the profile has changed since the run began. Run again.")
    return profile


def _within_regions(task: SlideTask, mask: TissueMask) -> tuple[TissueMask, UsedRegions | None]:
    if not task.config.regions.files:
        return mask, None
    if task.regions is None:
        raise RegionsError(
            f"{task.path.name}: none of the files of annotated regions is named like the slide: add "
            f"{task.path.stem}.geojson, or score it in a run without regions"
        )
    return restrict(mask, task.regions, task.config.regions.names)


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker keeps open between the blocks of a slide."""

    slide: Slide
    store: PatchStore
    grid: PatchGrid
    glass: StainCorrection
    stain: StainCorrection
    classifier: PatchClassifier


@lru_cache(maxsize=4)
def _open_planned(task: SlideTask, fingerprint: str) -> _Job:
    _settle_process()
    plan = _read_plan(task)
    if plan is None or plan.fingerprint != fingerprint:
        raise StoreError(f"{task.partial}: another run has changed the plan of the slide. Run again.")
    if fingerprint_of(task) != fingerprint:
        raise SlideChanged(f"{task.path}: the slide has changed since it was opened")
    slide = open_slide(task.path, mpp=task.config.mpp, backend=plan.reader.backend)
    store = PatchStore.open(task.partial / STORE)
    glass = StainCorrection("white-point", plan.white_point.rgb)
    classifier = _classifier(task.classifier, task.classifier_sha256)
    return _Job(slide, store, store.grid, glass, plan.stain, classifier)


_LOADING = threading.Lock()


def _classifier(choice: ClassifierChoice, sha256: str) -> PatchClassifier:
    """The classifier of a run, loaded once in a process, whatever the number of its threads."""
    with _LOADING:
        return _loaded(choice, sha256)


@lru_cache(maxsize=2)
def _loaded(choice: ClassifierChoice, sha256: str) -> PatchClassifier:
    classifier = choice.load()
    if classifier.sha256 != sha256:
        raise ClassifierError(f"{choice.name_or_path}: the classifier has changed since the run began. Run again.")
    return classifier


def _settle_process() -> None:
    """One thread per worker, since the workers already fill the cores, and no codec chatter."""
    cv2.setNumThreads(1)
    # tifffile reports every odd tag of a damaged file, again and again; what matters becomes an error of ours.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def _reopened(task: SlideTask, plan: Plan) -> Slide | None:
    try:
        return open_slide(task.path, mpp=task.config.mpp, backend=plan.reader.backend)
    except (SlideUnreachable, SlideForbidden):
        raise
    except OSError:
        return None


_PLANS: TypeAdapter[Plan] = TypeAdapter(Plan)


def _read_plan(task: SlideTask) -> Plan | None:
    try:
        return _PLANS.validate_json((task.partial / _PLAN).read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError):
        return None


def _pending_blocks(task: SlideTask, fingerprint: str) -> Prepared | None:
    """What an interrupted run of the same slide left to do; None where it left nothing that can be used."""
    plan = _read_plan(task)
    if plan is None or plan.fingerprint != fingerprint:
        return None
    try:
        store = PatchStore.open(task.partial / STORE)
    except StoreError:
        return None
    done = store.done
    if _samples(task.config):
        classifier = _classifier(task.classifier, task.classifier_sha256)
        return Prepared(fingerprint, len(done), _assess_sample(task, store, classifier).pending)
    return Prepared(fingerprint, len(done), tuple(int(block) for block in np.flatnonzero(~done)))


def _picture(slide: Slide, mask: TissueMask) -> Overview | None:
    """A finer view than the mask's for people to look at; None where the mask's is fine enough."""
    longest = max(slide.bounds.width, slide.bounds.height)
    if max(mask.overview.rgb.shape[:2]) >= _PICTURE_PX:
        return None
    return slide.overview(slide.mpp * max(1.0, longest / _PICTURE_PX))


def _refuse_damaged(slide: Slide, mask: TissueMask, limit: float) -> None:
    unreadable = float(mask.overview.unreadable.mean())
    if unreadable > limit:
        raise SlideReadError(
            f"{slide.name}: {unreadable:.0%} of the slide cannot be decoded (limit {limit:.0%}): the file is "
            "truncated or damaged. Copy it again from the scanner."
        )


def _nothing_of(grid: PatchGrid) -> PatchGrid:
    return replace(grid, block_xy=np.zeros((0, 2), np.int32), tissue=np.zeros(0, np.float32))
