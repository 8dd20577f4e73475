"""Where pictures come from: image files, regions of slides, rows of patch stores and of arrays on disk.

Each is a few numbers and a path. What has to stay open between reads is kept for each process, never handed from
one to another: a forked worker that read through its parent's handle would move the parent's position in the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from wsi_her2.errors import StoreError
from wsi_her2.learning.datasets.images import read_image
from wsi_her2.messages import shortened
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.slide import Slide, open_slide
from wsi_her2.slides.store import PatchStore

_SLIDES_KEPT_OPEN = 8
_STORES_KEPT_OPEN = 16
_ARRAYS_KEPT_OPEN = 256


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A whole image file."""

    path: Path

    def read(self) -> RGB:
        """Decode the file."""
        return read_image(self.path)


@dataclass(frozen=True, slots=True)
class SlideRegion:
    """A region of a slide.

    Attributes
    ----------
    path : pathlib.Path
    x, y : int
        Top-left corner in level-0 pixels.
    width, height : int
        Size of the picture in pixels at `mpp`.
    mpp : float
        Scale at which it is read, um/px.
    slide_mpp : float or None
        Scale of level 0 where it overrides what the file says.
    """

    path: Path
    x: int
    y: int
    width: int
    height: int
    mpp: float
    slide_mpp: float | None = None

    def read(self) -> RGB:
        """Read the region; raises SlideReadError where the slide is damaged."""
        slide = _slide(self.path, self.slide_mpp, os.getpid())
        return slide.read(self.x, self.y, self.width, self.height, self.mpp)


@dataclass(frozen=True, slots=True)
class StoreRow:
    """A patch in a patch store. Reading one decompresses the chunk of its block."""

    path: Path
    row: int

    def read(self) -> RGB:
        """Read the row; raises StoreError where the store has none or it is damaged."""
        try:
            return np.asarray(_store_pixels(self.path, os.getpid())[self.row], np.uint8)
        except (MemoryError, StoreError):
            raise
        except Exception as error:  # zarr and its codecs raise errors of many kinds
            raise StoreError(f"{self.path}: patch {self.row} cannot be read ({shortened(error)})") from error


@dataclass(frozen=True, slots=True)
class ArrayRow:
    """A picture in a `.npy` file of uint8 N x H x W x 3, mapped into memory."""

    path: Path
    row: int

    def read(self) -> RGB:
        """Copy the row."""
        return np.array(_mapped(self.path, os.getpid())[self.row])


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """A picture that is held in memory (uint8 H x W x 3)."""

    rgb: RGB

    def read(self) -> RGB:
        """A copy of the picture."""
        return self.rgb.copy()


@lru_cache(maxsize=_SLIDES_KEPT_OPEN)
def _slide(path: Path, mpp: float | None, process: int) -> Slide:  # noqa: ARG001 - the process is part of the key
    return open_slide(path, mpp=mpp)


@lru_cache(maxsize=_STORES_KEPT_OPEN)
def _store_pixels(path: Path, process: int) -> zarr.Array[Any]:  # noqa: ARG001
    pixels = PatchStore.open(path).pixels
    if pixels is None:
        raise StoreError(f"{path}: the store keeps no pixels. Score again with --store-patches.")
    return pixels


@lru_cache(maxsize=_ARRAYS_KEPT_OPEN)
def _mapped(path: Path, process: int) -> npt.NDArray[np.uint8]:  # noqa: ARG001
    mapped: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return mapped
