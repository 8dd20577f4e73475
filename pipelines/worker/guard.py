"""How a step runs in a worker: with a time limit, with its errors as values, and apart where it is suspected."""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from distributed import get_worker

from pipelines.fingerprint import software_version
from pipelines.slide_claims import CLAIMS_FILE
from pipelines.worker.task import SlideTask
from wsi_her2.errors import HER2Error, StepCrashed, StepTimeout, StepTooLarge, UnfitWorker

log = logging.getLogger(__name__)

_START_UP_S = 60.0
"""For a process to start and to load what it needs: not the step's own time."""

_TIMER_SAYS = b"Timeout ("
"""How the dump of `faulthandler` begins."""

Step = Callable[..., Any]
"""A function of `pipelines.worker.steps`: it takes a SlideTask and numbers."""

_FAULTS = frozenset(
    getattr(signal, name) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE") if hasattr(signal, name)
)


@dataclass(frozen=True)
class StepReport:
    """What became of a step.

    Attributes
    ----------
    outcome : object
        What the step returned.
    error : Exception or None
        What it raised instead.
    worker : str
        Machine and process.
    """

    outcome: Any
    error: Exception | None
    worker: str


def worker_name() -> str:
    """Machine and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_step(step: Step, limit_s: float, software: str, task: SlideTask, *arguments: Any) -> StepReport:
    """Run a step in this worker.

    A step that takes longer than `limit_s` ends its worker: nothing else ends a codec that hangs. Dask starts
    another worker, and the step is run apart.

    Parameters
    ----------
    step : callable
    limit_s : float
    software : str
        Version of the run.
    task : SlideTask
    *arguments : object
        Of the step.
    """
    worker = worker_name()
    unfit = _why_unfit(software, str(task.output))
    if unfit:
        return StepReport(None, UnfitWorker(f"{worker}: {unfit}"), worker)
    try:
        with _ending_worker_after(limit_s):
            return StepReport(step(task, *arguments), None, worker)
    except Exception as error:
        if not isinstance(error, HER2Error | OSError):
            log.exception("%s: unexpected error", task.path)
        return StepReport(None, _that_travels(error), worker)


def run_step_apart(step: Step, limit_s: float, software: str, task: SlideTask, *arguments: Any) -> StepReport:
    """Run a step in a process that does nothing else, after workers have died with it.

    If that process dies too, of a fault, of time or of memory, then the step is to blame.

    Parameters
    ----------
    step, limit_s, software, task, *arguments
        As in `run_step`.
    """
    worker = worker_name()
    sent = pickle.dumps((step, limit_s, software, _memory_limit(), task, arguments))
    try:
        ended = subprocess.run(
            [sys.executable, "-c", "from pipelines.worker.guard import answer_apart; answer_apart()"],
            input=sent,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=limit_s + _START_UP_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return StepReport(None, _too_long(task, limit_s), worker)
    if ended.returncode == 0:
        report: StepReport = pickle.loads(ended.stdout)
        return StepReport(report.outcome, report.error, worker)
    if ended.stdout.startswith(_TIMER_SAYS):
        return StepReport(None, _too_long(task, limit_s), worker)
    return StepReport(None, _death(task, ended.returncode), worker)


def answer_apart() -> None:
    """What the process does that `run_step_apart` starts: a step from stdin, its report to stdout."""
    # What a codec prints must not get among what is answered.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    step, limit_s, software, memory_limit, task, arguments = pickle.load(sys.stdin.buffer)
    _limit_memory(memory_limit)
    faulthandler.dump_traceback_later(limit_s, exit=True, file=answer)
    report = run_step(step, limit_s, software, task, *arguments)
    faulthandler.cancel_dump_traceback_later()
    if isinstance(report.error, MemoryError):
        needs = f"{task.path.name}: a step needs more than the {(memory_limit or 0) / 2**30:.1f} GiB of a worker"
        report = StepReport(None, StepTooLarge(f"{needs}. Give each worker more, or use fewer workers."), "")
    answer.write(pickle.dumps(report))
    answer.close()


def _death(task: SlideTask, returncode: int) -> Exception:
    if -returncode in _FAULTS:
        return StepCrashed(
            f"{task.path.name}: the reader or the network crashed on it ({signal.Signals(-returncode).name}). The "
            "file is damaged, or hits a fault of a codec: open it with the scanner's viewer and export it again."
        )
    # A process that was killed from outside may have done nothing wrong, and so may one that found no memory.
    return ChildProcessError(f"a process that worked on it was ended from outside (exit status {returncode})")


def _too_long(task: SlideTask, limit_s: float) -> StepTimeout:
    return StepTimeout(
        f"{task.path.name}: a step took more than {limit_s:g} s, alone in its process. The file is damaged, or "
        "lies on a disk that does not answer; a slower machine needs a larger compute.step_limit_s."
    )


@contextmanager
def _ending_worker_after(limit_s: float) -> Iterator[None]:
    """Where this process is a worker's own and runs one step at a time."""
    if not _is_replaceable():
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    # Its watch is a thread of C, which a codec that keeps the interpreter's lock does not stop.
    faulthandler.dump_traceback_later(limit_s, exit=True, file=nowhere)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.close(nowhere)


def _is_replaceable() -> bool:
    try:
        worker = get_worker()
    except ValueError:
        return False
    return worker.nanny is not None and worker.state.nthreads == 1


def _memory_limit() -> int | None:
    """Bytes that this worker may use; None where it is not limited."""
    try:
        return get_worker().memory_manager.memory_limit
    except ValueError:
        return None


@lru_cache(maxsize=8)
def _why_unfit(software: str, output: str) -> str:
    """Why this worker cannot take part in a run; empty where it can."""
    if software_version() != software:
        return f"it has version {software_version()} of the software, and the run {software}"
    if not os.path.exists(os.path.join(output, CLAIMS_FILE)):  # noqa: PTH110, PTH118 - text is what is cached
        return f"it does not see {output}: workers need the output folder under the same path"
    return ""


def _that_travels(error: Exception) -> Exception:
    """The error, or its words where it cannot be sent to another process."""
    with suppress(Exception):
        pickle.loads(pickle.dumps(error))
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _limit_memory(limit: int | None) -> None:
    if limit is None or sys.platform == "win32":
        return
    import resource

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
