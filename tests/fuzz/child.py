"""The process in which inputs are used: limits, a place of its own, one line of JSON for each input.

It reads `{"kind", "path", "variant"}` from its standard input. What C libraries print goes to a log, not between
the answers. Of an input that kills the process the log has the Python frames.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import resource
import sys
import time
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

_OURS = ("wsi_her2", "pipelines")


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    memory_mb, sandbox = int(sys.argv[1]), Path(sys.argv[2])
    log = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable(all_threads=False)
    warnings.simplefilter("ignore")
    inputs = os.fdopen(os.dup(0))
    from tests.fuzz.targets import TARGETS

    # Before writes are watched: what a library writes when it is first imported is not the doing of an input.
    for name in filter(None, sys.argv[4].split(",")):
        with contextlib.suppress(ImportError):
            import_module(name)
    written = _watch_writes(sandbox)
    # Anonymous memory rather than address space: libraries reserve much that they never touch.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers.write("ready\n")
    for line in inputs:
        task = json.loads(line)
        written.clear()
        _forget_peak()
        started = time.process_time()
        answer: dict[str, Any] = {"what": "", "where": "", "said": "", "outcome": "ok"}
        try:
            TARGETS[task["kind"]](Path(task["path"]), task["variant"])
        except BaseException as error:  # noqa: BLE001 - what comes out is what is asked
            answer = _described(error)
            del error
        answer |= {"seconds": time.process_time() - started, "peak_mb": _peak_mb(), "written": list(written)}
        gc.collect()
        answers.write(json.dumps(answer) + "\n")


def _described(error: BaseException) -> dict[str, Any]:
    from wsi_her2.errors import HER2Error

    said = str(error)
    refused = isinstance(error, HER2Error | OSError) and bool(said) and not isinstance(error, MemoryError)
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if any(f"/{package}/" in frame.filename for package in _OURS)]
    inner = frames[-1] if frames else None
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours[-2:] + ([inner] if inner else [])]
    return {
        "outcome": "refused" if refused else "finding",
        "what": type(error).__name__,
        "where": " > ".join(places),
        "said": said[:20_000],
    }


def _watch_writes(sandbox: Path) -> list[str]:
    """A list that gets every path outside the sandbox that is opened for writing, made, renamed or removed."""
    written: list[str] = []
    inside = (str(sandbox.resolve()), "/dev/", "/proc/")
    changes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "shutil.copyfile"}
    starts = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"}

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and isinstance(path, str):
                note(path)
        elif event in changes:
            note(str(arguments[1] if event == "os.rename" else arguments[0]))
        elif event in starts:
            written.append(f"{event} {arguments[0]}")

    def note(path: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if not os.path.realpath(path).startswith(inside):
                written.append(path)

    sys.addaudithook(look)
    return written


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
