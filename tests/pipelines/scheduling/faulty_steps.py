"""Steps that go wrong on slides of certain names, for the tests of faults; workers import them from here.

What has happened once is remembered by an empty file beside the slide.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import numpy as np
from distributed import get_worker

from pipelines.results import STORE
from pipelines.worker.finishing import finish_slide
from pipelines.worker.scoring_blocks import BlockScored, score_block
from pipelines.worker.task import SlideTask
from wsi_her2.scoring.result import SlideResult


def block(task: SlideTask, fingerprint: str, number: int) -> BlockScored:
    """Score a block, or do what the slide's name says."""
    match task.path.stem.split("-")[0]:
        case "crashes":
            ctypes.string_at(0)
        case "hangs":
            # A call that keeps the interpreter's lock, as a codec's may.
            ctypes.PyDLL(None).sleep(3600)
        case "swells":
            hoard = []
            while True:
                hoard.append(np.ones(2**22))
                time.sleep(0.01)
        case "killed" if in_a_worker() and first_time(task.path, f"killed-{number}"):
            os.kill(os.getpid(), signal.SIGKILL)
        case "refused" if first_time(task.path, f"refused-{number}"):
            raise ConnectionRefusedError(111, "Connection refused")
        case "unreachable":
            raise TimeoutError("the storage did not answer")
        case "changes" if first_time(task.path, "changed"):
            scored = score_block(task, fingerprint, number)
            os.utime(task.path)
            return scored
    return score_block(task, fingerprint, number)


def finish(task: SlideTask, fingerprint: str, block_seconds: float, cell_seconds: float = 0.0) -> SlideResult:
    """Finish a slide, or do what its name says."""
    match task.path.stem.split("-")[0]:
        case "rots" if first_time(task.path, "rotten"):
            chunk = task.partial / STORE / "probabilities" / "c" / "0" / "0"
            content = bytearray(chunk.read_bytes())
            content[len(content) // 2] ^= 0x10
            chunk.write_bytes(content)
        case "endless" if in_a_worker() and first_time(task.path, "finished"):
            finish_slide(task, fingerprint, block_seconds, cell_seconds)
            os.kill(os.getpid(), signal.SIGKILL)
    return finish_slide(task, fingerprint, block_seconds, cell_seconds)


def in_a_worker() -> bool:
    """Whether this is a worker: a step that stood in line behind the one that killed it is run apart too."""
    try:
        get_worker()
    except ValueError:
        return False
    return True


def first_time(slide: Path, what: str) -> bool:
    """True once for a slide."""
    mark = slide.with_name(f".{slide.name}.{what}")
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
