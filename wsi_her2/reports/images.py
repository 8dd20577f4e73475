"""Pictures as bytes: lossless PNG for what was drawn, JPEG for what was photographed."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]

_PNG = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
"""The least compression, and one filter instead of a choice for each row, which OpenCV takes where no level is
given: pictures of tissue get hardly smaller by trying harder, only slower."""


def encode_png(pixels: UInt8) -> bytes:
    """PNG of RGB or RGBA pixels (uint8 H x W x 3 or 4)."""
    order = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    return _encoded(".png", cv2.cvtColor(pixels, order), _PNG)


def encode_jpeg(rgb: UInt8, quality: int) -> bytes:
    """JPEG of RGB pixels (uint8 H x W x 3)."""
    return _encoded(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])


def as_uri(content: bytes, kind: str) -> str:
    """A picture as a data URI; `kind` is 'png' or 'jpeg'."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def within(pixels: UInt8, longest_px: int, *, smooth: bool = True) -> UInt8:
    """Shrink a picture so that its longest side is at most `longest_px`; a smaller one stays as it is.

    Parameters
    ----------
    pixels : uint8 H x W x C
    longest_px : int
    smooth : bool
        False for flat colours that must not mix.
    """
    height, width = pixels.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if smooth else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)


def _encoded(kind: str, pixels: npt.NDArray[Any], options: list[int]) -> bytes:
    done, content = cv2.imencode(kind, np.asarray(pixels), options)
    if not done:
        raise ValueError(f"the picture cannot be encoded as {kind}")
    return bytes(content.tobytes())
