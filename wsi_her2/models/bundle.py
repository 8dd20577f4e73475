"""A model bundle: a folder with a network's weights, its graph, and everything that is known of it.

`model.safetensors` holds the weights, a check batch with the probabilities that torch computed for it, and in its
header the card. `model.onnx` and `model.int8.onnx` hold the graph for the runtimes; their sha256 stand in the
card, so that the sha256 of `model.safetensors` names the whole bundle. Reading a bundle executes nothing.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError

from wsi_her2.bounded_file import read_bounded
from wsi_her2.errors import ClassifierError, OutputError
from wsi_her2.messages import shortened, wrong_fields
from wsi_her2.models.classifier import Modality, Outputs, content_sha256
from wsi_her2.models.networks.architecture import Architecture
from wsi_her2.slides.backends import RGB

Float32 = npt.NDArray[np.float32]
Precision = Literal["fp32", "int8"]

WEIGHTS_FILE = "model.safetensors"
ONNX_FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
FORMAT = 1

_HEADER = "wsi_her2"
_NETWORK, _CHECK = "network.", "check."
_MAX_BYTES = 2**30
"""Of a file of a bundle; the networks have 0.4 to 7 million weights."""

_MAX_HEADER_BYTES = 16 * 2**20
"""Of the header of the safetensors file: names of weights, and the card. Those written here have some 50 kB."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Training(_Part):
    """What the weights were trained on.

    Attributes
    ----------
    status : {'trained', 'untrained', 'unknown'}
        Only trained weights can produce a call.
    data : str
        In words; empty unless trained.
    """

    status: Literal["trained", "untrained", "unknown"]
    data: str = ""

    @model_validator(mode="after")
    def _trained_on_something(self) -> Training:
        if self.status == "trained" and not self.data.strip():
            raise ValueError("trained weights must say on what data")
        return self


class Agreement(_Part):
    """How far a graph's probabilities are from those of torch in fp32.

    Attributes
    ----------
    images : int
        Patches that were compared, none of which the graph was made with.
    source : str
        What they are.
    same_label : float
        Share with the same most probable class.
    max_difference, mean_difference : float
        Of the probabilities.
    """

    images: int = Field(ge=1)
    source: str
    same_label: float = Field(ge=0, le=1)
    max_difference: float = Field(ge=0)
    mean_difference: float = Field(ge=0)


