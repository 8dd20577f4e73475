"""What workers do for a slide, step by step.

A step gets paths and numbers and returns numbers; pixels never travel between processes. What one step leaves
for the next lies in the slide's partial folder, which is also what an interrupted run continues from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.worker.counting_cells import CellsMeasured, CellsPlanned, measure_cell_part, plan_cells
from pipelines.worker.finishing import finish_slide
from pipelines.worker.preparing import Prepared, prepare_slide
from pipelines.worker.sample_steps import SampleExtended, extend_sample
from pipelines.worker.scoring_blocks import BlockScored, score_block
from wsi_her2.scoring.result import SlideResult


@dataclass(frozen=True)
class Steps:
    """The steps of a slide in their order. Others can be put in their place, to try the schedule alone."""

    prepare: Callable[..., Prepared] = prepare_slide
    block: Callable[..., BlockScored] = score_block
    extend: Callable[..., SampleExtended] = extend_sample
    plan_cells: Callable[..., CellsPlanned] = plan_cells
    cell_part: Callable[..., CellsMeasured] = measure_cell_part
    finish: Callable[..., SlideResult] = finish_slide
