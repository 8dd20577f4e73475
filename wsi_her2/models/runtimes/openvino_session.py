"""OpenVINO, on the CPU."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_her2.errors import ClassifierError
from wsi_her2.models.extras import need
from wsi_her2.models.onnx_operators import refuse_unknown_operators
from wsi_her2.models.runtimes.session import THREADS, RuntimeName
from wsi_her2.slides.backends import RGB


class OpenVinoSession:
    """A graph in OpenVINO.

    Each thread compiles the graph once for itself: a compiled graph of one thread serves its callers one after
    the other.

    Parameters
    ----------
    graph : bytes
        An ONNX file.
    threads : int

    Raises
    ------
    ClassifierError
        The graph does not load, or has operators that these networks do not need.
    MissingExtra
    """

    runtime: RuntimeName = "openvino"
    device = "cpu"

    def __init__(self, graph: bytes, threads: int = THREADS) -> None:
        refuse_unknown_operators(graph)
        openvino = need("openvino", "The runtime openvino")
        self._threads = threads
        self._of_thread = threading.local()
        try:
            self._core = openvino.Core()
            self._model = self._core.read_model(graph, b"")
            self._request()
        except Exception as error:  # its errors share no other base class
            raise ClassifierError(f"OpenVINO cannot load the graph: {str(error)[:300]}") from error

    def run(self, images: RGB) -> npt.NDArray[np.float32]:
        """Probabilities (float32 N x K) of patches (uint8 N x H x W x 3).

        Raises
        ------
        ClassifierError
            The graph does not run on them.
        """
        try:
            return np.array(self._request().infer([images])[0], np.float32)
        except Exception as error:
            raise ClassifierError(f"OpenVINO cannot run the graph: {str(error)[:300]}") from error

    def _request(self) -> Any:
        if not hasattr(self._of_thread, "request"):
            settings = {
                "INFERENCE_NUM_THREADS": self._threads,
                "NUM_STREAMS": 1,
                # Where the processor offers bfloat16 it would be taken, and a class changes now and then.
                "INFERENCE_PRECISION_HINT": "f32",
                # Every process would pin its thread to the same first core.
                "ENABLE_CPU_PINNING": False,
            }
            self._of_thread.request = self._core.compile_model(self._model, "CPU", settings).create_infer_request()
        return self._of_thread.request
