"""From a network in torch to a bundle: its graph, its int8 graph, and what was measured of both."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsi_her2.errors import ClassifierError
from wsi_her2.models.bundle import (
    Agreement,
    Bundle,
    BundleCard,
    Float32,
    Graph,
    Precision,
    Training,
    write_bundle,
)
from wsi_her2.models.calibration import CalibrationPatches
from wsi_her2.models.classifier import Modality, Outputs, content_sha256
from wsi_her2.models.extras import need
from wsi_her2.models.networks.architecture import Architecture
from wsi_her2.models.onnx_export import traceless_onnx
from wsi_her2.models.runtimes.onnx_session import OnnxSession
from wsi_her2.models.runtimes.session import run_in_batches
from wsi_her2.models.telemetry import forbid_telemetry
from wsi_her2.slides.backends import RGB

if TYPE_CHECKING:
    from wsi_her2.models.networks.ather2 import Ather2
    from wsi_her2.models.networks.pruneff import PrunEff

CHECK_IMAGES = 4

_BATCH = 8
_MAX_DIFFERENCE = 1e-4

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """What a network's weights do not say of themselves.

    Attributes
    ----------
    name : str
    classes : tuple of str
    mpp : float
        Scale of a patch, um/px.
    mpp_stated : bool
    modality : {'ihc', 'he'}
    training : Training
    origin : str
    version : str
        Of the software.
    outputs : {'classes', 'shares'}
    confusion : tuple of tuple of float or None
    statements : dict of str to str
        See `wsi_her2.models.bundle.BundleCard`.
    """

    name: str
    classes: tuple[str, ...]
    mpp: float
    mpp_stated: bool
    modality: Modality
    training: Training
    origin: str
    version: str
    outputs: Outputs = "classes"
    confusion: tuple[tuple[float, ...], ...] | None = None
    statements: dict[str, str] = field(default_factory=dict)


def pack(
    folder: str | Path,
    network: PrunEff | Ather2,
    architecture: Architecture,
    identity: Identity,
    patches: CalibrationPatches,
    *,
    int8: bool = True,
) -> Bundle:
    """Write a network as a bundle.

    Parameters
    ----------
    folder : str or pathlib.Path
        To make; must not exist.
    network : PrunEff or Ather2
    architecture : Architecture
        Of the network.
    identity : Identity
    patches : CalibrationPatches
        Of the network's patch size.
    int8 : bool
        Whether to make an int8 graph too.

    Raises
    ------
    ClassifierError
        The network gives no numbers, or the exported graph does not give the network's probabilities.
    OutputError, MissingExtra
    """
    from wsi_her2.models.networks.deployed import count_multiply_adds, count_parameters

    network = network.eval()
    expected = torch_probabilities(network, architecture, patches.held_out)
    if not np.isfinite(expected).all():
        raise ClassifierError(
            f"{identity.name}: the network's probabilities are no numbers: its weights are too large, as after a "
            "training that diverged"
        )
    graphs: dict[Precision, bytes] = {"fp32": onnx_graph(network, architecture)}
    if int8:
        graphs["int8"] = quantised(graphs["fp32"], patches.calibration)
    check_images = patches.held_out[:CHECK_IMAGES]
    check: dict[Precision, Float32] = {"fp32": expected[:CHECK_IMAGES]}
    described: dict[Precision, Graph] = {}
    for precision, graph in graphs.items():
        session = OnnxSession(graph)
        described[precision] = _describe(graph, session, expected, patches, calibrated=precision != "fp32")
        worst = described[precision].agreement.max_difference
        if precision == "fp32" and worst > _MAX_DIFFERENCE:
            raise ClassifierError(
                f"the graph's probabilities differ from torch's by {worst:.2g} (limit "
                f"{_MAX_DIFFERENCE:g}): the export to ONNX is not to be trusted with this version of torch"
            )
        if precision != "fp32":
            check[precision] = session.run(check_images)
    card = BundleCard(
        name=identity.name,
        architecture=architecture,
        classes=identity.classes,
        mpp=identity.mpp,
        mpp_stated=identity.mpp_stated,
        modality=identity.modality,
        preprocessing=architecture.preprocessing,
        training=identity.training,
        origin=identity.origin,
        parameters=count_parameters(network),
        multiply_adds=count_multiply_adds(network, architecture.patch_px),
        version=identity.version,
        outputs=identity.outputs,
        confusion=identity.confusion,
        statements=identity.statements,
        graphs=described,
    )
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return write_bundle(folder, card, weights, check_images, check, graphs)


def requantise(bundle: Bundle, folder: str | Path, patches: CalibrationPatches) -> Bundle:
    """A copy of a bundle with an int8 graph that was made with other patches. Needs no torch.

    Raises
    ------
    ClassifierError, OutputError, MissingExtra
    """
    fp32 = bundle.graph("fp32")
    graph = quantised(fp32, patches.calibration)
    session = OnnxSession(graph)
    expected = run_in_batches(OnnxSession(fp32), patches.held_out)
    described = _describe(graph, session, expected, patches, calibrated=True)
    card = bundle.card.model_copy(update={"graphs": {**bundle.card.graphs, "int8": described}})
    check: dict[Precision, Float32] = {
        "fp32": bundle.check_probabilities("fp32"),
        "int8": session.run(bundle.check_images),
    }
    return write_bundle(folder, card, bundle.weights, bundle.check_images, check, {"fp32": fp32, "int8": graph})


def _describe(
    graph: bytes, session: OnnxSession, expected: Float32, patches: CalibrationPatches, *, calibrated: bool
) -> Graph:
    """A graph as the card has it, with its agreement measured on the patches held out."""
    return Graph(
        sha256=content_sha256(graph),
        size_bytes=len(graph),
        agreement=compare(run_in_batches(session, patches.held_out), expected, patches.source),
        calibration=f"{len(patches.calibration)} patches ({patches.source})" if calibrated else "",
    )


def restate(bundle: Bundle, folder: str | Path, statements: Mapping[str, str]) -> Bundle:
    """A copy of a bundle whose card says more, such as what was measured of the model afterwards.

    Raises
    ------
    OutputError
    """
    graphs = {precision: bundle.graph(precision) for precision in bundle.card.graphs}
    check = {precision: bundle.check_probabilities(precision) for precision in ("fp32", *graphs)}
    card = bundle.card.model_copy(update={"statements": {**bundle.card.statements, **statements}})
    return write_bundle(folder, card, bundle.weights, bundle.check_images, check, graphs)


def torch_probabilities(network: PrunEff | Ather2, architecture: Architecture, images: RGB) -> Float32:
    """What the network as published gives for patches: the reference for every runtime (float32 N x K)."""
    torch = need("torch", "Running the reference")
    from wsi_her2.models.networks.deployed import Deployed

    deployed = Deployed(network, architecture.sigmoid).eval()
    with torch.inference_mode():
        parts = [deployed(torch.from_numpy(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]
    return np.concatenate([part.numpy() for part in parts])


def compare(found: Float32, expected: Float32, source: str) -> Agreement:
    """How far probabilities are from those expected."""
    difference = np.abs(found - expected)
    return Agreement(
        images=len(found),
        source=source,
        same_label=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
    )


def onnx_graph(network: PrunEff | Ather2, architecture: Architecture) -> bytes:
    """The network as an ONNX file: raw RGB in (uint8 N x H x W x 3), probabilities out (float32 N x K).

    Raises
    ------
    MissingExtra
    """
    torch = need("torch", "Exporting to ONNX")
    need("onnxscript", "Exporting to ONNX")
    from wsi_her2.models.networks.deployed import Deployed, for_inference

    side = architecture.patch_px
    deployed = Deployed(for_inference(network), architecture.sigmoid).eval()
    model = traceless_onnx(
        deployed,
        {"images": torch.zeros((2, side, side, 3), dtype=torch.uint8)},
        "probabilities",
        {"images": {0: torch.export.Dim("n")}},
    )
    return bytes(model.SerializeToString(deterministic=True))


def quantised(graph: bytes, calibration: RGB) -> bytes:
    """An int8 graph from a graph in fp32, by static quantisation of its convolutions.

    Weights are signed with a scale for each channel, activations unsigned with a scale for each layer, from the
    range that they span on the calibration patches. The rest stays in fp32: dense layers and attention are small,
    and lose most.

    Parameters
    ----------
    graph : bytes
        ONNX.
    calibration : uint8 N x H x W x 3

    Raises
    ------
    MissingExtra
    """
    need("onnx", "Quantising")
    forbid_telemetry()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Patches(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[RGB] = iter(
                calibration[i : i + _BATCH] for i in range(0, len(calibration), _BATCH)
            )

        def get_next(self) -> dict[str, RGB] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch}

    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, made = (Path(folder) / name for name in ("fp32.onnx", "prepared.onnx", "int8.onnx"))
        plain.write_bytes(graph)
        try:
            # Its hints go to the root logger and are about steps that were taken here.
            root.setLevel(logging.ERROR)
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(made),
                Patches(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=["Conv"],
            )
        finally:
            root.setLevel(level)
        return made.read_bytes()
