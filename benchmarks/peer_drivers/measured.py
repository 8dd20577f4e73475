"""What the drivers of `benchmarks/peers.py` share: what is asked of them, and how it is measured.

Runs in each tool's own environment, so it needs nothing but NumPy and, for the peers, torch. A driver is called as
`python drive_NAME.py JOB.json` and leaves `measured.json` and `probabilities.npy` in the job's folder.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PLANS = ("warm_up", "timed")
"""Which patches are scored, one after the other: others first, then those that are timed."""


@dataclass(frozen=True)
class Job:
    """What a driver is asked to do.

    Attributes
    ----------
    slide : pathlib.Path
    slide_mpp : float
    network : pathlib.Path
        TorchScript, probabilities out.
    published : bool
        Whether it is the network as published, which takes float32 N x 3 x H x W from 0 to 255, or as exported,
        which takes uint8 N x H x W x 3.
    classes : list of str
    patch_px, patch_px0 : int
        Side of a patch as the network takes it, and in level-0 pixels.
    mpp : float
        Scale at which the network takes patches.
    folder : pathlib.Path
        A folder to work in.
    places : dict of int64 n x 2
        Top-left corners of the patches of each plan, level-0 pixels.
    more : dict
        What only one driver needs.
    """

    slide: Path
    slide_mpp: float
    network: Path
    published: bool
    classes: list[str]
    patch_px: int
    patch_px0: int
    mpp: float
    folder: Path
    places: dict[str, npt.NDArray[np.int64]]
    more: dict[str, Any]


@dataclass(frozen=True)
class Scoring:
    """How the patches of a plan are scored.

    Attributes
    ----------
    run : callable
        Reads and classifies them, up to what the tool leaves in memory or on disk; this is timed.
    probabilities : callable
        Takes them from there, in the order of the places; this is not.
    """

    run: Callable[[], object]
    probabilities: Callable[[], npt.ArrayLike]


def measure(prepare: Callable[[Job], Callable[[str], Scoring]], package: str, notes: Mapping[str, str]) -> None:
    """Carry out the job that the command line names.

    Parameters
    ----------
    prepare : callable
        Makes ready what does not depend on the patches, and gives what makes ready the rest for a plan's name.
        Neither is timed.
    package : str
        Whose version is reported.
    notes : mapping
        What is worth saying of what ran; may be filled while it runs.
    """
    described = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    paths = {name: Path(described[name]) for name in ("slide", "network", "folder")}
    places = {name: np.array(described["places"][name], np.int64) for name in PLANS}
    job = Job(**{**described, **paths, "places": places})
    _one_thread()
    plan = prepare(job)
    # The first call imports what is imported late, fills what allocators keep and lets TorchScript settle.
    plan("warm_up").run()
    scoring = plan("timed")
    started, cpu_started = time.perf_counter(), _cpu_seconds()
    scoring.run()
    cpu_s, wall_s = _cpu_seconds() - cpu_started, time.perf_counter() - started
    found = {
        "version": metadata.version(package),
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "peak_mb": _peak_bytes() / 1e6,
        "notes": dict(notes),
    }
    np.save(job.folder / "probabilities.npy", np.asarray(scoring.probabilities(), np.float32))
    (job.folder / "measured.json").write_text(json.dumps(found), encoding="utf-8")


def versions(*packages: str) -> str:
    """Packages with their versions, for people."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in packages)


def _one_thread() -> None:
    """Hold to one thread what does not heed the environment."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)


def _cpu_seconds() -> float:
    """Of this process, all its threads, and its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak_bytes() -> int:
    """Most memory this process has held.

    On Linux from /proc, because getrusage there counts what the process held that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else peak * 1024
