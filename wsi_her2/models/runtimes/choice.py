"""Opening a bundle in a runtime, proving that it agrees with torch, and choosing the fastest that does."""

from __future__ import annotations

import logging
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsi_her2.errors import ClassifierError, HER2Error
from wsi_her2.models.bundle import Bundle, Precision
from wsi_her2.models.extras import is_installed
from wsi_her2.models.runtimes.onnx_session import OnnxSession
from wsi_her2.models.runtimes.openvino_session import OpenVinoSession
from wsi_her2.models.runtimes.session import PACKAGES, RuntimeName, Session, run_in_batches
from wsi_her2.models.runtimes.torch_session import TorchSession

TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "int8": 0.15}
"""By how much a probability on the check images may differ from the one in the bundle. In int8 the runtimes round
differently; a wrong kernel or a wrong graph is off by far more."""

_PREFERENCE = 1.1
"""How many times faster another runtime must be to be taken before a preferred one; less than that is noise."""

_log = logging.getLogger(__name__)

_OPENERS: dict[RuntimeName, Callable[[Bundle, Precision], Session]] = {
    "onnx": lambda bundle, precision: OnnxSession(bundle.graph(precision)),
    "openvino": lambda bundle, precision: OpenVinoSession(bundle.graph(precision)),
    "torch": lambda bundle, _: TorchSession(bundle),
}


def installed_runtimes() -> list[RuntimeName]:
    """Runtimes whose package is there, in the order of preference."""
    return [name for name, package in PACKAGES.items() if is_installed(package)]


def open_session(bundle: Bundle, runtime: str = "auto", precision: Precision = "fp32") -> Session:
    """Open a bundle in a runtime that agrees with torch on the check images.

    Parameters
    ----------
    bundle : Bundle
    runtime : {'auto', 'torch', 'onnx', 'openvino'}
        'auto' tries those that are installed and takes the fastest on this machine; torch only where there may be
        an accelerator, or no other works.
    precision : {'fp32', 'int8'}

    Raises
    ------
    ClassifierError
        There is no such runtime, it cannot run this precision, or its probabilities are not those of torch.
    MissingExtra
    """
    if precision == "int8" and not bundle.has("int8"):
        raise ClassifierError(
            f"{bundle.path.parent}: the bundle holds no graph in int8: make one with `wsi-her2 models quantise`, "
            "or use --precision fp32"
        )
    if runtime == "auto":
        return _fastest(bundle, precision)
    if runtime not in PACKAGES:
        raise ClassifierError(f"there is no runtime {runtime!r}; there are auto, {', '.join(PACKAGES)}")
    name: RuntimeName = runtime
    if name == "torch" and precision == "int8":
        raise ClassifierError("the runtime torch computes in fp32 only: use onnx or openvino for int8")
    session = _OPENERS[name](bundle, precision)
    difference = _difference(session, bundle, precision)
    if not difference <= TOLERANCE[precision]:
        raise ClassifierError(
            f"{bundle.path.parent}: {name} does not give this bundle's probabilities on this machine: off by "
            f"{difference:.2g} (limit {TOLERANCE[precision]:g}). Use another --runtime, or --precision fp32."
        )
    return session


def _fastest(bundle: Bundle, precision: Precision) -> Session:
    installed = installed_runtimes()
    # Importing torch takes seconds, and on a CPU it is the slowest: it is tried where it may find an accelerator,
    # or where nothing else works.
    first = [name for name in installed if name != "torch" or accelerator_may_be_there()]
    otherwise = [name for name in installed if name not in first]
    reasons: list[str] = []
    sessions = _working(bundle, precision, first, reasons) or _working(bundle, precision, otherwise, reasons)
    if not sessions:
        raise ClassifierError(
            f"{bundle.path.parent}: no runtime can run this bundle in {precision}. " + " ".join(reasons)
        )
    seconds = [_seconds(session, bundle) for session in sessions] if len(sessions) > 1 else [0.0]
    # The order is that of preference, so that two that are equally fast do not alternate from run to run.
    return next(s for s, taken in zip(sessions, seconds, strict=True) if taken <= min(seconds) * _PREFERENCE)


def _working(bundle: Bundle, precision: Precision, names: list[RuntimeName], reasons: list[str]) -> list[Session]:
    """Sessions of the runtimes that agree with torch; why others do not goes into `reasons`."""
    sessions = []
    for name in names:
        if (name == "torch" and precision == "int8") or (name != "torch" and not bundle.has(precision)):
            continue
        try:
            sessions.append(open_session(bundle, name, precision))
        except HER2Error as error:
            _log.info("%s is left out: %s", name, error)
            reasons.append(f"{name}: {error}")
    return sessions


def accelerator_may_be_there() -> bool:
    """Whether this machine looks as if torch could compute on something faster than its CPU."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return shutil.which("nvidia-smi") is not None or any(
        Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    )


def _difference(session: Session, bundle: Bundle, precision: Precision) -> float:
    found, expected = session.run(bundle.check_images), bundle.check_probabilities(precision)
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max())


def _seconds(session: Session, bundle: Bundle, repeats: int = 5) -> float:
    """Shortest time of a run over the check images; the first, in `_difference`, has warmed it up."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run_in_batches(session, bundle.check_images)
        times.append(time.perf_counter() - started)
    return min(times)
