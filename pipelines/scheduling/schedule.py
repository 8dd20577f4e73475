"""Many slides on a Dask cluster, with bounded work in flight.

The client only counts: it submits steps, hears what became of them, and submits more. A slide's failure ends that
slide alone, and only after what may pass was tried again. A step with which a worker died is tried again in a
process of its own, so that a codec's crash is laid at the door of the slide that causes it and of no other. What
happens is yielded as events.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, Literal
from uuid import uuid4

from distributed import Client, Future, KilledWorker

from pipelines.fingerprint import software_version
from pipelines.scheduling.causes import NEEDS_NEW_START, cause_of
from pipelines.scheduling.events import (
    BlockDone,
    CellPartDone,
    CellsFound,
    Event,
    SampleTaken,
    SlideDone,
    SlideFailed,
    SlidePlanned,
    SlideStarted,
    StepRetried,
)
from pipelines.scheduling.slide_queue import SlideQueue
from pipelines.worker.counting_cells import CellsMeasured, CellsPlanned
from pipelines.worker.guard import StepReport, run_step, run_step_apart, worker_name
from pipelines.worker.preparing import Prepared
from pipelines.worker.sample_steps import SampleExtended
from pipelines.worker.scoring_blocks import BlockScored
from pipelines.worker.steps import Steps
from pipelines.worker.task import SlideTask
from wsi_her2.errors import ClusterLost, UnfitWorker
from wsi_her2.scoring.result import SlideResult

BLOCKS_PER_THREAD = 3
"""Blocks submitted per worker thread: one that runs, one that waits beside it, one on its way."""

_LOOK_S = 1.0
"""How often the schedule looks up while nothing happens: for workers, arrivals, and steps whose wait is over."""

_COUNT_WORKERS_S = 5.0


@dataclass(frozen=True)
class Limits:
    """How much is under way at once, and how often and how long something is tried.

    Attributes
    ----------
    max_slides_open : int or None
        Slides between their first step and their last; one more than there are worker threads by default.
    max_blocks_in_flight : int or None
        Steps submitted and not finished; `BLOCKS_PER_THREAD` per worker thread by default.
    attempts : int
        Times that a step is tried while its failures may pass.
    retry_wait_s : float
        Before the second time; doubled for each further one. A worker's death is no reason to wait.
    step_limit_s : float
        A step that takes longer is ended.
    worker_wait_s : float
        How long the run waits for a worker when there is none.
    blocks_need : mapping
        Resources of Dask that a worker must have for blocks, as {'GPU': 1}.
    """

    max_slides_open: int | None = None
    max_blocks_in_flight: int | None = None
    attempts: int = 4
    retry_wait_s: float = 1.0
    step_limit_s: float = 600.0
    worker_wait_s: float = 300.0
    blocks_need: dict[str, float] = field(default_factory=dict)


def score_slides(
    client: Client, queue: SlideQueue, limits: Limits | None = None, steps: Steps | None = None
) -> Generator[Event, None, None]:
    """Score slides and yield what happens.

    Parameters
    ----------
    client : distributed.Client
    queue : SlideQueue
    limits : Limits, optional
    steps : Steps, optional

    Yields
    ------
    Event
        Every slide that is taken from the queue ends in exactly one SlideDone or SlideFailed. Closing the
        generator cancels what runs.

    Raises
    ------
    ClusterLost
        The scheduler has gone, or there were no workers for too long. Slides that were under way are in the queue
        again.
    """
    schedule = _Schedule(client, queue, limits or Limits(), steps or Steps())
    try:
        yield from schedule.run()
    finally:
        schedule.close()


Phase = Literal["prepare", "blocks", "cells", "finish"]


@dataclass(eq=False)
class _Slide:
    """A slide between its first step and its last."""

    task: SlideTask
    attempt: int = 1
    started: float = field(default_factory=time.monotonic)
    phase: Phase = "prepare"
    fingerprint: str = ""
    pending: deque[_Step] = field(default_factory=deque)
    running: int = 0
    sample_taken: bool = False
    block_seconds: float = 0.0
    cell_seconds: float = 0.0
    failure: tuple[BaseException, str] | None = None
    begins_anew: bool = False
    suspect: _Step | None = None

    @property
    def idle(self) -> bool:
        return not self.pending and not self.running

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


@dataclass(frozen=True, eq=False)
class _Step:
    """One call of a step's function; `apart` in a process of its own, not before a time."""

    slide: _Slide
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    attempt: int = 1
    apart: bool = False
    not_before: float = 0.0


