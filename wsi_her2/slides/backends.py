"""What gives pixels: OpenSlide, tiffslide, or an array in memory, behind one small interface.

A backend knows levels and pixels and nothing of microns, tissue or stain. Handles are not shared between
threads or processes: `wsi_her2.slides.slide.Slide` opens one for each and keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.errors import SlideReadError, UnsupportedSlide
from wsi_her2.messages import words_of
from wsi_her2.slides.location import SlideLocation, SlideUrl
from wsi_her2.slides.plausibility import MAX_TILE_BYTES
from wsi_her2.slides.remote import RemoteFile, connection_failures_raised

BackendName = Literal["tiled-jpeg", "openslide", "tiffslide", "memory"]
Pixels = npt.NDArray[np.uint8]
RGB = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Attributes
    ----------
    width, height : int
        In pixels.
    downsample : float
        Level-0 pixels that one of its pixels spans.
    stored : bool
        Whether it lies in the file; otherwise a finer one is shrunk while it is decoded.
    """

    width: int
    height: int
    downsample: float
    stored: bool = True


class Backend(Protocol):
    """An open slide file."""

    @property
    def name(self) -> BackendName:
        """Which backend this is."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """Resolutions that can be read, finest first."""

    @property
    def properties(self) -> Mapping[str, str]:
        """What the file says of itself, under OpenSlide's names."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Pixels of one level, uint8 H x W x 3 or 4; x and y in pixels of that level, inside the level."""

    def close(self) -> None:
        """Let go of the file."""


class OpenSlideBackend:
    """A slide through the OpenSlide C library."""

    name: BackendName = "openslide"

    def __init__(self, path: SlideLocation) -> None:
        import openslide

        path = file_on_disk(path, "OpenSlide")

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
        self.properties = _that_can_be_asked_for(self._slide.properties)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
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
    """A slide through tiffslide, which reads what tifffile reads, on a disk or behind a URL."""

    name: BackendName = "tiffslide"

    def __init__(self, path: SlideLocation) -> None:
        import tiffslide

        self._remote = RemoteFile(path) if isinstance(path, SlideUrl) else None
        source: Any = self._remote or path
        options = None if self._remote is None else {"name": path.name}
        with connection_failures_raised(self._remote):
            try:
                self._slide = tiffslide.TiffSlide(source, tifffile_options=options)
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
                raise UnsupportedSlide(f"tiffslide: {words_of(error)}") from error

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Read RGB pixels; see `Backend.read`."""
        downsample = self.levels[level].downsample
        origin = (round(x * downsample), round(y * downsample))
        with connection_failures_raised(self._remote):
            try:
                if self._remote is not None:
                    self._remote.fetch(self._spans(level, x, y, width, height))
                pixels = np.asarray(self._slide.read_region(origin, level, (width, height), as_array=True))
            except MemoryError as error:
                # Memory that no tile takes is a number in the file; less may truly be missing on this machine.
                shape = getattr(error, "shape", ())
                if math.prod(shape) <= MAX_TILE_BYTES:
                    raise
                raise SlideReadError(f"tiffslide: a tile says it has {shape} values") from error
            except Exception as error:
                raise SlideReadError(f"tiffslide: {words_of(error)}") from error
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise SlideReadError(
                f"tiffslide: pixels are {pixels.dtype} {'x'.join(map(str, pixels.shape))}, not 8-bit RGB"
            )
        return pixels.astype(np.uint8, copy=False)

    def _spans(self, level: int, x: int, y: int, width: int, height: int) -> list[tuple[int, int]]:
        """Where in the file the tiles of a region lie; none where the level is put together from several images.

        tifffile reads tile by tile, and over a network waiting for each takes longer than all the rest.
        """
        if "openslide.series-composition" in self.properties:
            return []
        series = self._slide.ts_tifffile.series[int(self.properties.get("openslide.series-index", 0))]
        page: Any = series.levels[level].pages[0]
        down, across = page.keyframe.chunked[:2]
        tile_height, tile_width = page.keyframe.chunks[:2]
        if len(page.dataoffsets) != down * across:
            return []
        return [
            (page.dataoffsets[number], page.dataoffsets[number] + page.databytecounts[number])
            for row in range(y // tile_height, min(down, -(-(y + height) // tile_height)))
            for number in range(
                row * across + x // tile_width, row * across + min(across, -(-(x + width) // tile_width))
            )
        ]

    def close(self) -> None:
        """Let go of the file."""
        self._slide.close()


def file_on_disk(path: SlideLocation, reader: str) -> Path:
    """The path of a slide that can only be read from a disk.

    Raises
    ------
    UnsupportedSlide
        It lies behind a URL.
    """
    if isinstance(path, SlideUrl):
        raise UnsupportedSlide(
            f"{path}: {reader} reads files on a disk only: leave the backend at auto, or copy the slide to a disk"
        )
    return path


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

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Read pixels; see `Backend.read`."""
        return self._pyramid[level][y : y + height, x : x + width]

    def close(self) -> None:
        """Nothing to let go of."""


def over_white(pixels: Pixels) -> RGB:
    """Blend RGBA pixels over white (uint8 H x W x 4 to H x W x 3); RGB pixels are returned as they are."""
    if pixels.shape[2] == 3:
        return pixels
    opacity = pixels[..., 3:]
    if opacity.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    alpha = opacity.astype(np.uint16)
    blended = (pixels[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha) + 127) // 255
    return blended.astype(np.uint8)


def _that_can_be_asked_for(properties: Mapping[str, str]) -> dict[str, str]:
    """Properties, without those whose name is not in UTF-8: OpenSlide lists them and does not give them."""
    found = {}
    for name in properties:
        with suppress(KeyError):
            found[name] = properties[name]
    return found


def _openslide_names(properties: Mapping[str, Any]) -> dict[str, str]:
    return {
        key.replace("tiffslide.", "openslide.", 1): str(value)
        for key, value in properties.items()
        if value is not None
    }
