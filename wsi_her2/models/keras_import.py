"""From a Keras file to one of the networks: what it is, whether every layer fits, and its weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from wsi_her2.errors import ClassifierError
from wsi_her2.models.keras_file import KerasFile, KerasLayer
from wsi_her2.models.networks.architecture import CUTS, PATCH_PX, Architecture, Family

if TYPE_CHECKING:
    from torch import nn

Float32 = npt.NDArray[np.float32]
Kind = Literal["convolution", "depthwise convolution", "dense layer", "normalisation"]

_SHOWN_DIFFERENCES = 20

_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_TRANSPOSED: dict[tuple[Kind, str], tuple[int, ...]] = {
    # Keras keeps kernels as height, width, in, out; torch as out, in, height, width.
    ("convolution", "kernel"): (3, 2, 0, 1),
    ("depthwise convolution", "depthwise_kernel"): (2, 3, 0, 1),
    ("dense layer", "kernel"): (1, 0),
}

_BLOCKS = {
    "ConvBnAct": {"project_conv": "conv", "project_bn": "bn1"},
    "EdgeResidual": {
        "expand_conv": "conv_exp",
        "expand_bn": "bn1",
        "project_conv": "conv_pwl",
        "project_bn": "bn2",
    },
    "InvertedResidual": {
        "expand_conv": "conv_pw",
        "expand_bn": "bn1",
        "dwconv2": "conv_dw",
        "bn": "bn2",
        "se_reduce": "se.conv_reduce",
        "se_expand": "se.conv_expand",
        "project_conv": "conv_pwl",
        "project_bn": "bn3",
    },
}
"""Layers of a block in Keras and in timm, by the kind of block."""

_ATHER2 = {
    "stem": "stem",
    "left1": "left1",
    "cbam_mlp1": "cbam.squeeze",
    "cbam_mlp2": "cbam.expand",
    "cbam_spatial": "cbam.spatial",
    "left2": "left2",
    "right1a": "right1a",
    "right1b": "right1b",
    "right_bn": "right_norm",
    "right2": "right2",
    "hidden": "hidden",
    "out": "out",
}
_LEAKY = ("stem", "left1", "left2", "right1a", "right1b", "right2", "hidden")
_POOLS = Counter([("2", "2"), ("3", "2"), ("3", "2"), ("3", "1"), ("3", "2"), ("3", "3")])
"""Side and stride."""
_BODY_OF_PRUNEFF = re.compile(r"stem_|block\d[a-z]_")


@dataclass(frozen=True)
class _Counterpart:
    """A layer of the network and what it is called in the file; `found` is None where nothing fits."""

    module: str
    expected: str
    kind: Kind
    weights: dict[str, tuple[str, tuple[int, ...]]]
    settings: dict[str, Any]
    found: KerasLayer | None


def architecture_of(file: KerasFile, family: Family | None = None) -> Architecture:
    """What network a file holds.

    Parameters
    ----------
    file : KerasFile
    family : {'pruneff', 'ather2'}, optional
        What it is said to be; by default what its layers look like.

    Raises
    ------
    ClassifierError
        Neither network, or sizes that neither can have.
    """
    looks = _family_of(file)
    if (family or looks) is None:
        named = ", ".join(layer.name for layer in file.layers[:6])
        raise ClassifierError(
            f"{file.path}: neither PrunEff nor ATHER2: it has neither the blocks of EfficientNetV2-B0 nor "
            f"ATHER2's convolutions. Its layers begin with {named}."
        )
    chosen: Family = family or looks  # type: ignore[assignment]
    units = _last_units(file)
    shape: dict[str, Any] = {"n_classes": max(units, 2), "sigmoid": units == 1}
    shape["patch_px"] = file.input_px or PATCH_PX[chosen]
    if chosen == "pruneff":
        cuts = [cut for cut in CUTS if any(layer.name.startswith(f"block{cut}a_") for layer in file.layers)]
        return Architecture("pruneff", cut=max(cuts, default=4), **shape)
    return Architecture("ather2", cbam_reduction=_cbam_reduction(file), **shape)


def weights_from_keras(file: KerasFile, architecture: Architecture, network: nn.Module) -> dict[str, Float32]:
    """The weights of a file under the names and in the shapes of the network in torch.

    Parameters
    ----------
    file : KerasFile
    architecture : Architecture
    network : torch.nn.Module
        Of that architecture; it is not changed.

    Returns
    -------
    dict of str to float32 array
        All that `load_state_dict` wants but the counters of batches.

    Raises
    ------
    ClassifierError
        Naming each layer that is missing, unexpected, of another shape or otherwise set.
    """
    counterparts = list(_counterparts(file, architecture, network))
    differences = [line for part in counterparts for line in _differences(part)]
    known = {part.found.name for part in counterparts if part.found is not None}
    differences += [
        f"{layer.name}: is not part of {architecture.name}"
        for layer in file.layers
        if layer.weights and layer.name not in known and layer.kind != "Normalization"
    ]
    if file.described:
        differences += _settings_of_the_rest(file, architecture)
    _refuse(file, differences, f"{architecture.name} as published")
    return _state(counterparts)


def body_weights_from_keras(file: KerasFile, network: nn.Module) -> dict[str, Float32]:
    """The body of a PrunEff from a file of EfficientNetV2-B0, as `weights_from_keras` has it; the rest is ignored.

    Raises
    ------
    ClassifierError
        Naming each layer of the body that is missing or of another shape.
    """
    counterparts = []
    for name, module_name in _pruneff_layers(network).items():
        if _BODY_OF_PRUNEFF.match(name):
            kind, weights, _ = _described(network.get_submodule(module_name))
            found = _named_as_in_keras_2(file.layer(name), kind)
            counterparts.append(_Counterpart(module_name, name, kind, weights, {}, found))
    _refuse(file, [line for part in counterparts for line in _differences(part)], "EfficientNetV2-B0")
    return _state(counterparts)


def _refuse(file: KerasFile, differences: list[str], wanted: str) -> None:
    if differences:
        more = len(differences) - _SHOWN_DIFFERENCES
        lines = differences[:_SHOWN_DIFFERENCES] + ([f"and {more} more"] if more > 0 else [])
        raise ClassifierError(f"{file.path}: not {wanted}:\n  " + "\n  ".join(lines))


def _state(counterparts: list[_Counterpart]) -> dict[str, Float32]:
    state = {}
    for part in counterparts:
        for variable, (name, _) in part.weights.items():
            values = part.found.weights[variable]  # type: ignore[union-attr]
            axes = _TRANSPOSED.get((part.kind, variable))
            state[f"{part.module}.{name}"] = np.ascontiguousarray(values.transpose(axes) if axes else values)
    return state


def were_trained(state: Mapping[str, Float32]) -> bool:
    """Whether weights can have been trained: training moves the statistics of some normalisation off 0 and 1."""
    means = [values for name, values in state.items() if name.endswith("running_mean")]
    variances = [values for name, values in state.items() if name.endswith("running_var")]
    return any(values.any() for values in means) or any((values != 1).any() for values in variances)


def _family_of(file: KerasFile) -> Family | None:
    if any(layer.name.startswith("block1a_project_conv") for layer in file.layers):
        return "pruneff"
    kernels = {layer.weights["kernel"].shape for layer in file.layers if "kernel" in layer.weights}
    return "ather2" if {(5, 5, 64, 128), (3, 3, 16, 64)} & kernels else None


def _last_units(file: KerasFile) -> int:
    dense = [layer.weights["kernel"].shape for layer in file.layers if _kind_of(layer) == "dense layer"]
    # The attention's dense layers work on 64 channels; the head's last one on the units of the hidden layer.
    last = [shape[1] for shape in dense if shape[0] in (1024, 128)] or [shape[1] for shape in dense[-1:]]
    if not last:
        raise ClassifierError(f"{file.path}: has no dense layer, so no classes")
    return int(last[-1])


def _cbam_reduction(file: KerasFile) -> int:
    squeezed = [
        layer.weights["kernel"].shape[1]
        for layer in file.layers
        if _kind_of(layer) == "dense layer" and layer.weights["kernel"].shape[0] == 64
    ]
    return 64 // squeezed[0] if squeezed and squeezed[0] else 0


def _kind_of(layer: KerasLayer) -> Kind | None:
    if "depthwise_kernel" in layer.weights:
        return "depthwise convolution"
    if "moving_variance" in layer.weights:
        return "normalisation"
    if "kernel" in layer.weights:
        return {4: "convolution", 2: "dense layer"}.get(layer.weights["kernel"].ndim)  # type: ignore[return-value]
    return None


def _counterparts(file: KerasFile, architecture: Architecture, network: nn.Module) -> Iterator[_Counterpart]:
    names = _pruneff_layers(network) if architecture.family == "pruneff" else _ather2_layers(architecture)
    free = [
        layer
        for layer in file.layers
        if layer.weights and layer.name not in names and not _BODY_OF_PRUNEFF.match(layer.name)
    ]
    for expected, module_name in names.items():
        kind, weights, settings = _described(network.get_submodule(module_name))
        settings |= _own_settings(expected, module_name, architecture)
        found = _named_as_in_keras_2(file.layer(expected), kind)
        if found is None and not _BODY_OF_PRUNEFF.match(expected):
            # Keras numbers layers that were given no name, so that only their place and shape tell them.
            found = _like(free, kind, weights)
            if found is not None:
                free.remove(found)
        yield _Counterpart(module_name, expected, kind, weights, settings, found)


def _named_as_in_keras_2(layer: KerasLayer | None, kind: Kind) -> KerasLayer | None:
    """Keras 3 calls the kernel of a depthwise convolution 'kernel', as that of any other."""
    if layer is None or kind != "depthwise convolution" or "kernel" not in layer.weights:
        return layer
    renamed = {"depthwise_kernel" if name == "kernel" else name: v for name, v in layer.weights.items()}
    return replace(layer, weights=renamed)


def _like(
    free: list[KerasLayer], kind: Kind, weights: dict[str, tuple[str, tuple[int, ...]]]
) -> KerasLayer | None:
    """The layer of that shape; or else the first one of that kind, whose shape is then what differs."""
    alike = [layer for layer in free if _kind_of(layer) == kind]
    for layer in alike:
        if all(name in layer.weights and layer.weights[name].shape == weights[name][1] for name in weights):
            return layer
    return alike[0] if alike else None


def _pruneff_layers(network: nn.Module) -> dict[str, str]:
    layers = {"stem_conv": "stem", "stem_bn": "stem_norm"}
    for stage_number, stage in enumerate(network.blocks):  # type: ignore[arg-type]
        for block_number, block in enumerate(stage):
            prefix = f"block{stage_number + 1}{'abcdefghijklmnop'[block_number]}_"
            for keras, timm in _BLOCKS[type(block).__name__].items():
                layers[prefix + keras] = f"blocks.{stage_number}.{block_number}.{timm}"
    return layers | {"neck": "neck", "neck_norm": "neck_norm", "hidden": "hidden", "out": "out"}


def _ather2_layers(architecture: Architecture) -> dict[str, str]:
    if architecture.cbam_reduction:
        return _ATHER2
    return {keras: module for keras, module in _ATHER2.items() if not keras.startswith("cbam")}


def _described(module: nn.Module) -> tuple[Kind, dict[str, tuple[str, tuple[int, ...]]], dict[str, Any]]:
    """What a layer of torch is in Keras: its kind, its weights (name in torch, shape in Keras), its settings."""
    from torch import nn

    if isinstance(module, nn.Conv2d):
        out, inner, height, width = module.weight.shape
        weights: dict[str, tuple[str, tuple[int, ...]]]
        if module.groups > 1:
            kind: Kind = "depthwise convolution"
            weights = {"depthwise_kernel": ("weight", (height, width, out, 1))}
        else:
            kind, weights = "convolution", {"kernel": ("weight", (height, width, inner, out))}
        if module.bias is not None:
            weights["bias"] = ("bias", (out,))
        return kind, weights, {"strides": module.stride[0], "dilation_rate": 1, "padding": "same"}
    if isinstance(module, nn.Linear):
        out, inner = module.weight.shape
        return "dense layer", {"kernel": ("weight", (inner, out)), "bias": ("bias", (out,))}, {}
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        channels = (module.num_features,)
        return "normalisation", {keras: (t, channels) for keras, t in _NORM.items()}, {"epsilon": module.eps}
    raise TypeError(f"{type(module).__name__} has no counterpart in Keras")


def _own_settings(expected: str, module_name: str, architecture: Architecture) -> dict[str, Any]:
    """Settings that a layer of torch does not show: its activation, which is a step of its own there."""
    if module_name == "neck":
        return {"padding": "valid", "activation": "linear"}
    if module_name == "out":
        return {"activation": "sigmoid" if architecture.sigmoid else "softmax"}
    if architecture.family == "ather2":
        activations = {"cbam_mlp1": "relu", "cbam_mlp2": "linear", "cbam_spatial": "sigmoid", "right_bn": None}
        return {"activation": activations.get(expected, "LeakyReLU 0.001")}
    if module_name == "hidden":
        return {"activation": "relu"}
    if expected.endswith("bn") or module_name == "neck_norm":
        return {}
    return {"activation": {"se_reduce": "swish", "se_expand": "sigmoid"}.get(expected.split("_", 1)[-1], "linear")}


def _differences(part: _Counterpart) -> Iterator[str]:
    layer = part.found
    if layer is None:
        yield f"{part.expected}: the {part.kind} is missing"
        return
    name = layer.name if layer.name == part.expected else f"{layer.name} (as {part.expected})"
    for variable, (_, shape) in part.weights.items():
        if variable not in layer.weights:
            yield f"{name}: has no {variable}"
        elif layer.weights[variable].shape != shape:
            yield f"{name}: {variable} of shape {layer.weights[variable].shape}, not {shape}"
        elif not np.isfinite(layer.weights[variable]).all():
            yield f"{name}: {variable} holds values that are no numbers"
    for variable in layer.weights.keys() - part.weights.keys():
        yield f"{name}: has a {variable}, which it should not"
    if not layer.settings:
        return
    for setting, wanted in part.settings.items():
        found = _setting(layer, setting)
        if setting == "activation" and wanted is not None and str(wanted).startswith("LeakyReLU"):
            # A layer of its own may follow; those are looked at together.
            if found not in (wanted, "linear"):
                yield f"{name}: activation {found}, not {wanted}"
        elif setting == "epsilon":
            if not abs(_number(found) - wanted) <= 1e-7:
                yield f"{name}: epsilon {found}, not {wanted}"
        elif wanted is not None and found != wanted:
            yield f"{name}: {setting} {found}, not {wanted}"


def _setting(layer: KerasLayer, setting: str) -> Any:
    value = layer.settings.get(setting)
    if setting in ("strides", "dilation_rate", "pool_size"):
        return value[0] if isinstance(value, list) and value and value.count(value[0]) == len(value) else value
    if setting == "activation":
        return _activation(value)
    return value


def _number(value: Any) -> float:
    """A setting as a number; NaN, which equals nothing, where it is none."""
    return float(value) if isinstance(value, int | float) else float("nan")


def _activation(value: Any) -> str:
    if isinstance(value, dict):
        settings = value.get("config", {})
        if value.get("class_name") == "LeakyReLU" and isinstance(settings, dict):
            return _leaky(settings)
        value = settings if isinstance(settings, str) else value.get("class_name")
    return {"silu": "swish", "None": "linear"}.get(str(value), str(value))


def _leaky(settings: dict[str, Any]) -> str:
    slope = settings.get("alpha", settings.get("negative_slope", 0.3))
    return f"LeakyReLU {_number(slope):.4g}"


def _settings_of_the_rest(file: KerasFile, architecture: Architecture) -> list[str]:
    """Differences in layers that have no weights."""
    return _pruneff_rest(file) if architecture.family == "pruneff" else _ather2_rest(file)


def _pruneff_rest(file: KerasFile) -> list[str]:
    differences = [
        f"{layer.name}: activation {_setting(layer, 'activation')}, not swish"
        for layer in file.of_kind("Activation")
        if _BODY_OF_PRUNEFF.match(layer.name) and _setting(layer, "activation") != "swish"
    ]
    scaled = [layer.settings for layer in file.of_kind("Rescaling")]
    if len(scaled) != 1 or not _is_scaling(scaled[0], 1 / 255, 0):
        differences.append("Rescaling: the model does not divide its input by 255 itself, as Keras' own does")
    normalised = [layer.settings for layer in file.of_kind("Normalization")]
    if len(normalised) != 1 or not (
        _are_numbers(normalised[0].get("mean"), (0.485, 0.456, 0.406))
        and _are_numbers(normalised[0].get("variance"), (0.229**2, 0.224**2, 0.225**2))
        and not normalised[0].get("invert")
    ):
        differences.append("Normalization: the model does not centre its input on ImageNet's mean itself")
    if len(file.of_kind("GlobalAveragePooling2D")) != 1 + sum("se_squeeze" in layer.name for layer in file.layers):
        differences.append("GlobalAveragePooling2D: there must be one behind the last convolution")
    return differences


def _is_scaling(settings: dict[str, Any], scale: float, offset: float) -> bool:
    factor = _number(settings.get("scale"))
    return abs(factor / scale - 1) <= 1e-6 and _number(settings.get("offset")) == offset


def _are_numbers(value: Any, wanted: tuple[float, ...]) -> bool:
    """Whether a setting holds these numbers, within lists of any depth."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return (
        isinstance(value, list)
        and len(value) == len(wanted)
        and np.allclose([_number(item) for item in value], wanted, rtol=1e-3)
    )