class _Schedule:
    def __init__(self, client: Client, queue: SlideQueue, limits: Limits, steps: Steps) -> None:
        self._client = client
        self._queue = queue
        self._limits = limits
        self._steps = steps
        self._software = software_version()
        self._open: list[_Slide] = []
        self._running: dict[Future[Any], _Step] = {}
        self._finished: SimpleQueue[Future[Any]] = SimpleQueue()
        self._threads = 1
        self._counted_at = float("-inf")
        self._without_workers_since: float | None = None

    def run(self) -> Iterator[Event]:
        while self._open or not self._queue.exhausted:
            self._count_workers()
            yield from self._open_slides()
            self._submit_due()
            for future, report in self._collected():
                yield from self._hear(future, report)
                yield from self._open_slides()
                self._submit_due()

    def close(self) -> None:
        """Stop what runs, and leave unfinished slides in the queue."""
        if self._running and self._client.status == "running":
            self._client.cancel(list(self._running), force=True)
        for slide in reversed(self._open):
            self._queue.put_back(slide.task)

    def _count_workers(self) -> None:
        now = time.monotonic()
        if now - self._counted_at < _COUNT_WORKERS_S:
            return
        self._counted_at = now
        try:
            threads = sum(self._client.nthreads().values())
        except (OSError, CancelledError) as error:
            raise _lost(self._client) from error
        self._threads = max(1, threads)
        if threads:
            self._without_workers_since = None
            return
        since = self._without_workers_since = self._without_workers_since or now
        if now - since > self._limits.worker_wait_s:
            raise ClusterLost(
                f"the cluster has had no worker for {self._limits.worker_wait_s:g} s. Finished blocks are kept: "
                "start workers, then run the same command again."
            )

    def _open_slides(self) -> Iterator[Event]:
        at_most = self._limits.max_slides_open or self._threads + 1
        while len(self._open) < at_most and (task := self._queue.take()) is not None:
            yield self._begin(_Slide(task, sample_taken=task.config.sampling.mode == "full"))

    def _begin(self, slide: _Slide) -> SlideStarted:
        self._open.append(slide)
        slide.pending.append(_Step(slide, self._steps.prepare))
        return SlideStarted(slide.task, slide.attempt)

    def _submit_due(self) -> None:
        at_most = self._limits.max_blocks_in_flight or BLOCKS_PER_THREAD * self._threads
        now = time.monotonic()
        # Earlier slides first, so that slides finish one after the other instead of all at the end.
        for slide in self._open:
            for _ in range(len(slide.pending)):
                # While a step is under suspicion others would only kill more workers.
                if slide.suspect is not None:
                    break
                if len(self._running) >= at_most and slide.phase in ("blocks", "cells"):
                    break
                step = slide.pending.popleft()
                if step.not_before > now:
                    slide.pending.append(step)
                else:
                    self._submit(step)
                    slide.suspect = step if step.apart else None

    def _submit(self, step: _Step) -> None:
        run = run_step_apart if step.apart else run_step
        try:
            future = self._client.submit(
                run,
                step.function,
                self._limits.step_limit_s,
                self._software,
                step.slide.task,
                *step.arguments,
                key=f"{step.function.__name__}-{uuid4().hex}",
                resources=self._limits.blocks_need if step.function is self._steps.block else None,
                pure=False,
            )
        except (OSError, RuntimeError) as error:
            step.slide.pending.append(step)
            raise _lost(self._client) from error
        step.slide.running += 1
        self._running[future] = step
        future.add_done_callback(self._finished.put)

    def _collected(self) -> Iterator[tuple[Future[Any], StepReport]]:
        """What became of the steps that have ended; waits a little where none has.

        Their reports are fetched together: each fetch waits for scheduler and worker, and while it waits nothing
        is submitted.
        """
        ended: list[Future[Any]] = []
        with suppress(Empty):
            ended.append(self._finished.get(timeout=_LOOK_S))
            while True:
                ended.append(self._finished.get_nowait())
        finished = [future for future in ended if future.status == "finished"]
        reports: dict[Future[Any], StepReport] = {}
        if finished:
            # What went wrong, and with which of them, is said when each is asked for by itself.
            with suppress(Exception):
                reports.update(zip(finished, self._client.gather(finished), strict=True))
        for future in ended:
            yield future, reports.get(future) or self._report_of(future)

    def _report_of(self, future: Future[Any]) -> StepReport:
        try:
            report: StepReport = future.result()
        except CancelledError as error:
            raise _lost(self._client) from error
        except Exception as error:  # noqa: BLE001 - of the cluster, as a worker's death; steps report their own
            dead = getattr(getattr(error, "last_worker", None), "address", "")
            return StepReport(None, error, dead)
        return report

    def _hear(self, future: Future[Any], report: StepReport) -> Iterator[Event]:
        step = self._running.pop(future)
        slide = step.slide
        slide.running -= 1
        if slide.suspect is step:
            slide.suspect = None
        future.release()
        if report.error is not None:
            yield from self._failed(step, report.error, report.worker)
        else:
            yield from self._succeeded(slide, report)
        # A step that still runs would write into a folder that is being cleared, so what ends a slide waits.
        if slide in self._open and slide.idle:
            yield from self._next_phase(slide)

    def _failed(self, step: _Step, error: BaseException, worker: str) -> Iterator[Event]:
        slide, limits = step.slide, self._limits
        if slide.failure is not None or slide.begins_anew:
            return
        if isinstance(error, UnfitWorker):
            # Not the step's fault: it goes to another worker, and the unfit one is sent away.
            self._dismiss(worker)
            slide.pending.append(step)
            yield StepRetried(slide.task, step.function.__name__, error, worker, step.attempt, 0.0)
            return
        anew = isinstance(error, NEEDS_NEW_START)
        attempt = (slide.attempt if anew else step.attempt) + 1
        if cause_of(error) != "passing" or attempt > limits.attempts:
            slide.failure = error, worker
            slide.pending.clear()
            return
        killed = isinstance(error, KilledWorker)
        wait_s = 0.0 if killed else limits.retry_wait_s * 2.0 ** (attempt - 2)
        if anew:
            slide.begins_anew = True
            slide.pending.clear()
        else:
            apart, not_before = step.apart or killed, time.monotonic() + wait_s
            slide.pending.appendleft(replace(step, attempt=attempt, apart=apart, not_before=not_before))
        yield StepRetried(slide.task, step.function.__name__, error, worker, attempt, wait_s, anew)

    def _succeeded(self, slide: _Slide, report: StepReport) -> Iterator[Event]:
        match report.outcome:
            case Prepared(result=SlideResult() as result):
                yield self._done(slide, result, report.outcome.reused, report.worker)
            case SlideResult() as result:
                yield self._done(slide, result, False, report.worker)
            case Prepared() as prepared:
                slide.phase, slide.fingerprint = "blocks", prepared.fingerprint
                self._add(slide, self._steps.block, prepared.pending)
                yield SlidePlanned(slide.task, prepared.n_blocks, prepared.n_blocks - len(prepared.pending))
            case BlockScored() as scored:
                slide.block_seconds += scored.seconds
                yield BlockDone(slide.task, scored.n_patches, report.worker)
            case SampleExtended() as extended:
                self._add(slide, self._steps.block, extended.pending)
                if not extended.pending:
                    slide.sample_taken = True
                    yield SampleTaken(slide.task, extended.n_left_out)
            case CellsPlanned() as planned:
                slide.phase = "cells"
                self._add(slide, self._steps.cell_part, planned.pending)
                yield CellsFound(slide.task, planned.n_parts, planned.n_parts - len(planned.pending))
            case CellsMeasured() as measured:
                slide.cell_seconds += measured.seconds
                yield CellPartDone(slide.task, measured.nuclei)

    def _next_phase(self, slide: _Slide) -> Iterator[Event]:
        if slide.failure is not None:
            self._close_slide(slide)
            error, worker = slide.failure
            yield SlideFailed(slide.task, error, cause_of(error), worker, slide.attempt, slide.seconds)
        elif slide.begins_anew:
            self._open.remove(slide)
            task = replace(slide.task, fresh=True)
            anew = _Slide(task, slide.attempt + 1, slide.started, sample_taken=task.config.sampling.mode == "full")
            yield self._begin(anew)
        elif slide.phase == "blocks" and not slide.sample_taken:
            slide.pending.append(_Step(slide, self._steps.extend, (slide.fingerprint,)))
        elif slide.phase == "blocks":
            slide.pending.append(_Step(slide, self._steps.plan_cells, (slide.fingerprint,)))
        elif slide.phase == "cells":
            slide.phase = "finish"
            seconds = slide.block_seconds, slide.cell_seconds
            slide.pending.append(_Step(slide, self._steps.finish, (slide.fingerprint, *seconds)))

    def _add(self, slide: _Slide, function: Callable[..., Any], numbers: tuple[int, ...]) -> None:
        slide.pending.extend(_Step(slide, function, (slide.fingerprint, number)) for number in numbers)

    def _done(self, slide: _Slide, result: SlideResult, reused: bool, worker: str) -> SlideDone:
        self._close_slide(slide)
        return SlideDone(slide.task, result, reused, worker, slide.attempt, slide.seconds)

    def _close_slide(self, slide: _Slide) -> None:
        self._open.remove(slide)
        self._queue.done(slide.task)

    def _dismiss(self, worker: str) -> None:
        """Send away the worker of a machine and process ('host:pid')."""
        for address, said in self._client.run(worker_name).items():
            if said == worker:
                self._client.retire_workers([address], close_workers=True)
        self._counted_at = float("-inf")


def _lost(client: Client) -> ClusterLost:
    scheduler = getattr(client.scheduler, "address", None) or "the scheduler"
    return ClusterLost(
        f"{scheduler}: the connection to the Dask scheduler is lost. Finished blocks are kept: when it runs "
        "again, the same command continues."
    )
