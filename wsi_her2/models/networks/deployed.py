"""A network as it is run: raw RGB in, class probabilities out, and what is constant worked out beforehand."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_her2.errors import ClassifierError
from wsi_her2.models.networks.architecture import Architecture
from wsi_her2.models.networks.ather2 import HALF_SCALE, Ather2
from wsi_her2.models.networks.pruneff import MEAN, NECK_PX, STD, PrunEff


def build_network(architecture: Architecture) -> PrunEff | Ather2:
    """The network of an architecture, with new weights."""
    if architecture.family == "pruneff":
        return PrunEff(architecture.cut, architecture.head_units)
    return Ather2(architecture.head_units, architecture.cbam_reduction)


def network_of(architecture: Architecture, weights: Mapping[str, npt.NDArray[np.generic]]) -> PrunEff | Ather2:
    """The network of an architecture with given weights, in evaluation mode.

    Raises
    ------
    ClassifierError
        The weights are not those of the architecture.
    """
    network = build_network(architecture)
    try:
        network.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in weights.items()})
    except RuntimeError as error:
        raise ClassifierError(f"the weights are not those of {architecture.name}: {str(error)[:500]}") from error
    return network.eval()


class Deployed(nn.Module):
    """A network with the conversion of pixels before it and the probabilities behind it.

    Parameters
    ----------
    network : PrunEff or Ather2
    sigmoid : bool
        Whether one unit stands for two classes.
    """

    def __init__(self, network: nn.Module, sigmoid: bool) -> None:
        super().__init__()
        self.network = network
        self.sigmoid = sigmoid

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (float32 N x K) of patches (uint8 N x H x W x 3)."""
        logits = self.network(images.permute(0, 3, 1, 2).to(torch.float32))
        if self.sigmoid:
            positive = torch.sigmoid(logits)
            return torch.cat([1 - positive, positive], dim=1)
        return torch.softmax(logits, dim=1)


class _PrunEffForInference(nn.Module):
    """PrunEff with less to compute and, up to rounding, the same result.

    The neck is linear and only its mean is used, so the mean may be taken first: of the features, over the
    windows that each weight of the kernel would see. At 224 px that leaves 1/64 of the multiplications of the
    largest layer. The factors of the preprocessing go into the first convolution.
    """

    shift: Tensor

    def __init__(self, network: PrunEff) -> None:
        super().__init__()
        self.inner = network
        _scale_inputs(network.stem, [1 / (255 * std) for std in STD])
        self.register_buffer("shift", torch.tensor([255 * mean for mean in MEAN])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        body = self.inner.body(images - self.shift)
        height, width = body.shape[2] - NECK_PX + 1, body.shape[3] - NECK_PX + 1
        windows = functional.avg_pool2d(body, (height, width), stride=1)
        return self.inner.head(self.inner.neck(windows).flatten(1))


class _Ather2ForInference(nn.Module):
    """ATHER2 with the factor of the preprocessing in its first convolution."""

    def __init__(self, network: Ather2) -> None:
        super().__init__()
        self.inner = network
        _scale_inputs(network.stem, [1 / HALF_SCALE] * 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner.body(images - HALF_SCALE)[0]


def for_inference(network: PrunEff | Ather2) -> nn.Module:
    """A copy in evaluation mode with less to compute, equal to the network up to rounding."""
    network = copy.deepcopy(network).eval()
    if isinstance(network, PrunEff):
        return _PrunEffForInference(network).eval()
    return _Ather2ForInference(network).eval()


def _scale_inputs(convolution: nn.Conv2d, factors: list[float]) -> None:
    """Fold factors of the input's channels into the weights.

    Only factors: what is subtracted from the input must stay before the convolution, whose padding is 0.
    """
    with torch.no_grad():
        convolution.weight.mul_(torch.tensor(factors)[None, :, None, None])


def count_parameters(network: nn.Module) -> int:
    """Parameters as Keras counts them: the statistics of normalisations are among them."""
    statistics = (
        b.numel() for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var"))
    )
    return sum(parameter.numel() for parameter in network.parameters()) + sum(statistics)


def count_multiply_adds(network: nn.Module, patch_px: int) -> int:
    """Multiplications, each with its addition, for one patch."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network(torch.zeros((1, 3, patch_px, patch_px)))
    return int(counter.get_total_flops()) // 2
