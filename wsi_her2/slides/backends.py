"""What reads slide files: OpenSlide, tiffslide, or an array in memory, behind one small interface.

A backend knows levels and pixels and nothing of microns, tissue or stain. Handles are not shared between
threads or processes: `wsi_her2.slides.slide.Slide` opens one for each and keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.errors import SlideNotFound, SlideReadError, UnsupportedSlide

BackendName = Literal["openslide", "tiffslide", "memory"]
RGB = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Level:
    """One resolution of a slide: its size in pixels and how many level-0 pixels one of its pixels spans."""

    width: int
    height: int
    downsample: float


class Backend(Protocol):
    """An open slide file."""

    @property
    def name(self) -> BackendName:
        """Which backend this is."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """Resolutions, finest first."""

    @property
    def properties(self) -> Mapping[str, str]:
        """What the file says of itself, under OpenSlide's names."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Pixels of one level, uint8 H x W x 3 or 4; x and y in pixels of that level, inside the level."""

    def close(self) -> None:
        """Let go of the file."""


class OpenSlideBackend:
    """A slide through the OpenSlide C library."""

    name: BackendName = "openslide"

    def __init__(self, path: Path) -> None:
        import openslide

        self._path = path
        self._open = openslide.OpenSlide
        self._error: type[Exception] = openslide.OpenSlideError
        try:
            self._slide = self._open(path)
        except self._error as error:
            raise UnsupportedSlide(f"OpenSlide: {error}") from error
        self.levels = tuple(
            Level(width, height, float(downsample))
            for (width, height), downsample in zip(
                self._slide.level_dimensions, self._slide.level_downsamples, strict=True
            )
        )
        self.properties = dict(self._slide.properties)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Read RGBA pixels; see `Backend.read`."""
        downsample = self.levels[level].downsample
        origin = (round(x * downsample), round(y * downsample))
        try:
            return np.asarray(self._slide.read_region(origin, level, (width, height)))
        except self._error as error:
            self._reopen()
            raise SlideReadError(f"OpenSlide: {error}") from error

    def _reopen(self) -> None:
        """Replace the handle, because OpenSlide refuses every read after one that failed."""
        self._slide.close()
        try:
            self._slide = self._open(self._path)
        except (self._error, OSError) as error:
            raise SlideReadError(f"OpenSlide: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._slide.close()


class TiffSlideBackend:
    """A slide through tiffslide, which reads what tifffile reads."""

    name: BackendName = "tiffslide"

    def __init__(self, path: Path) -> None:
        import tiffslide

        try:
            self._slide = tiffslide.TiffSlide(path)
            self.levels = tuple(
                Level(int(width), int(height), float(downsample))
                for (width, height), downsample in zip(
                    self._slide.level_dimensions, self._slide.level_downsamples, strict=True
                )
            )
            self.properties = _openslide_names(self._slide.properties)
        except MemoryError:
            raise
        except Exception as error:
            raise UnsupportedSlide(f"tiffslide: {_one_line(error)}") from error

    def read(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Read RGB pixels; see `Backend.read`."""
        downsample = self.levels[level].downsample
        origin = (round(x * downsample), round(y * downsample))
        try:
            pixels = np.asarray(self._slide.read_region(origin, level, (width, height), as_array=True))
        except MemoryError:
            raise
        except Exception as error:
            raise SlideReadError(f"tiffslide: {_one_line(error)}") from error
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise SlideReadError(
                f"tiffslide: pixels are {pixels.dtype} {'x'.join(map(str, pixels.shape))}, not 8-bit RGB"
            )
        return pixels.astype(np.uint8, copy=False)

    def close(self) -> None:
        """Let go of the file."""
        self._slide.close()


