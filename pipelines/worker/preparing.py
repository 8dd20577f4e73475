"""The first step of a slide: tissue found, stain fitted, blocks planned, or why it cannot be assessed."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace

import numpy as np

from pipelines.results import read_result
from pipelines.worker.finishing import publish_result
from pipelines.worker.kept_open import run_classifier, run_lab, settle_process
from pipelines.worker.plan import Plan, read_plan, write_plan
from pipelines.worker.sample_steps import assess
from pipelines.worker.sampling import block_edge
from pipelines.worker.task import SlideTask
from wsi_her2.errors import RegionsError, SlideReadError, StoreError
from wsi_her2.scoring.gate import gate_overview, gate_quality
from wsi_her2.scoring.quality import QUALITY, measure_quality
from wsi_her2.scoring.result import ReaderInfo, SlideResult
from wsi_her2.slides.blocks import sample_patches
from wsi_her2.slides.controls import find_controls, without_controls
from wsi_her2.slides.grid import PatchGrid, plan_patches
from wsi_her2.slides.regions import UsedRegions, restrict
from wsi_her2.slides.slide import Overview, Slide, open_slide
from wsi_her2.slides.stain import StainCorrection, fit_stain
from wsi_her2.slides.store import PatchStore
from wsi_her2.slides.tissue import TissueMask, detect_tissue

_SAMPLED_PATCHES = 64
_PICTURE_PX = 1600


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


def prepare_slide(task: SlideTask) -> Prepared:
    """Open a slide, find its tissue, look whether it can be assessed, fit its stain, plan its blocks.

    Raises
    ------
    HER2Error, OSError
        The slide cannot be read or the results cannot be written.
    """
    started = time.perf_counter()
    settle_process()
    classifier = run_classifier(task)
    fingerprint = task.fingerprint()
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
    if edge is None and task.sampled:
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
    lab = run_lab(task)
    if lab is not None:
        stain = lab.correction(mask.white_point)
    else:
        stain = fit_stain(sample.reshape(-1, 3), mask.white_point, classifier.modality, task.config.stain)
    if not reasons:
        glass = StainCorrection("white-point", mask.white_point.rgb).apply(sample)
        reasons = gate_quality(measure_quality(glass), classifier.modality, task.config.gate)
    store = PatchStore.create(
        task.store,
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
            "sampled": task.sampled,
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
        return Prepared(fingerprint, result=publish_result(task, plan, store, classifier, reasons))
    write_plan(task, plan)
    if task.sampled:
        assessment = assess(task, store, classifier)
        return Prepared(fingerprint, grid.n_blocks, assessment.pending)
    return Prepared(fingerprint, grid.n_blocks, tuple(range(grid.n_blocks)))


def _pending_blocks(task: SlideTask, fingerprint: str) -> Prepared | None:
    """What an interrupted run of the same slide left to do; None where it left nothing that can be used."""
    plan = read_plan(task, fingerprint)
    if plan is None:
        return None
    try:
        store = PatchStore.open(task.store)
    except StoreError:
        return None
    done = store.done
    if task.sampled:
        classifier = run_classifier(task)
        return Prepared(fingerprint, len(done), assess(task, store, classifier).pending)
    return Prepared(fingerprint, len(done), tuple(int(block) for block in np.flatnonzero(~done)))


def _within_regions(task: SlideTask, mask: TissueMask) -> tuple[TissueMask, UsedRegions | None]:
    if not task.config.regions.files:
        return mask, None
    if task.regions is None:
        raise RegionsError(
            f"{task.path.name}: none of the files of annotated regions is named like the slide: add "
            f"{task.path.stem}.geojson, or score it in a run without regions"
        )
    return restrict(mask, task.regions, task.config.regions.names)


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
