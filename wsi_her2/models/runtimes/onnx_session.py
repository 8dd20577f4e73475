"""ONNX Runtime, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_her2.errors import ClassifierError
from wsi_her2.models.onnx_operators import refuse_unknown_operators
from wsi_her2.models.runtimes.session import THREADS, RuntimeName
from wsi_her2.models.telemetry import forbid_telemetry
from wsi_her2.slides.backends import RGB


def opened_graph(graph: bytes, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU, of a graph that is trusted; see `OnnxSession` for others."""
    forbid_telemetry()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class OnnxSession:
    """A graph in ONNX Runtime.

    Parameters
    ----------
    graph : bytes
        An ONNX file. Given as bytes so that it cannot refer to other files.
    threads : int

    Raises
    ------
    ClassifierError
        The graph does not load, or has operators that these networks do not need.
    """

    runtime: RuntimeName = "onnx"
    device = "cpu"

    def __init__(self, graph: bytes, threads: int = THREADS) -> None:
        refuse_unknown_operators(graph)
        try:
            self._session = opened_graph(graph, threads)
        except Exception as error:  # its errors share no other base class
            raise ClassifierError(f"ONNX Runtime cannot load the graph: {str(error)[:300]}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ClassifierError(
                f"the graph has {len(inputs)} inputs and {len(outputs)} outputs; it must have one of each"
            )
        self._input = inputs[0].name

    def run(self, images: RGB) -> npt.NDArray[np.float32]:
        """Probabilities (float32 N x K) of patches (uint8 N x H x W x 3).

        Raises
        ------
        ClassifierError
            The graph does not run on them.
        """
        try:
            return np.asarray(self._session.run(None, {self._input: images})[0], np.float32)
        except Exception as error:
            raise ClassifierError(f"ONNX Runtime cannot run the graph: {str(error)[:300]}") from error
