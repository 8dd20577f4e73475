"""A torch module as an ONNX model that says nothing of the machine on which it was made."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wsi_her2.models.extras import need

if TYPE_CHECKING:
    import onnx

_OPSET = 18


def traceless_onnx(
    module: Any, examples: Mapping[str, Any], output: str, dynamic: Mapping[str, Mapping[int, Any]]
) -> onnx.ModelProto:
    """Export a module.

    Parameters
    ----------
    module : torch.nn.Module
        Ready for inference.
    examples : dict of str to torch.Tensor
        Its inputs, in order, by the names that they shall have.
    output : str
        Name of its output.
    dynamic : dict of str to dict of int to torch.export.Dim
        Axes of the inputs whose length may differ.

    Raises
    ------
    MissingExtra
    """
    torch = need("torch", "Exporting to ONNX")
    need("onnxscript", "Exporting to ONNX")
    quiet = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in quiet]
    with warnings.catch_warnings():
        # The exporter warns of its own deprecated parts, which no caller can do anything about.
        warnings.simplefilter("ignore")
        try:
            for logger in quiet:
                logger.setLevel(logging.ERROR)
            program = torch.onnx.export(
                module,
                tuple(examples.values()),
                input_names=list(examples),
                output_names=[output],
                dynamo=True,
                opset_version=_OPSET,
                dynamic_shapes=dict(dynamic),
                verbose=False,
            )
        finally:
            for logger, level in zip(quiet, levels, strict=True):
                logger.setLevel(level)
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the names of files and lines of the machine on which it was made."""
    parts = (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output)
    for part in (*parts, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model
