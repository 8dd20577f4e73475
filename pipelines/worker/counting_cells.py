"""The steps that count a slide's cells once its blocks are scored: where, then part by part."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipelines.worker.calling import cell_cutoffs
from pipelines.worker.cell_fields import choose_fields, measure_fields, pending_parts, plan_parts
from pipelines.worker.kept_open import planned_slide, run_lab
from pipelines.worker.task import SlideTask
from wsi_her2.cells.field import CellSettings


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
    job = planned_slide(task, fingerprint)
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
    job = planned_slide(task, fingerprint)
    settings = CellSettings(cutoffs=cell_cutoffs(task.config, run_lab(task)))
    nuclei = measure_fields(task.partial, part, job.slide, job.store, job.stain, settings)
    return CellsMeasured(nuclei, time.perf_counter() - started)
