"""Test-time augmentation: the mean of the probabilities over ways to lay the same patch under the microscope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from wsi_her2.models.classifier import Float32
from wsi_her2.slides.backends import RGB

Augmentation = Literal["none", "flips", "turns"]

_ORIENTATIONS: dict[Augmentation, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "turns": tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
"""Quarter turns, and whether mirrored: of all eight, 'flips' are those that need no quarter turn."""

AUGMENTATIONS: tuple[Augmentation, ...] = tuple(_ORIENTATIONS)


def averaged(predict: Callable[[RGB], Float32], batch: RGB, augmentation: Augmentation) -> Float32:
    """Mean probabilities (float32 N x K) of square patches (uint8 N x H x H x 3) in several orientations.

    Parameters
    ----------
    predict : callable
        Probabilities of patches.
    batch : uint8 N x H x H x 3
    augmentation : {'none', 'flips', 'turns'}
        The patch as it is; also mirrored both ways; also turned by quarters, eight orientations in all.
    """
    orientations = _ORIENTATIONS[augmentation]
    if len(orientations) == 1:
        return predict(batch)
    total = np.zeros(0)
    for turns, mirrored in orientations:
        turned = np.rot90(batch[:, :, ::-1] if mirrored else batch, turns, axes=(1, 2))
        found = predict(np.ascontiguousarray(turned)).astype(np.float64)
        total = found if total.size == 0 else total + found
    return (total / len(orientations)).astype(np.float32)
