"""Weights that PrunEff's body starts from: ImageNet's, as timm or Keras publish them, or none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_her2.errors import ClassifierError
from wsi_her2.models.extras import need
from wsi_her2.models.keras_file import read_keras_file
from wsi_her2.models.keras_import import body_weights_from_keras

if TYPE_CHECKING:
    from wsi_her2.models.networks.pruneff import PrunEff

TIMM_NAME = "tf_efficientnetv2_b0.in1k"

_log = logging.getLogger(__name__)


def start_from_imagenet(network: PrunEff, source: str | Path | None = None) -> str:
    """Give the body of a network the weights that were trained on ImageNet.

    Parameters
    ----------
    network : PrunEff
        Changed in place.
    source : str or pathlib.Path, optional
        A local file: timm's `tf_efficientnetv2_b0.in1k` (`.safetensors`, `.pth`, `.bin`) or Keras'
        `efficientnetv2-b0_notop.h5`. By default timm fetches its own, or finds it in its cache.

    Returns
    -------
    str
        Where the weights come from, for the card. Where none can be had without a file, the network keeps its new
        weights, a warning is logged and this says so.

    Raises
    ------
    ClassifierError
        The given file is missing or does not hold these weights.
    """
    if source is None:
        try:
            state = need("timm", "ImageNet's weights").create_model(TIMM_NAME, pretrained=True).state_dict()
        except (OSError, RuntimeError, ValueError) as error:
            _log.warning(
                "ImageNet's weights cannot be fetched (%s): starting from scratch. With a file of them, such as "
                "timm's %s or Keras' efficientnetv2-b0_notop.h5, pass its path.",
                " ".join(str(error).split())[:200],
                TIMM_NAME,
            )
            return "new weights: ImageNet's could not be fetched"
        _load_body(network, _from_timm(state, network), TIMM_NAME)
        return f"ImageNet-1k (timm, {TIMM_NAME})"
    path = Path(source)
    if not path.is_file():
        raise ClassifierError(f"{path}: there is no such file of ImageNet weights")
    if path.suffix.lower() in (".h5", ".hdf5"):
        network.load_state_dict(_tensors(body_weights_from_keras(read_keras_file(path), network)), strict=False)
        return f"ImageNet-1k (Keras, {path.name})"
    _load_body(network, _from_timm(_read_tensors(path), network), str(path))
    return f"ImageNet-1k (timm, {path.name})"


def _from_timm(state: Mapping[str, Any], network: PrunEff) -> dict[str, Any]:
    """The part of timm's backbone that the network keeps, under the network's names."""
    ours = {"conv_stem": "stem", "bn1": "stem_norm"}
    renamed = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        renamed[f"{ours.get(first, first)}.{rest}"] = value
    return {name: renamed[name] for name in _body_names(network) if name in renamed}


def _body_names(network: PrunEff) -> list[str]:
    return [name for name in network.state_dict() if name.startswith(("stem.", "stem_norm.", "blocks."))]


def _load_body(network: PrunEff, state: dict[str, Any], source: str) -> None:
    wanted = network.state_dict()
    unreal = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if unreal:
        raise ClassifierError(f"{source}: {unreal[0]} holds values that are no numbers")
    wrong = [
        f"{name}: missing"
        if name not in state
        else f"{name}: {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name in _body_names(network)
        for tensor in [wanted[name]]
        if not name.endswith("num_batches_tracked") and (name not in state or state[name].shape != tensor.shape)
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ClassifierError(f"{source}: not the weights of EfficientNetV2-B0: {'; '.join(wrong[:5])}{more}")
    network.load_state_dict(state, strict=False)


def _read_tensors(path: Path) -> Mapping[str, Any]:
    """Tensors of a file of torch or of safetensors; nothing in it is executed."""
    torch = need("torch", "Reading weights")
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors raise errors of many kinds
        raise ClassifierError(f"{path}: not a file of weights ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise ClassifierError(f"{path}: not a file of weights by name")
    return content


def _tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    torch = need("torch", "Loading weights")
    return {name: torch.from_numpy(values) for name, values in state.items()}
