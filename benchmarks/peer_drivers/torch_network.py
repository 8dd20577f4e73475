"""The network for tools that call it with torch tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

SETTLED = 3
"""Calls after which TorchScript has done what it does once."""


class OfUnitImages(nn.Module):
    """The network for images as `ToTensor` makes them: float32 N x 3 x H x W in 0 to 1.

    Parameters
    ----------
    network : torch.jit.ScriptModule
    logarithm : bool
        Give the logarithm of the probabilities, for tools that take the softmax themselves.
    """

    def __init__(self, network: torch.jit.ScriptModule, logarithm: bool) -> None:
        super().__init__()
        self.network = network
        self.logarithm = logarithm

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (float32 N x K), or their logarithm."""
        # Channels last is what the network is fastest with.
        pixels = (images * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        found: Tensor = self.network(pixels)
        return torch.log(found.clamp_min(1e-12)) if self.logarithm else found


def load(path: Path) -> torch.jit.ScriptModule:
    """The network as exported: uint8 N x H x W x 3 in, probabilities out."""
    return torch.jit.load(str(path)).eval()


def of_unit_images(path: Path, *, logarithm: bool = False) -> torch.jit.ScriptModule:
    """The network for images as `ToTensor` makes them."""
    return torch.jit.script(OfUnitImages(load(path), logarithm).eval())


def settle(network: torch.jit.ScriptModule, images: Tensor) -> None:
    """Call it until TorchScript has optimised it, which is start-up and no tool's doing."""
    with torch.inference_mode():
        for _ in range(SETTLED):
            network(images)
