"""A child process that uses inputs one after the other, and is replaced when an input kills it or hangs in it."""

from __future__ import annotations

import json
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.fuzz.verdicts import LONGEST_MESSAGE, Verdict

MEMORY_MB, SECONDS = 3000, 20.0
_START_SECONDS = 600.0
_CLOCK_PER_SECOND = 6.0
"""How much longer than on the processor an input may take on the clock: other work slows it down, a hang ends."""

_LOOK_S = 0.5
_INPUTS_PER_CHILD = 200
_ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A process with limits, in a folder of its own.

    Parameters
    ----------
    folder : pathlib.Path
        Everything of it lies below: `in` for inputs, and `cwd`, `home`, `tmp`, where no file may appear.
    memory_mb : int
        Of anonymous memory.
    seconds : float
        For one input, of a processor; on the clock several times as much.
    modules : tuple of str
        To import before the first input.
    """

    def __init__(
        self,
        folder: Path,
        memory_mb: int = MEMORY_MB,
        seconds: float = SECONDS,
        modules: tuple[str, ...] = ("wsi_her2.slides.slide", "pipelines.configuration"),
    ) -> None:
        self.inputs = folder / "in"
        self._folder, self._memory_mb, self._seconds = folder.resolve(), memory_mb, seconds
        self._log = folder / "log"
        self._modules = modules
        self._process: subprocess.Popen[str] | None = None
        self._used = 0
        self.inputs.mkdir(parents=True, exist_ok=True)

    def use(self, kind: str, path: Path, variant: int) -> Verdict:
        """Use an input. One that took too long is tried again, because other work may have slowed it down."""
        verdict = self._used_once(kind, path, variant)
        return self._used_once(kind, path, variant) if verdict.what == "time" else verdict

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
        self._process = None

    def _used_once(self, kind: str, path: Path, variant: int) -> Verdict:
        if self._used >= _INPUTS_PER_CHILD:
            self.close()
        process = self._process or self._start()
        self._used += 1
        before = _listed(self._folder)
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"kind": kind, "path": str(path), "variant": variant}) + "\n")
            process.stdin.flush()
            line = self._answer(process, self._seconds * _CLOCK_PER_SECOND, self._seconds)
        except (BrokenPipeError, TimeoutError) as error:
            line = None if isinstance(error, TimeoutError) else ""
        if line is None:
            where = self._frames(process, signal.SIGABRT)
            self.close()
            return Verdict("finding", "time", where, f"more than {self._seconds:g} s", self._seconds)
        if not line:
            code = process.wait()
            where = self._frames(process)
            self.close()
            name = signal.Signals(-code).name if code < 0 else f"exit {code}"
            # All code of the project is Python, so a signal is a library's; a run replaces the process.
            outcome = "third-party crash" if code < 0 else "finding"
            return Verdict(outcome, name, where)  # type: ignore[arg-type]
        return _judged(json.loads(line), _listed(self._folder) - before)

    def _start(self) -> subprocess.Popen[str]:
        for name in ("cwd", "home", "tmp"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
            (self._folder / name).mkdir()
        environment = {
            **os.environ,
            "HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder / "tmp"),
            "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        arguments = [str(self._memory_mb), str(self._folder), str(self._log), ",".join(self._modules)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.child", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=self._folder / "cwd",
            env=environment,
        )
        self._used = 0
        if self._answer(self._process, _START_SECONDS) != "ready\n":
            raise RuntimeError(f"the child did not start; see {self._log}")
        return self._process

    def _answer(self, process: subprocess.Popen[str], clock_s: float, processor_s: float = math.inf) -> str:
        assert process.stdout is not None
        end, worked = time.monotonic() + clock_s, _processor_s(process)
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            while not waiting.select(_LOOK_S):
                if time.monotonic() > end or _processor_s(process) - worked > processor_s:
                    raise TimeoutError
        return process.stdout.readline()

    def _frames(self, process: subprocess.Popen[str], stop: signal.Signals | None = None) -> str:
        """The innermost Python frames of a process that died, or that is made to die."""
        begun = self._log.stat().st_size if self._log.exists() else 0
        if stop is not None:
            process.send_signal(stop)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                return ""
        else:
            begun = max(0, begun - 8000)
        with self._log.open("rb") as stream:
            stream.seek(begun)
            text = stream.read().decode(errors="replace")
        frames = [
            line.strip() for line in text.rsplit("most recent call first", 1)[-1].splitlines() if "File" in line
        ]
        return " < ".join(_short(frame) for frame in frames[:4])


def _processor_s(process: subprocess.Popen[str]) -> float:
    try:
        spent = psutil.Process(process.pid).cpu_times()
    except psutil.Error:
        return 0.0
    return spent.user + spent.system


def _judged(answer: dict[str, Any], new: set[str]) -> Verdict:
    outside = sorted(new) + answer["written"]
    common = (answer["seconds"], answer["peak_mb"])
    if outside:
        return Verdict("finding", "file outside", answer["where"], ", ".join(outside)[:500], *common)
    if answer["outcome"] == "refused" and len(answer["said"]) > LONGEST_MESSAGE:
        return Verdict("finding", "long message", answer["where"], answer["said"][:300], *common)
    what = "memory" if answer["what"] in ("MemoryError", "_ArrayMemoryError") else answer["what"]
    return Verdict(answer["outcome"], what, answer["where"], answer["said"], *common)


def _listed(folder: Path) -> set[str]:
    """Files and folders where nothing may appear."""
    return {
        str(path.relative_to(folder)) for name in ("cwd", "home", "tmp") for path in (folder / name).rglob("*")
    }


def _short(frame: str) -> str:
    """`File ".../slides/slide.py", line 3 in read` as `slide.py:3`."""
    file, _, rest = frame.removeprefix("File ").partition(", line ")
    return f"{Path(file.strip(chr(34))).name}:{rest.split()[0] if rest else '?'}"
