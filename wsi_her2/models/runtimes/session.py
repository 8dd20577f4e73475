"""What every runtime's session is."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from wsi_her2.slides.backends import RGB

RuntimeName = Literal["torch", "onnx", "openvino"]

PACKAGES: dict[RuntimeName, str] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
"""The package of each runtime, in the order in which they are preferred where they are equally fast."""

THREADS = 1
"""Of a session. Workers fill the cores, each with patches of its own: so a core is never asked for twice, and what
comes out does not depend on the number of threads that a sum was split over."""


BATCH = 2
"""Patches that a session on a CPU is given at a time. What a network makes of two stays in the cache of a core;
with eight every runtime takes longer for each (`benchmarks/networks.py --batch`)."""

ACCELERATOR_BATCH = 64
"""Patches that a session on an accelerator is given at a time."""


class Session(Protocol):
    """A network, ready to run in one thread; safe to call from several.

    Attributes
    ----------
    runtime : {'torch', 'onnx', 'openvino'}
    device : str
        'cpu', 'cuda', 'mps'.
    """

    @property
    def runtime(self) -> RuntimeName: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102

    def run(self, images: RGB) -> npt.NDArray[np.float32]:
        """Probabilities (float32 N x K) of raw RGB patches (uint8 N x H x W x 3)."""


def run_in_batches(session: Session, images: RGB) -> npt.NDArray[np.float32]:
    """Probabilities (float32 N x K) of any number of patches but none (uint8 N x H x W x 3)."""
    size = BATCH if session.device == "cpu" else ACCELERATOR_BATCH
    return np.concatenate([session.run(images[start : start + size]) for start in range(0, len(images), size)])
