"""The network for tools that call it with torch tensors."""

from __future__ import annotations

import torch
from measured import Job
from torch import Tensor, nn

SETTLED = 3
"""Calls after which TorchScript has done what it does once."""


class OfBytes(nn.Module):
    """The network for patches as they are read: uint8 N x H x W x 3 in, probabilities out.

    Parameters
    ----------
    network : torch.jit.ScriptModule
    published : bool
        Whether it takes float32 N x 3 x H x W from 0 to 255, as published, instead of what this module takes.
    """

    def __init__(self, network: torch.jit.ScriptModule, published: bool) -> None:
        super().__init__()
        self.network = network
        self.published = published

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (float32 N x K)."""
        if self.published:
            # In this order the tools' own networks are given them.
            images = images.permute(0, 3, 1, 2).to(torch.float32).contiguous()
        found: Tensor = self.network(images)
        return found


class OfUnitImages(nn.Module):
    """The network for images as `ToTensor` makes them: float32 N x 3 x H x W in 0 to 1.

    Parameters
    ----------
    network : torch.jit.ScriptModule
    published : bool
        As in `OfBytes`.
    logarithm : bool
        Give the logarithm of the probabilities, for tools that take the softmax themselves.
    """

    def __init__(self, network: torch.jit.ScriptModule, published: bool, logarithm: bool) -> None:
        super().__init__()
        self.network = network
        self.published = published
        self.logarithm = logarithm

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (float32 N x K), or their logarithm."""
        pixels = images * 255.0
        if not self.published:
            # Channels last is what this network is fastest with.
            pixels = pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        found: Tensor = self.network(pixels)
        return torch.log(found.clamp_min(1e-12)) if self.logarithm else found


def of_bytes(job: Job) -> torch.jit.ScriptModule:
    """The network for patches as they are read."""
    return torch.jit.script(OfBytes(_load(job), job.published).eval())


def of_unit_images(job: Job, *, logarithm: bool = False) -> torch.jit.ScriptModule:
    """The network for images as `ToTensor` makes them."""
    return torch.jit.script(OfUnitImages(_load(job), job.published, logarithm).eval())


def _load(job: Job) -> torch.jit.ScriptModule:
    return torch.jit.load(str(job.network)).eval()


def settle(network: torch.jit.ScriptModule, images: Tensor) -> None:
    """Call it until TorchScript has optimised it, which is start-up and no tool's doing."""
    with torch.inference_mode():
        for _ in range(SETTLED):
            network(images)