class Graph(_Part):
    """An ONNX file of the bundle."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=1)
    agreement: Agreement
    calibration: str = ""


class BundleCard(_Part):
    """Everything that is known of a model.

    Attributes
    ----------
    name : str
    architecture : Architecture
    classes : tuple of str
    mpp : float
        Scale of a patch, um/px.
    mpp_stated : bool
        False where nobody said it and the usual 0.5 was assumed.
    modality : {'ihc', 'he'}
    preprocessing : str
        What happens to the pixels inside the network, in words.
    training : Training
    origin : str
        Where the weights come from.
    parameters : int
        Keras' count, statistics of normalisations included.
    multiply_adds : int
        For one patch, of the network as published.
    version : str
        Of the software that wrote the bundle.
    outputs : {'classes', 'shares'}
        What the outputs are; see `wsi_her2.models.classifier.PatchClassifier`.
    confusion : tuple of tuple of float or None
        Row: true class; column: share found for it, on patches that training never saw.
    statements : dict of str to str
        More for people: what was measured of the model, by label.
    graphs : dict of str to Graph
        By precision.
    """

    format: Literal[1] = 1
    name: str = Field(min_length=1, max_length=200)
    architecture: Architecture
    classes: tuple[str, ...]
    mpp: float = Field(gt=0, lt=100)
    mpp_stated: bool
    modality: Modality
    preprocessing: str
    training: Training
    origin: str
    parameters: int = Field(ge=1)
    multiply_adds: int = Field(ge=1)
    version: str
    outputs: Outputs = "classes"
    confusion: tuple[tuple[float, ...], ...] | None = None
    statements: dict[str, str] = Field(default_factory=dict)
    graphs: dict[Precision, Graph] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _classes_fit(self) -> BundleCard:
        if len(self.classes) != self.architecture.n_classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {self.classes} for {self.architecture.n_classes} outputs")
        if self.confusion is not None:
            rows = np.asarray(self.confusion, np.float64)
            if (
                rows.shape != (len(self.classes),) * 2
                or (rows < 0).any()
                or not np.allclose(rows.sum(axis=1), 1, atol=1e-3)
            ):
                raise ValueError("confusion must have a row for each class, of shares that sum to 1")
        return self


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that was read.

    Attributes
    ----------
    path : pathlib.Path
        Of `model.safetensors`.
    sha256 : str
        Of its content, which names everything in the bundle.
    card : BundleCard
    tensors : dict of str to array
    """

    path: Path
    sha256: str
    card: BundleCard
    tensors: Mapping[str, npt.NDArray[np.generic]]

    @property
    def weights(self) -> dict[str, npt.NDArray[np.generic]]:
        """The network's weights by their names in torch."""
        return {k.removeprefix(_NETWORK): v for k, v in self.tensors.items() if k.startswith(_NETWORK)}

    @property
    def check_images(self) -> RGB:
        """Patches (uint8 N x H x W x 3) on which a runtime proves itself."""
        return self.tensors[f"{_CHECK}images"]  # type: ignore[return-value]

    def check_probabilities(self, precision: Precision) -> Float32:
        """What the check images must give (float32 N x K)."""
        return self.tensors[f"{_CHECK}{precision}"]  # type: ignore[return-value]

    def has(self, precision: Precision) -> bool:
        """Whether there is a graph of that precision."""
        return precision in self.card.graphs

    def graph(self, precision: Precision) -> bytes:
        """The ONNX file of a precision.

        Raises
        ------
        ClassifierError
            There is none, or it is not the one that the card describes.
        """
        if not self.has(precision):
            raise ClassifierError(f"{self.path.parent}: the bundle holds no graph in {precision}")
        path = self.path.parent / ONNX_FILES[precision]
        described = self.card.graphs[precision]
        content = _read(path)
        if content_sha256(content) != described.sha256:
            raise ClassifierError(
                f"{path}: not the file that the bundle was made with (its sha256 differs): copy the bundle again"
            )
        return content

    @cached_property
    def described(self) -> dict[str, object]:
        """The card for people, label by label."""
        card = self.card
        training = {
            "trained": card.training.data,
            "untrained": "nothing: the weights were never trained, so they cannot produce a call",
            "unknown": "not stated, so that no call can be produced",
        }
        described: dict[str, object] = {
            "origin": card.origin,
            "trained_on": training[card.training.status],
            "validated": False,
            "architecture": card.architecture.name,
            "parameters": card.parameters,
            "multiply_adds": card.multiply_adds,
            "preprocessing": card.preprocessing,
            "version": card.version,
            **card.statements,
        }
        if not card.mpp_stated:
            described["scale"] = "assumed: nobody stated the um/px of the training images"
        for precision, graph in card.graphs.items():
            agreed = graph.agreement
            described[f"{precision}_agreement"] = (
                f"{agreed.same_label:.1%} of {agreed.images} patches ({agreed.source}) have, in ONNX Runtime, the "
                f"label of torch in fp32; probabilities differ by {agreed.max_difference:.2g} at most"
            )
        return described


