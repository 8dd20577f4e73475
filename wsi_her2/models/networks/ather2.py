"""ATHER2: two branches with different filter sizes, and CBAM attention in one of them.

Layers follow the publication (PLoS One 2025, "Lightweight deep models based on domain adaptation and network
pruning for breast cancer HER2 scoring"), the attention follows Woo et al., ECCV 2018. Strided convolutions are
padded as TensorFlow does it.
"""

from __future__ import annotations

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

HALF_SCALE = 127.5
SLOPE = 0.001
"""Of every LeakyReLU."""


class ChannelThenSpatialAttention(nn.Module):
    """CBAM: weighs channels by a small shared network, then positions by a 3 x 3 convolution."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(1, channels // reduction))
        self.expand = nn.Linear(max(1, channels // reduction), channels)
        self.spatial = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Weighed features, of the same shape (float32 N x C x H x W)."""
        mean, highest = features.mean(dim=(2, 3)), features.amax(dim=(2, 3))
        channel = torch.sigmoid(self._shared(mean) + self._shared(highest))
        features = features * channel[:, :, None, None]
        summary = torch.cat([features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)], dim=1)
        return features * torch.sigmoid(self.spatial(summary))

    def _shared(self, pooled: Tensor) -> Tensor:
        return self.expand(torch.relu(self.squeeze(pooled)))  # type: ignore[no-any-return]


class Ather2(nn.Module):
    """The network up to its logits.

    Parameters
    ----------
    head_units : int
        Units of the last layer.
    cbam_reduction : int
        Ratio of the channel attention; 0 for no attention.
    """

    def __init__(self, head_units: int, cbam_reduction: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.left1 = Conv2dSame(16, 64, 3, stride=3)
        self.cbam = ChannelThenSpatialAttention(64, cbam_reduction) if cbam_reduction else nn.Identity()
        self.left2 = Conv2dSame(64, 128, 3, stride=3)
        self.right1a = nn.Conv2d(16, 32, 3, padding=1)
        self.right1b = Conv2dSame(32, 64, 3, stride=2)
        self.right_norm = nn.BatchNorm2d(64, eps=1e-3, momentum=0.01)
        self.right2 = Conv2dSame(64, 128, 5, stride=2)
        self.hidden = nn.Linear(256, 128)
        self.out = nn.Linear(128, head_units)
        self.dropout = nn.Dropout(0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (float32 N x head_units) of images (float32 N x 3 x H x W, 0 to 255)."""
        return self.body(images / HALF_SCALE - 1)[0]

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the features of the right branch (float32 N x 128 x H / 16 x W / 16)."""
        return self.body(images / HALF_SCALE - 1)

    def body(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of images from -1 to 1, and the features of the right branch."""
        stem = _pooled(self.stem(scaled), 2, 2)
        left = self.dropout(_pooled(self.left1(stem), 3, 2))
        left = self.dropout(_pooled(self.left2(self.cbam(left)), 3, 2))
        right = _pooled(self.right1a(stem), 3, 1)
        right = self.right_norm(_pooled(self.right1b(right), 3, 2))
        features = _leaky(self.right2(right))
        right = functional.max_pool2d(features, 3, 3)
        both = torch.cat([left.mean(dim=(2, 3)), right.mean(dim=(2, 3))], dim=1)
        return self.out(_leaky(self.hidden(both))), features


def _leaky(features: Tensor) -> Tensor:
    return functional.leaky_relu(features, SLOPE)


def _pooled(features: Tensor, side: int, stride: int) -> Tensor:
    return functional.max_pool2d(_leaky(features), side, stride)
