"""The colour of empty glass, estimated from the slide itself.

Optical density is measured against it. Assuming 255 instead cost 0.08 of quadratic kappa in a feasibility
study; real scanners give anything from 207 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.slides.backends import RGB
from wsi_her2.slides.channels import Float32, channel_extremes, channel_mean

_SMOOTH_SD = 3.0
_NEUTRAL_RANGE = 40
_BRIGHT = 120
_MIN_SHARE = 0.002
_MIN_SHARE_BESIDE_PADDING = 0.02
_MODE_SHARE = 0.1


@dataclass(frozen=True)
class WhitePoint:
    """What the scanner records where there is nothing.

    Attributes
    ----------
    rgb : tuple of float
        Grey levels, 0 to 255.
    source : {'background', 'brightest'}
        'background': the mode of smooth, neutral, bright pixels. 'brightest': there were none, so the 99.5th
        percentile of each channel stands in; densities are then underestimated.
    share : float
        Share of the overview's pixels that the estimate rests on.
    """

    rgb: tuple[float, float, float]
    source: Literal["background", "brightest"]
    share: float


def estimate_white_point(rgb: RGB, ignore: npt.NDArray[np.bool_] | None = None) -> WhitePoint:
    """Estimate the white point from an overview.

    Parameters
    ----------
    rgb : uint8 H x W x 3
        The slide at a few um per pixel.
    ignore : bool H x W, optional
        Pixels to leave out, such as unreadable ones.
    """
    ignored = np.zeros(rgb.shape[:2], bool) if ignore is None else ignore
    lightness = channel_mean(rgb)
    least, most = channel_extremes(rgb)
    # Scanners pad what they did not scan with pure white: that is not glass, unless there is no other.
    padding = least == 255
    smooth = _smooth(lightness) & (cv2.subtract(most, least) < _NEUTRAL_RANGE) & (lightness > _BRIGHT)
    for left_out, min_share in ((ignored | padding, _MIN_SHARE_BESIDE_PADDING), (ignored, _MIN_SHARE)):
        background = smooth & ~left_out
        if np.count_nonzero(background) >= max(16, min_share * background.size):
            glass = _at_brightest_mode(lightness, background)
            red, green, blue = (_median(_counts(rgb, glass, channel)) for channel in range(3))
            return WhitePoint((red, green, blue), "background", np.count_nonzero(glass) / background.size)
    considered = rgb[~ignored] if not ignored.all() else rgb.reshape(-1, 3)
    red, green, blue = (float(value) for value in np.percentile(considered, 99.5, axis=0))
    return WhitePoint((red, green, blue), "brightest", 0.005)


def white_table(white: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    """Lookup table (uint8 256 x 1 x 3) that maps the white point to 255 in every channel."""
    levels = np.arange(256, dtype=np.float64)[:, None, None]
    scale = 255.0 / np.maximum(np.asarray(white, np.float64), 1.0)
    return np.clip(np.rint(levels * scale), 0, 255).astype(np.uint8).reshape(256, 1, 3)


def _smooth(lightness: Float32) -> npt.NDArray[np.bool_]:
    mean = cv2.blur(lightness, (5, 5))
    variance = cv2.blur(lightness * lightness, (5, 5)) - mean * mean
    return np.asarray(variance < _SMOOTH_SD**2, bool)


def _at_brightest_mode(lightness: Float32, background: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of the background, the pixels at the brightest level that many of them share.

    Pale smooth stroma can pass for background, but glass is brighter.
    """
    counts = np.convolve(_counts(lightness.astype(np.uint8), background), np.ones(3), mode="same")
    start = int(np.flatnonzero(counts >= _MODE_SHARE * counts.max()).max())
    mode = start - int(np.argmax(counts[start - 8 : start + 1][::-1])) if start >= 8 else start
    return np.asarray(background & (np.abs(lightness - mode - 0.5) <= 3), bool)


def _counts(
    image: npt.NDArray[np.uint8], where: npt.NDArray[np.bool_], channel: int = 0
) -> npt.NDArray[np.float64]:
    """How many of the chosen pixels have each grey level in a channel (float64 256); whole numbers."""
    # OpenCV counts in float32, in which whole numbers end at 2**24.
    rows = max(1, 2**24 // image.shape[1])
    parts = [
        cv2.calcHist([image[top : top + rows]], [channel], where[top : top + rows].view(np.uint8), [256], [0, 256])
        for top in range(0, len(image), rows)
    ]
    return np.sum(parts, axis=0, dtype=np.float64).reshape(-1)


def _median(counts: npt.NDArray[np.float64]) -> float:
    """Median of grey levels of which there are so many each; as of numbers, between the two in the middle."""
    upto, total = counts.cumsum(), counts.sum()
    lower, upper = np.searchsorted(upto, [np.ceil(total / 2), np.floor(total / 2) + 1])
    return float(lower + upper) / 2