def bundle_file(path: str | Path) -> Path | None:
    """`model.safetensors` of a bundle's folder, or the file itself; None where there is neither."""
    path = Path(path)
    if path.is_dir():
        path = path / WEIGHTS_FILE
    return path if path.is_file() and path.suffix.lower() == ".safetensors" else None


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle.

    Parameters
    ----------
    path : str or pathlib.Path
        Its folder, or the safetensors file in it.

    Raises
    ------
    ClassifierError
        There is no bundle, or it is damaged.
    """
    file = bundle_file(path)
    if file is None:
        raise ClassifierError(f"{path}: no model bundle: a bundle is a folder with a {WEIGHTS_FILE}")
    content = _read(file)
    length = int.from_bytes(content[:8], "little")
    if not 8 + length <= min(len(content), _MAX_HEADER_BYTES):
        raise ClassifierError(f"{file}: damaged: its header says it has {length:,} bytes. Copy the bundle again.")
    try:
        tensors = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ClassifierError(f"{file}: damaged: {shortened(error)}. Copy the bundle again.") from error
    if _HEADER not in header:
        raise ClassifierError(
            f"{file}: holds weights but does not say of what: this is no bundle of wsi-her2. Make one with "
            "`wsi-her2 models import-keras`."
        )
    try:
        card = BundleCard.model_validate_json(header[_HEADER])
    except (ValidationError, ClassifierError) as error:
        raise ClassifierError(f"{file}: its description is wrong: {_in_short(error)}") from error
    bundle = Bundle(file, content_sha256(content), card, tensors)
    _check_tensors(bundle)
    return bundle


def write_bundle(
    folder: str | Path,
    card: BundleCard,
    weights: Mapping[str, npt.NDArray[np.generic]],
    check_images: RGB,
    check_probabilities: Mapping[Precision, Float32],
    graphs: Mapping[Precision, bytes],
) -> Bundle:
    """Write a bundle beside its place and rename it into it.

    Parameters
    ----------
    folder : str or pathlib.Path
        Must not exist.
    card : BundleCard
        With a `Graph` for each of `graphs`.
    weights : mapping of str to array
    check_images : uint8 N x H x W x 3
    check_probabilities : mapping of precision to float32 N x K
    graphs : mapping of precision to bytes
        ONNX files.

    Raises
    ------
    OutputError
    ClassifierError
        What was written could not be read again, as with weights that are no numbers. Nothing is left of it.
    """
    folder = Path(folder)
    tensors = {f"{_NETWORK}{name}": np.asarray(values, order="C") for name, values in weights.items()}
    tensors[f"{_CHECK}images"] = np.ascontiguousarray(check_images)
    tensors |= {f"{_CHECK}{precision}": np.ascontiguousarray(p) for precision, p in check_probabilities.items()}
    content = safetensors.numpy.save(tensors, {_HEADER: card.model_dump_json()})
    try:
        if folder.exists():
            raise OutputError(f"{folder}: exists already; name a new folder, or remove this one first")
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for precision, graph in graphs.items():
                (beside / ONNX_FILES[precision]).write_bytes(graph)
            (beside / WEIGHTS_FILE).write_bytes(content)
            read_bundle(beside)
            beside.chmod(0o755)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder}: the bundle cannot be written ({error.strerror or error})") from error
    return read_bundle(folder)


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, _MAX_BYTES)
    except OSError as error:
        raise ClassifierError(f"{path}: cannot be read ({error.strerror or error})") from error


def _check_tensors(bundle: Bundle) -> None:
    card, side = bundle.card, bundle.card.architecture.patch_px
    images = bundle.tensors.get(f"{_CHECK}images")
    if images is None or images.dtype != np.uint8 or images.shape[1:] != (side, side, 3) or len(images) == 0:
        raise ClassifierError(f"{bundle.path}: the check images are missing or not {side} x {side} RGB")
    for precision in {"fp32", *card.graphs}:
        expected = bundle.tensors.get(f"{_CHECK}{precision}")
        if (
            expected is None
            or expected.dtype != np.float32
            or expected.shape != (len(images), len(card.classes))
            or not np.isfinite(expected).all()
        ):
            raise ClassifierError(f"{bundle.path}: the check probabilities in {precision} are missing or wrong")
    for name, values in bundle.weights.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ClassifierError(f"{bundle.path}: the weights {name} hold values that are no numbers")


def _in_short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return wrong_fields(error)
    return shortened(error)
