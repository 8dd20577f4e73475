"""What happens in a run, as the schedule tells it to progress, tables and tests."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.worker.task import SlideTask
from wsi_her2.scoring.result import Cause, SlideResult


@dataclass(frozen=True)
class SlideStarted:
    """Work on a slide begins, for the `attempt`-th time."""

    task: SlideTask
    attempt: int


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
    worker: str


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
class StepRetried:
    """A step failed for a cause that may pass, and is tried again: as the `attempt`-th time, after `wait_s`.

    With `new_start` the slide begins anew, because what was done of it is worth nothing.
    """

    task: SlideTask
    step: str
    error: BaseException
    worker: str
    attempt: int
    wait_s: float
    new_start: bool = False


@dataclass(frozen=True)
class SlideDone:
    """A slide has its result; `reused` when an earlier run had made it."""

    task: SlideTask
    result: SlideResult
    reused: bool
    worker: str
    attempt: int
    seconds: float


@dataclass(frozen=True)
class SlideFailed:
    """A slide could not be scored."""

    task: SlideTask
    error: BaseException
    cause: Cause
    worker: str
    attempt: int
    seconds: float


Event = (
    SlideStarted
    | SlidePlanned
    | BlockDone
    | SampleTaken
    | CellsFound
    | CellPartDone
    | StepRetried
    | SlideDone
    | SlideFailed
)
