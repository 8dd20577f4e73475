"""Mean, least and most of the channels of each pixel, by OpenCV, which is faster at it than a NumPy reduction."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

_THIRDS = np.full((1, 3), 1 / 3, np.float32)


def channel_mean(image: npt.NDArray[Any]) -> Float32:
    """Mean of the channels (float32 H x W) of an image (uint8 or float32 H x W x 3)."""
    return np.asarray(cv2.transform(image.astype(np.float32, copy=False), _THIRDS), np.float32)


def channel_extremes(image: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Least and most of the channels (each H x W, of the image's type) of an image (H x W x 3)."""
    first, second, third = cv2.split(image)
    return (
        np.asarray(cv2.min(cv2.min(first, second), third)),
        np.asarray(cv2.max(cv2.max(first, second), third)),
    )
