"""Whole-model files that Keras wrote (HDF5): layers, their settings and their weights, and nothing executed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_her2.errors import ClassifierError
from wsi_her2.messages import shortened
from wsi_her2.models.extras import need

_MAX_BYTES = 2**28
"""Of all weights, as float32, and of one chunk of them. The networks have 1.4 and 6 MB, EfficientNetV2-B0 29."""

_MAX_OBJECTS = 20_000
"""Groups and arrays of weights. EfficientNetV2-B0 with its optimizer has some 3,000."""

_MAX_DEPTH = 64
"""Of names within names; Keras nests five."""

_MAX_CONFIG_BYTES = 4 * 2**20
"""Of the description of the layers; that of EfficientNetV2-B0 has 150 kB."""
_FLOAT_BYTES = 4
_WEIGHTS, _CONFIG = "model_weights", "model_config"


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """A layer as it stands in the file.

    Attributes
    ----------
    name : str
    kind : str
        Keras' class, such as 'Conv2D'; '' where the file holds weights only.
    settings : dict of str to object
        Its configuration; empty where the file holds weights only.
    weights : dict of str to array
        Such as 'kernel' and 'bias', in Keras' order of axes.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    weights: dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class KerasFile:
    """The content of a file.

    Attributes
    ----------
    path : pathlib.Path
    layers : tuple of KerasLayer
        In the model's order, where the file tells it.
    described : bool
        Whether the file holds the model and not its weights only.
    """

    path: Path
    layers: tuple[KerasLayer, ...]
    described: bool

    def layer(self, name: str) -> KerasLayer | None:
        """A layer by name."""
        return next((layer for layer in self.layers if layer.name == name), None)

    def of_kind(self, *kinds: str) -> list[KerasLayer]:
        """The layers of some of Keras' classes, in order."""
        return [layer for layer in self.layers if layer.kind in kinds]

    @property
    def input_px(self) -> int | None:
        """Side of the square input; None where the file leaves it open.

        Raises
        ------
        ClassifierError
            The input is no square RGB image.
        """
        for layer in self.of_kind("InputLayer"):
            shape = layer.settings.get("batch_input_shape") or layer.settings.get("batch_shape")
            if not isinstance(shape, list):
                continue
            if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
                raise ClassifierError(f"{self.path}: the input {shape} is no square RGB image")
            side = shape[1]
            if side is not None and (not isinstance(side, int) or side < 1):
                raise ClassifierError(f"{self.path}: the input {shape} is no square RGB image")
            return side
        return None


def read_keras_file(path: str | Path) -> KerasFile:
    """Read a model or its weights from HDF5.

    Only numbers and text are taken from the file. Code that Keras stores in it, as for Lambda layers, is never
    run, and links to other files are not followed.

    Parameters
    ----------
    path : str or pathlib.Path

    Raises
    ------
    ClassifierError
        The file is missing, no HDF5, damaged, too large, or holds no weights of Keras.
    MissingExtra
    """
    path = Path(path)
    h5py = need("h5py", "Reading a Keras file")
    if not path.is_file():
        raise ClassifierError(f"{path}: there is no such file")
    try:
        with h5py.File(path, "r") as file:
            group = _weights_group(h5py, file, path)
            weights = _read_weights(h5py, group, path)
            described = _read_config(file.attrs.get(_CONFIG))
            order = _layer_order(group, weights)
    except ClassifierError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ClassifierError(
            f"{path}: not a Keras file in HDF5, or a damaged one ({shortened(error)}). A model in the "
            "newer `.keras` format is saved again with `model.save('model.h5')`."
        ) from error
    if not weights:
        raise ClassifierError(f"{path}: holds no weights of Keras layers")
    if described is None:
        layers = [KerasLayer(name, "", {}, weights[name]) for name in order]
    else:
        layers = [
            KerasLayer(settings["name"], kind, settings, weights.pop(settings["name"], {}))
            for kind, settings in described
        ]
        # Weights that the description does not mention must not get lost unseen.
        layers += [KerasLayer(name, "", {}, rest) for name, rest in weights.items()]
    return KerasFile(path, tuple(layers), described is not None)


def _weights_group(h5py: Any, file: Any, path: Path) -> Any:
    """The group of the weights: the file itself where it holds nothing else."""
    if _WEIGHTS not in file:
        return file
    if isinstance(file.get(_WEIGHTS, getlink=True), h5py.ExternalLink):
        raise ClassifierError(f"{path}: the weights lie in another file, which is not read")
    group = file[_WEIGHTS]
    if not isinstance(group, h5py.Group):
        raise ClassifierError(f"{path}: {_WEIGHTS} is no group of layers")
    return group


def _read_weights(h5py: Any, group: Any, path: Path) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Arrays by layer and by name; the layer is the group that holds the array."""
    weights: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    total = count = 0

    def visit(name: str, item: Any) -> None:
        nonlocal total, count
        count += 1
        if count > _MAX_OBJECTS or name.count("/") > _MAX_DEPTH:
            raise ClassifierError(
                f"{path}: holds more than {_MAX_OBJECTS:,} groups and arrays, or {_MAX_DEPTH} within each other: "
                "none of these networks does"
            )
        if not isinstance(item, h5py.Dataset) or name.startswith("optimizer_weights"):
            return
        if item.external or item.is_virtual:
            raise ClassifierError(f"{path}: the weights {name} lie in another file, which is not read")
        parts = name.split("/")
        if len(parts) < 2 or item.dtype.kind not in "fiu" or item.shape is None:
            return
        # As float32, whatever the file has: a byte becomes four. A chunk is unpacked whole for one of its values.
        total += max(item.size * _FLOAT_BYTES, item.nbytes)
        if max(total, math.prod(item.chunks or ()) * item.dtype.itemsize) > _MAX_BYTES:
            raise ClassifierError(f"{path}: holds more than {_MAX_BYTES:,} bytes of weights")
        weights.setdefault(parts[-2], {})[parts[-1].removesuffix(":0")] = np.asarray(item, np.float32)

    # Visits what the file itself holds, each thing once; soft and external links are not followed.
    group.visititems(visit)
    return weights


def _read_config(text: object) -> list[tuple[str, dict[str, Any]]] | None:
    if text is None:
        return None
    content = text.decode() if isinstance(text, bytes) else str(text)
    if len(content) > _MAX_CONFIG_BYTES:
        raise ValueError(f"its description has {len(content):,} bytes")
    return list(_flattened(json.loads(content)))


def _flattened(model: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Class and settings of the layers of a model and of the models within it."""
    for item in model["config"]["layers"]:
        settings = item["config"]
        if not isinstance(settings, dict):
            raise TypeError("the settings of a layer are no mapping")
        if "layers" in settings:
            yield from _flattened(item)
        elif not isinstance(settings.get("name"), str):
            raise TypeError("a layer has no name")
        else:
            yield str(item["class_name"]), settings


def _layer_order(group: Any, weights: dict[str, Any]) -> list[str]:
    named = [
        name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs.get("layer_names", ())
    ]
    known = [name for name in named if name in weights]
    return known + [name for name in weights if name not in known]
