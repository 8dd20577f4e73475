"""The last step of a slide: its call made, its files written, its folder put in place."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from pipelines.fingerprint import software_version
from pipelines.results import publish, read_result, write_result
from pipelines.worker.calling import call_settings, call_store
from pipelines.worker.cell_fields import drop_parts, joined_cells
from pipelines.worker.kept_open import run_classifier, run_lab
from pipelines.worker.plan import Plan, drop_plan, read_plan
from pipelines.worker.sample_steps import assess
from pipelines.worker.slide_files import write_slide_files
from pipelines.worker.task import SlideTask
from wsi_her2.errors import SlideChanged, SlideForbidden, SlideUnreachable, StoreError
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.scoring.gate import GateReason
from wsi_her2.scoring.result import ModelInfo, SlideResult
from wsi_her2.slides.slide import Slide, open_slide
from wsi_her2.slides.store import PatchStore


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
    plan = read_plan(task, fingerprint)
    if plan is None:
        return _finished_before(task, fingerprint)
    # One that has gone was read to its end; its report does without example patches.
    with suppress(FileNotFoundError):
        if task.fingerprint() != fingerprint:
            raise SlideChanged(f"{task.path}: the slide has changed while it was scored")
    classifier = run_classifier(task)
    spent = {"blocks": round(block_seconds, 3), "cells": round(cell_seconds, 3)}
    try:
        store = PatchStore.open(task.store, complete=True)
        if not task.sampled and not store.done.all():
            raise StoreError(f"{task.store}: blocks that were written have gone")
        return publish_result(task, plan, store, classifier, [], spent)
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


def publish_result(
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
    drop_plan(task)
    publish(task.output, task.slide_id)
    return result


def _result_of(
    task: SlideTask, plan: Plan, store: PatchStore, classifier: PatchClassifier, early_reasons: list[GateReason]
) -> SlideResult:
    lab = run_lab(task)
    settings = call_settings(task.config, classifier, lab)
    least = task.config.cells.min_tumour_probability
    cells = None if settings.counting is None else joined_cells(task.partial, least)
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
        sample=assess(task, store, classifier).sample if task.sampled else None,
        pct_complete_membrane=None if called.cells is None else called.cells.pct_complete_membrane,
        n_patches=called.n_patches,
        tumour_patches=called.tumour_patches,
        tissue_mm2=plan.tissue_mm2,
        unreadable_fraction=called.unreadable_fraction,
        settings=settings,
    )


def _reopened(task: SlideTask, plan: Plan) -> Slide | None:
    try:
        return open_slide(task.path, mpp=task.config.mpp, backend=plan.reader.backend)
    except (SlideUnreachable, SlideForbidden):
        raise
    except OSError:
        return None


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
