"""The fast way into slides whose levels are JPEG tiles: each tile is decoded once, shrunk while it is decoded.

OpenSlide says what the file is and what its levels are; tifffile says where the tiles lie; libjpeg-turbo decodes
them. A tile that is damaged or missing is read through OpenSlide, and so is every other kind of file.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.errors import SlideReadError, UnsupportedSlide
from wsi_her2.slides.backends import (
    RGB,
    BackendName,
    Level,
    OpenSlideBackend,
    Pixels,
    file_on_disk,
    over_white,
)
from wsi_her2.slides.location import SlideLocation

_VENDORS = ("aperio", "generic-tiff")
"""Those whose tiles lie edge to edge from the corner of each level; others overlap them or leave some out."""

_RGB, _YCBCR, _JPEG = 2, 6, 7
"""Values of TIFF tags: PhotometricInterpretation and Compression."""

_REDUCTIONS = (2, 4, 8)

_INTERPOLATED = 5.0
"""Grey levels by which OpenSlide may differ where a level is no whole fraction of the first, so that its pixels
lie between those of the file. Another tile or colour space differs by far more."""

_START_OF_IMAGE = b"\xff\xd8"


class TiledJpegBackend:
    """A slide of JPEG tiles, decoded tile by tile.

    Parameters
    ----------
    path : pathlib.Path

    Raises
    ------
    UnsupportedSlide
        OpenSlide does not open the file, a level does not consist of JPEG tiles, or one of them does not decode to
        the pixels that OpenSlide gives.
    """

    name: BackendName = "tiled-jpeg"

    def __init__(self, path: SlideLocation) -> None:
        # Loaded where they are needed: most processes of a run never open a file.
        import simplejpeg

        path = file_on_disk(path, "tiled-jpeg")
        self._decode_jpeg = simplejpeg.decode_jpeg
        self._jpeg_header = simplejpeg.decode_jpeg_header
        self._openslide = OpenSlideBackend(path)
        self.properties = self._openslide.properties
        try:
            vendor = self.properties.get("openslide.vendor")
            if vendor not in _VENDORS:
                raise UnsupportedSlide(f"tiled JPEG: the layout of {vendor} files is left to OpenSlide")
            self._file = path.open("rb", buffering=0)
            self._bytes = path.stat().st_size
            # Slides are let go of without being closed, by threads that end.
            weakref.finalize(self, self._file.close)
        except (UnsupportedSlide, OSError):
            self._openslide.close()
            raise
        try:
            self._tiles = _find_tiles(path, self._openslide.levels)
            if not all(self._agrees(index) for index in range(len(self._tiles))):
                raise UnsupportedSlide("tiled JPEG: the tiles do not decode to what OpenSlide gives")
        except UnsupportedSlide:
            self.close()
            raise
        self._readable = _with_shrunk(self._openslide.levels)
        self.levels = tuple(readable.level for readable in self._readable)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Read RGB pixels; see `wsi_her2.slides.backends.Backend.read`."""
        stored, reduction = self._readable[level].stored, self._readable[level].reduction
        tiles = self._tiles[stored]
        side_x, side_y = tiles.width // reduction, tiles.height // reduction
        region = np.empty((height, width, 3), np.uint8)
        for row in range(y // side_y, (y + height - 1) // side_y + 1):
            top, bottom = max(y, row * side_y), min(y + height, (row + 1) * side_y)
            for column in range(x // side_x, (x + width - 1) // side_x + 1):
                left, right = max(x, column * side_x), min(x + width, (column + 1) * side_x)
                tile = self._decode(stored, row * tiles.across + column, reduction)
                region[top - y : bottom - y, left - x : right - x] = tile[
                    top - row * side_y : bottom - row * side_y, left - column * side_x : right - column * side_x
                ]
        return region

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._openslide.close()

    def _decode(self, stored: int, number: int, reduction: int) -> RGB:
        """A tile, through OpenSlide where it cannot be decoded here."""
        tiles = self._tiles[stored]
        try:
            return self._tile(tiles, number, reduction)
        except SlideReadError:
            x, y = number % tiles.across * tiles.width, number // tiles.across * tiles.height
            whole = over_white(self._openslide.read(stored, x, y, tiles.width, tiles.height))
            size = (tiles.width // reduction, tiles.height // reduction)
            return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _tile(self, tiles: _Tiles, number: int, reduction: int) -> RGB:
        offset, size = int(tiles.offsets[number]), int(tiles.sizes[number])
        # Before it is read: room is made for as many bytes as are asked for, whether they are there or not.
        if size <= len(_START_OF_IMAGE) or offset < 0 or offset + size > self._bytes:
            raise SlideReadError(f"tiled JPEG: tile {number} is missing or cut off")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) < size:
            raise SlideReadError(f"tiled JPEG: tile {number} is missing or cut off")
        jpeg = tiles.head + data[len(_START_OF_IMAGE) :]
        height, width = tiles.height // reduction, tiles.width // reduction
        try:
            # Before it is decoded: a few bytes can say that they are gigabytes of pixels.
            if self._jpeg_header(jpeg)[:2] != (tiles.height, tiles.width):
                raise SlideReadError(f"tiled JPEG: tile {number} is of another size than the file says")
            pixels = self._decode_jpeg(jpeg, min_height=height, min_width=width, min_factor=reduction)
        except ValueError as error:
            raise SlideReadError(f"tiled JPEG: tile {number}: {error}") from error
        if pixels.shape != (height, width, 3):
            raise SlideReadError(f"tiled JPEG: tile {number} is of another size than the file says")
        return np.asarray(pixels, np.uint8)

    def _agrees(self, index: int) -> bool:
        """Whether the tile that says most is what OpenSlide makes of it.

        That catches what tags do not tell for certain: the colour space, the order of tiles, padding.
        """
        tiles, level = self._tiles[index], self._openslide.levels[index]
        number = int(np.argmax(tiles.sizes))
        x, y = number % tiles.across * tiles.width, number // tiles.across * tiles.height
        width, height = min(tiles.width, level.width - x), min(tiles.height, level.height - y)
        try:
            ours = self._tile(tiles, number, 1)[:height, :width]
            theirs = over_white(self._openslide.read(index, x, y, width, height))
        except SlideReadError:
            return False
        limit = 0.0 if level.downsample.is_integer() else _INTERPOLATED
        return float(cv2.absdiff(ours, theirs).mean()) <= limit


@dataclass(frozen=True)
class _Readable:
    """A level, and how it is made: from which stored one, shrunk by what."""

    level: Level
    stored: int
    reduction: int


def _with_shrunk(levels: tuple[Level, ...]) -> list[_Readable]:
    """Levels of the file, and between and below them those that libjpeg makes while it decodes one of them."""
    readable = []
    for index, level in enumerate(levels):
        readable.append(_Readable(level, index, 1))
        next_stored = levels[index + 1].downsample if index + 1 < len(levels) else math.inf
        for reduction in _REDUCTIONS:
            downsample = level.downsample * reduction
            width, height = level.width // reduction, level.height // reduction
            if downsample < next_stored * 0.99 and min(width, height) > 0:
                readable.append(_Readable(Level(width, height, downsample, stored=False), index, reduction))
    return readable


@dataclass(frozen=True, eq=False)
class _Tiles:
    """Where the tiles of a level lie in the file.

    Attributes
    ----------
    width, height : int
        Of a tile, pixels.
    across : int
        Tiles in a row.
    offsets, sizes : int64 n
        In bytes, row by row.
    head : bytes
        What every tile begins with instead of its own two first bytes: the tables that tiles share, and the colour
        space, which the decoder would otherwise guess.
    """

    width: int
    height: int
    across: int
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    head: bytes


def _find_tiles(path: Path, levels: tuple[Level, ...]) -> list[_Tiles]:
    """Tiles of each level.

    Raises
    ------
    UnsupportedSlide
        A level does not consist of 8-bit JPEG tiles in colour, or the file is damaged.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages: Iterable[Any] = file.pages
            by_size = {(page.imagewidth, page.imagelength): page for page in pages if _is_tiled_jpeg(page)}
            return [_tiles_of(by_size[level.width, level.height]) for level in levels]
    except KeyError as error:
        raise UnsupportedSlide("tiled JPEG: a level does not consist of JPEG tiles in colour") from error
    except (MemoryError, UnsupportedSlide):
        raise
    except Exception as error:  # what it raises on damaged files shares no base class
        raise UnsupportedSlide(f"tiled JPEG: {' '.join(str(error).split())[:200]}") from error


def _is_tiled_jpeg(page: Any) -> bool:
    whole_blocks = page.is_tiled and page.tilewidth % 16 == 0 and page.tilelength % 16 == 0
    colour = page.samplesperpixel == 3 and page.bitspersample == 8 and page.planarconfig == 1
    return bool(whole_blocks and colour and page.compression == _JPEG and page.photometric in (_RGB, _YCBCR))


def _tiles_of(page: Any) -> _Tiles:
    across, down = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    offsets, sizes = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    if len(offsets) != across * down or len(sizes) != across * down:
        raise UnsupportedSlide("tiled JPEG: tiles are missing from the index")
    # The tables are a JPEG of their own, between a start and an end of image.
    tables = page.jpegtables[:-2] if page.jpegtables else _START_OF_IMAGE
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([page.photometric == _YCBCR])
    return _Tiles(page.tilewidth, page.tilelength, across, offsets, sizes, tables + adobe)
