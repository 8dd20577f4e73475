"""Many slides on a Dask cluster, with bounded work in flight.

The client only counts: it submits steps, hears what they returned, and submits more. A slide's failure ends
that slide alone. What happens is yielded as events, so that progress, tables and tests see the same thing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Future, as_completed

from pipelines.steps import (
    BlockScored,
    CellsMeasured,
    CellsPlanned,
    Prepared,
    SampleExtended,
    SlideTask,
    extend_sample,
    finish_slide,
    measure_cell_part,
    plan_cells,
    prepare_slide,
    score_block,
)
from wsi_her2.errors import HER2Error
from wsi_her2.scoring.result import SlideResult

log = logging.getLogger(__name__)

BLOCKS_PER_THREAD = 3
"""Blocks submitted per worker thread: one that runs, one that waits beside it, one on its way."""


@dataclass(frozen=True)
class SlidePlanned:
    """A slide's blocks are known; `done` of them were scored by an earlier run."""

    task: SlideTask
    n_blocks: int
    done: int


@dataclass(frozen=True)
class BlockDone:
    """A block of a slide is in the store."""

    task: SlideTask
    n_patches: int


@dataclass(frozen=True)
class SampleTaken:
    """A sample of a slide is enough; `left_out` of its blocks are not scored."""

    task: SlideTask
    left_out: int


@dataclass(frozen=True)
class CellsFound:
    """Where a slide's cells are counted is known; `done` of the parts were measured by an earlier run."""

    task: SlideTask
    n_parts: int
    done: int


@dataclass(frozen=True)
class CellPartDone:
    """A part of a slide's cells is measured."""

    task: SlideTask
    nuclei: int


@dataclass(frozen=True)
class SlideDone:
    """A slide has its result; `reused` when an earlier run had made it."""

    task: SlideTask
    result: SlideResult
    reused: bool


@dataclass(frozen=True)
class SlideFailed:
    """A slide could not be scored."""

    task: SlideTask
    error: BaseException


Event = SlidePlanned | BlockDone | SampleTaken | CellsFound | CellPartDone | SlideDone | SlideFailed


@dataclass
class _Active:
    """A slide between its first step and its last: `step` is what `pending` numbers are for."""

    task: SlideTask
    fingerprint: str = ""
    step: Callable[..., BlockScored | CellsMeasured] = score_block
    pending: deque[int] = field(default_factory=deque)
    running: int = 0
    sample_taken: bool = False
    block_seconds: float = 0.0
    cell_seconds: float = 0.0
    error: BaseException | None = None

    @property
    def all_steps_done(self) -> bool:
        return not self.pending and not self.running


def score_slides(
    client: Client,
    tasks: Sequence[SlideTask],
    *,
    max_slides_open: int | None = None,
    max_blocks_in_flight: int | None = None,
) -> Generator[Event, None, None]:
    """Score slides and yield what happens.

    Parameters
    ----------
    client : distributed.Client
    tasks : sequence of SlideTask
    max_slides_open : int, optional
        Slides between their first step and their last; one more than there are worker threads by default.
    max_blocks_in_flight : int, optional
        Blocks submitted and not finished; `BLOCKS_PER_THREAD` per worker thread by default.

    Yields
    ------
    SlidePlanned, BlockDone, SampleTaken, CellsFound, CellPartDone, SlideDone or SlideFailed
        Every task ends in exactly one SlideDone or SlideFailed. Closing the generator cancels what runs.
    """
    threads = max(1, sum(client.nthreads().values()))
    slides_open = max_slides_open or threads + 1
    in_flight = max_blocks_in_flight or BLOCKS_PER_THREAD * threads
    waiting = deque(tasks)
    active: list[_Active] = []
    running: dict[Future[Any], _Active] = {}
    completed = as_completed(loop=client.loop)

    def submit(slide: _Active, step: Any, *arguments: Any) -> None:
        future = client.submit(step, slide.task, *arguments, pure=False)
        slide.running += 1
        running[future] = slide
        completed.add(future)

    try:
        while waiting or active:
            while waiting and len(active) < slides_open:
                task = waiting.popleft()
                slide = _Active(task, sample_taken=task.config.sampling.mode == "full")
                active.append(slide)
                submit(slide, prepare_slide)
            # Earlier slides first, so that slides finish one after the other instead of all at the end.
            for slide in active:
                while slide.pending and len(running) < in_flight:
                    submit(slide, slide.step, slide.fingerprint, slide.pending.popleft())
            future = next(completed)
            slide = running.pop(future)
            slide.running -= 1
            outcome = _outcome_of(future, slide)
            match outcome:
                case Prepared(result=SlideResult() as result):
                    active.remove(slide)
                    yield SlideDone(slide.task, result, outcome.reused)
                    continue
                case SlideResult():
                    active.remove(slide)
                    yield SlideDone(slide.task, outcome, reused=False)
                    continue
                case Prepared():
                    slide.fingerprint = outcome.fingerprint
                    slide.pending.extend(outcome.pending)
                    yield SlidePlanned(slide.task, outcome.n_blocks, outcome.n_blocks - len(outcome.pending))
                case BlockScored():
                    slide.block_seconds += outcome.seconds
                    yield BlockDone(slide.task, outcome.n_patches)
                case SampleExtended():
                    slide.pending.extend(outcome.pending)
                    if not outcome.pending:
                        slide.sample_taken = True
                        yield SampleTaken(slide.task, outcome.n_left_out)
                case CellsPlanned():
                    slide.step = measure_cell_part
                    slide.pending.extend(outcome.pending)
                    yield CellsFound(slide.task, outcome.n_parts, outcome.n_parts - len(outcome.pending))
                case CellsMeasured():
                    slide.cell_seconds += outcome.seconds
                    yield CellPartDone(slide.task, outcome.nuclei)
            # A block that still runs would write into a folder that is being cleared, so a failure waits for it.
            if slide.all_steps_done and slide.error is not None:
                active.remove(slide)
                yield SlideFailed(slide.task, slide.error)
            elif slide.all_steps_done and slide.step is score_block and not slide.sample_taken:
                submit(slide, extend_sample, slide.fingerprint)
            elif slide.all_steps_done and slide.step is score_block:
                submit(slide, plan_cells, slide.fingerprint)
            elif slide.all_steps_done:
                submit(slide, finish_slide, slide.block_seconds, slide.cell_seconds)
    finally:
        if running:
            client.cancel(list(running), force=True)


_Outcome = Prepared | BlockScored | SampleExtended | CellsPlanned | CellsMeasured | SlideResult


def _outcome_of(future: Future[Any], slide: _Active) -> _Outcome | None:
    """What a step returned; None where it failed, which ends the slide and nothing else."""
    try:
        outcome: _Outcome = future.result()
    except Exception as error:
        if not isinstance(error, HER2Error | OSError):
            log.exception("%s: unexpected error", slide.task.path)
        slide.error = slide.error or error
        slide.pending.clear()
        return None
    finally:
        future.release()
    return outcome
