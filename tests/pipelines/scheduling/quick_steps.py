"""Steps that take no time, for tests of the schedule alone; workers import them from here.

What a block does besides is said by the slide's name; marks of when it did lie beside the slide.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

from pipelines.results import publish, write_result
from pipelines.worker.counting_cells import CellsPlanned
from pipelines.worker.preparing import Prepared
from pipelines.worker.scoring_blocks import BlockScored
from pipelines.worker.task import SlideTask
from tests.pipelines.scheduling.faulty_steps import first_time
from wsi_her2.scoring.result import ModelInfo, SlideResult

BLOCKS = 12
PATCHES = 64


class CannotBeRead:
    """A report that breaks where it is received."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _break, ()


def _break() -> None:
    raise pickle.UnpicklingError("a report that cannot be read")


def prepare(task: SlideTask) -> Prepared:
    """A slide whose blocks all wait."""
    task.partial.mkdir(parents=True, exist_ok=True)
    return Prepared(task.fingerprint(), BLOCKS, tuple(range(BLOCKS)))


def block(task: SlideTask, fingerprint: str, number: int) -> Any:
    """Nothing, or what the slide's name says."""
    match task.path.stem.split("-")[0]:
        case "garbled" if number == BLOCKS // 2:
            return CannotBeRead()
        case "killed" if number == 0:
            if first_time(task.path, "killed"):
                time.sleep(0.3)
                os.kill(os.getpid(), signal.SIGKILL)
            mark(task.path, "begun")
            time.sleep(1)
            mark(task.path, "ended")
        case "killed":
            mark(task.path, f"block-{number}")
            time.sleep(0.1)
    return BlockScored(PATCHES, 0.0)


def plan_cells(*_: object) -> CellsPlanned:
    """No cells to count."""
    return CellsPlanned(0, ())


def finish(task: SlideTask, fingerprint: str, *_: float) -> SlideResult:
    """A result without anything that was measured."""
    result = SlideResult(
        slide_id=task.slide_id,
        path=str(task.path),
        status="not_assessable",
        reason="nothing was looked at",
        modality="ihc",
        model=ModelInfo("stand-in", "0" * 64, ("other", "0", "1+", "2+", "3+"), 256, 0.5),
        version="",
        fingerprint=fingerprint,
        timings_s={"blocks": 0.0},
    )
    write_result(task.partial, result)
    publish(task.output, task.slide_id)
    return result


def mark(slide: Path, what: str) -> None:
    """Write down when something happened."""
    slide.with_name(f"{slide.name}.{what}").write_text(str(time.time()))


def marked(slide: Path, what: str) -> float:
    """When it happened; seconds."""
    return float(slide.with_name(f"{slide.name}.{what}").read_text())
