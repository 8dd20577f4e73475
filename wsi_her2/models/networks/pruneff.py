"""PrunEff: EfficientNetV2-B0, cut after one of its blocks, with a head of its own.

The backbone is timm's `tf_efficientnetv2_b0`, which has TensorFlow's padding and constants. The head follows the
publication (PLoS One 2025, "Lightweight deep models based on domain adaptation and network pruning for breast
cancer HER2 scoring"): a linear 7 x 7 convolution, its mean over the image, and two dense layers.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

BACKBONE = "tf_efficientnetv2_b0"
NECK_PX = 7
"""Side of the neck's kernel."""

_NECK_CHANNELS, _HIDDEN_UNITS = 192, 1024
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as shares of full scale; Keras applies them inside its EfficientNetV2, and so does this."""


class PrunEff(nn.Module):
    """The network up to its logits.

    Parameters
    ----------
    cut : int
        Last block of the backbone that is kept, 1 to 5.
    head_units : int
        Units of the last layer.
    """

    def __init__(self, cut: int, head_units: int) -> None:
        super().__init__()
        backbone: Any = timm.create_model(BACKBONE, pretrained=False, num_classes=0)
        self.stem: nn.Conv2d = backbone.conv_stem
        self.stem_norm: nn.Module = backbone.bn1
        self.blocks: nn.Sequential = backbone.blocks[:cut]
        self.neck = nn.Conv2d(_channels(self.blocks), _NECK_CHANNELS, NECK_PX)
        self.neck_norm = nn.BatchNorm1d(_NECK_CHANNELS, eps=1e-3, momentum=0.01)
        self.hidden = nn.Linear(_NECK_CHANNELS, _HIDDEN_UNITS)
        self.out = nn.Linear(_HIDDEN_UNITS, head_units)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (float32 N x head_units) of images (float32 N x 3 x H x W, 0 to 255)."""
        return self.with_features(images)[0]

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the features that they are made of (float32 N x C x H' x W')."""
        mean, std = images.new_tensor(MEAN), images.new_tensor(STD)
        body = self.body((images / 255 - mean[:, None, None]) / std[:, None, None])
        return self.head(self.neck(body).mean(dim=(2, 3))), body

    def body(self, scaled: Tensor) -> Tensor:
        """What the last kept block makes of scaled images (float32 N x C x H' x W')."""
        return self.blocks(self.stem_norm(self.stem(scaled)))  # type: ignore[no-any-return]

    def head(self, pooled: Tensor) -> Tensor:
        """Logits from the means of the neck (float32 N x 192)."""
        return self.out(torch.relu(self.hidden(self.neck_norm(pooled))))  # type: ignore[no-any-return]


def _channels(blocks: nn.Sequential) -> int:
    return [module.out_channels for module in blocks.modules() if isinstance(module, nn.Conv2d)][-1]