class MemoryBackend:
    """An RGB array posing as a slide, with a pyramid of its own."""

    name: BackendName = "memory"

    def __init__(self, rgb: RGB, properties: Mapping[str, str] | None = None) -> None:
        if rgb.ndim != 3 or rgb.shape[2] not in (3, 4) or rgb.dtype != np.uint8:
            raise UnsupportedSlide(
                f"an in-memory slide is uint8 H x W x 3 or 4, not {rgb.dtype} {'x'.join(map(str, rgb.shape))}"
            )
        # Before the coarser levels are averaged: the colour under a transparent pixel means nothing.
        self._pyramid = [over_white(rgb)]
        while min(self._pyramid[-1].shape[:2]) > 512:
            height, width = self._pyramid[-1].shape[:2]
            halved = cv2.resize(self._pyramid[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            self._pyramid.append(np.asarray(halved, np.uint8))
        self.levels = tuple(
            Level(level.shape[1], level.shape[0], rgb.shape[1] / level.shape[1]) for level in self._pyramid
        )
        self.properties = dict(properties or {})

    def read(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Read pixels; see `Backend.read`."""
        return self._pyramid[level][y : y + height, x : x + width]

    def close(self) -> None:
        """Nothing to let go of."""


def over_white(pixels: npt.NDArray[np.uint8]) -> RGB:
    """Blend RGBA pixels over white (uint8 H x W x 4 to H x W x 3); RGB pixels are returned as they are."""
    if pixels.shape[2] == 3:
        return pixels
    opacity = pixels[..., 3:]
    if opacity.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    alpha = opacity.astype(np.uint16)
    blended = (pixels[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha) + 127) // 255
    return blended.astype(np.uint8)


_OPENERS: dict[str, Callable[[Path], Backend]] = {
    "openslide": OpenSlideBackend,
    "tiffslide": TiffSlideBackend,
}

FILE_BACKENDS = tuple(_OPENERS)
"""Backends that read files, in the order in which they are tried."""


def open_backend(path: Path, name: str) -> Backend:
    """Open a file with one named backend.

    Raises
    ------
    SlideNotFound, UnsupportedSlide
    """
    if not path.exists():
        raise SlideNotFound(f"{path}: no such file")
    return _OPENERS[name](path)


def open_first_that_reads(path: Path) -> Backend:
    """Open a file with the first backend that opens it *and* decodes a pixel of every level.

    Some damage and some NDPI files above 4 GiB show only when a tile is decoded, so opening alone proves
    nothing. A file that opens but decodes nowhere at its corner is still taken, by the first backend that
    opened it: the damage may be local, and is then contained to its patches.

    Raises
    ------
    SlideNotFound, UnsupportedSlide
    """
    if not path.exists():
        raise SlideNotFound(f"{path}: no such file")
    refusals: list[str] = []
    opened: Backend | None = None
    for name in FILE_BACKENDS:
        try:
            candidate = open_backend(path, name)
        except UnsupportedSlide as error:
            refusals.append(str(error))
            continue
        if decodes(candidate):
            if opened is not None:
                opened.close()
            return candidate
        if opened is None:
            opened = candidate
        else:
            candidate.close()
    if opened is not None:
        return opened
    raise not_readable(path, "; ".join(refusals))


def not_readable(path: Path, why: str) -> UnsupportedSlide:
    """The error for a file that no backend can read."""
    return UnsupportedSlide(
        f"{path.name}: not a slide that can be read ({why}). The file is damaged, incomplete or of another kind: "
        "copy it again from the scanner, or export it as tiled TIFF, SVS, NDPI or DICOM."
    )


def decodes(backend: Backend) -> bool:
    """Whether a pixel in the middle of every level can be decoded."""
    try:
        for index, level in enumerate(backend.levels):
            backend.read(index, level.width // 2, level.height // 2, 1, 1)
    except SlideReadError:
        return False
    return True


def _openslide_names(properties: Mapping[str, Any]) -> dict[str, str]:
    return {
        key.replace("tiffslide.", "openslide.", 1): str(value)
        for key, value in properties.items()
        if value is not None
    }


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