def _ather2_rest(file: KerasFile) -> list[str]:
    differences = []
    separate = [_leaky(layer.settings) for layer in file.of_kind("LeakyReLU")]
    within = [_setting(layer, "activation") for layer in file.of_kind("Conv2D", "Dense")]
    leaky = separate + [activation for activation in within if activation.startswith("LeakyReLU")]
    if Counter(leaky) != {"LeakyReLU 0.001": len(_LEAKY)}:
        differences.append(
            f"LeakyReLU: {len(_LEAKY)} of slope 0.001 are needed, the file has {dict(Counter(leaky))}"
        )
    pools: Counter[tuple[str, str]] = Counter()
    for layer in file.of_kind("MaxPooling2D"):
        side = _setting(layer, "pool_size")
        stride = side if layer.settings.get("strides") is None else _setting(layer, "strides")
        pools[str(side), str(stride)] += 1
        if layer.settings.get("padding") != "valid":
            differences.append(f"{layer.name}: padding {layer.settings.get('padding')}, not valid")
    if pools != _POOLS:
        differences.append(f"MaxPooling2D: side/stride {_listed(pools)}, not {_listed(_POOLS)}")
    for layer in file.of_kind("Rescaling"):
        if not _is_scaling(layer.settings, 1 / 127.5, -1):
            scale, offset = layer.settings.get("scale"), layer.settings.get("offset")
            differences.append(f"{layer.name}: x * {scale} + {offset}, not x / 127.5 - 1")
    return differences


def _listed(pools: Counter[tuple[str, str]]) -> str:
    return ", ".join("/".join(pool) for pool in sorted(pools.elements()))
