"""Writing a tiled pyramidal JPEG TIFF from a renderer, in constant memory.

The renderer is asked for large blocks of level 0 only, each pixel once. A block is encoded at once into the
tiles of every level that it covers in whole tiles; the coarser levels are assembled from bands of one tile
row. Encoded tiles wait in unnamed spool files beside the target and are then copied, level by level, into the
TIFF.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_her2.atomic import file_beside
from wsi_her2.errors import ConfigurationError, HER2Error, OutputError

Pixels = NDArray[np.uint8]
Render = Callable[[int, int, int, int], Pixels]

# A block of 2048 px keeps a process below some 100 MB of pixels and is large enough to hide the calls.
_BLOCK_PX = 2048
# Coarser levels are added until the longest side fits a thumbnail.
_SMALLEST_SIDE_PX = 1024
# Classic TIFF counts its offsets in 32 bits; some room is left for directories and tile tables.
_CLASSIC_TIFF_BYTES = 2**32 - 2**26


def write_pyramid(
    path: str | os.PathLike[str],
    width: int,
    height: int,
    render: Render,
    *,
    mpp: float,
    tile_px: int = 256,
    quality: int = 90,
    levels: int | None = None,
    description: str = "",
    workers: int = 1,
) -> Path:
    """Write a slide file whose pixels come from a function.

    Parameters
    ----------
    path
        The TIFF to write. It appears under this name only when it is complete.
    width, height
        Size of level 0, in pixels.
    render
        ``render(x, y, w, h)`` returns the ``uint8`` RGB pixels, ``h x w x 3``, of a block of level 0. Blocks
        are asked for in row order and do not overlap. With more than one worker it must be picklable.
    mpp
        Microns per pixel of level 0, written as the resolution in pixels per centimetre.
    tile_px
        Side of the square tiles, a multiple of 16 (a rule of TIFF).
    quality
        JPEG quality, 1 to 100. Chroma is subsampled 4:2:0, as slide scanners do.
    levels
        Number of levels, each half of the one before. By default as many as it takes to reach 1024 px.
    description
        ASCII text for the ImageDescription tag.
    workers
        Processes that render and encode. The file is the same to the byte for any number.

    Returns
    -------
    Path
        The finished file.

    Raises
    ------
    ConfigurationError
        An argument is out of range, or `render` returned pixels of another shape or type.
    OutputError
        The file cannot be written.
    """
    target = Path(path)
    _check_arguments(target, width, height, mpp, tile_px, quality, levels, description, workers)
    sizes = _level_sizes(width, height, levels)
    block_px = _block_size(tile_px)
    encoder = _BlockEncoder(render, tile_px, quality, min(len(sizes), (block_px // tile_px).bit_length()))
    try:
        with file_beside(target) as beside, ExitStack() as stack:
            spools = [
                _Spool(stack.enter_context(tempfile.TemporaryFile(dir=target.parent)), -(-w // tile_px))
                for w, _ in sizes
            ]
            _render_levels(encoder, sizes, spools, block_px, workers)
            _assemble(beside, sizes, spools, mpp, tile_px, description)
    except OSError as error:
        if isinstance(error, HER2Error):
            raise
        raise OutputError(
            f"cannot write the slide {target}: {error}. Check the folder and its free space."
        ) from error
    return target


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Pixels (uint8 H x W x 3) as JPEG, chroma subsampled 4:2:0 as slide scanners do; quality 1 to 100."""
    return bytes(
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(pixels),
            level=quality,
            colorspace="RGB",
            outcolorspace="YCBCR",
            subsampling=(2, 2),
        )
    )


def _check_arguments(
    target: Path,
    width: int,
    height: int,
    mpp: float,
    tile_px: int,
    quality: int,
    levels: int | None,
    description: str,
    workers: int,
) -> None:
    wrong = None
    if width < 1 or height < 1:
        wrong = f"the size must be at least 1 x 1 px, not {width} x {height}"
    elif not 0.01 <= mpp <= 100:
        wrong = f"mpp must lie between 0.01 and 100 um/px, not {mpp}"
    elif tile_px < 16 or tile_px % 16:
        wrong = f"tile_px must be a multiple of 16, not {tile_px}"
    elif not 1 <= quality <= 100:
        wrong = f"quality must lie between 1 and 100, not {quality}"
    elif levels is not None and levels < 1:
        wrong = f"levels must be at least 1, not {levels}"
    elif workers < 1:
        wrong = f"workers must be at least 1, not {workers}"
    elif not description.isascii():
        wrong = "description must be ASCII, as the TIFF tag is"
    if wrong:
        raise ConfigurationError(f"cannot write the slide {target}: {wrong}.")


def _level_sizes(width: int, height: int, levels: int | None) -> list[tuple[int, int]]:
    """Width and height of each level; odd sides are rounded up so that no pixel is lost."""
    sizes = [(width, height)]
    while (max(sizes[-1]) > _SMALLEST_SIDE_PX) if levels is None else (len(sizes) < levels):
        w, h = sizes[-1]
        sizes.append(((w + 1) // 2, (h + 1) // 2))
    return sizes


def _block_size(tile_px: int) -> int:
    """Side of a rendered block: the tile doubled as long as it stays within the usual block."""
    block_px = tile_px
    while block_px * 2 <= _BLOCK_PX:
        block_px *= 2
    return block_px


def _halve(pixels: Pixels) -> Pixels:
    """Average 2 x 2 pixels; an odd last row or column is repeated first."""
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    half: Pixels = cv2.resize(
        pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2), interpolation=cv2.INTER_AREA
    ).astype(np.uint8, copy=False)
    return half


def _encode_tiles(pixels: Pixels, tile_px: int, quality: int) -> list[list[bytes]]:
    """Rows of JPEG tiles; the last ones are filled up by repeating the edge, which costs the fewest bytes."""
    height, width = pixels.shape[:2]
    if height % tile_px or width % tile_px:
        pixels = np.pad(pixels, ((0, -height % tile_px), (0, -width % tile_px), (0, 0)), mode="edge")
    return [
        [encode_jpeg(pixels[y : y + tile_px, x : x + tile_px], quality) for x in range(0, width, tile_px)]
        for y in range(0, height, tile_px)
    ]


@dataclass(frozen=True)
class _BlockEncoder:
    """Renders one block of level 0 and encodes it for the levels of which it fills whole tiles."""

    render: Render
    tile_px: int
    quality: int
    levels: int

    def __call__(self, box: tuple[int, int, int, int]) -> tuple[list[list[list[bytes]]], Pixels]:
        _, _, width, height = box
        pixels = self.render(*box)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (height, width, 3):
            got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
            raise ConfigurationError(f"render{box} must return uint8 ({height}, {width}, 3), not {got}.")
        encoded = [_encode_tiles(pixels, self.tile_px, self.quality)]
        for _ in range(1, self.levels):
            pixels = _halve(pixels)
            encoded.append(_encode_tiles(pixels, self.tile_px, self.quality))
        return encoded, pixels


@dataclass
class _Spool:
    """The encoded tiles of one level, in the order in which they came."""

    file: IO[bytes]
    tiles_across: int
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    size: int = 0

    def put(self, column: int, row: int, rows: list[list[bytes]]) -> None:
        for dy, tiles in enumerate(rows):
            for dx, tile in enumerate(tiles):
                self.places[(row + dy) * self.tiles_across + column + dx] = (self.size, len(tile))
                self.file.write(tile)
                self.size += len(tile)

    def __iter__(self) -> Iterator[bytes]:
        for number in range(len(self.places)):
            offset, length = self.places[number]
            self.file.seek(offset)
            yield self.file.read(length)


@dataclass
class _Band:
    """One tile row of a coarse level, filled from above and handed down when it is full."""

    pixels: Pixels
    level_height: int
    row: int = 0
    filled: int = 0


_encoder: _BlockEncoder | None = None


def _start_worker(encoder: _BlockEncoder) -> None:
    global _encoder
    _encoder = encoder
    # The processes already fill the cores; OpenCV's own threads would only compete with them.
    cv2.setNumThreads(1)


def _encode_in_worker(box: tuple[int, int, int, int]) -> tuple[list[list[list[bytes]]], Pixels]:
    if _encoder is None:
        raise RuntimeError("the worker process was not initialised")
    return _encoder(box)


def _blocks(
    encoder: _BlockEncoder, boxes: list[tuple[int, int, int, int]], workers: int
) -> Iterator[tuple[tuple[int, int, int, int], tuple[list[list[list[bytes]]], Pixels]]]:
    """Encoded blocks in the order of `boxes`, with a bounded number in flight."""
    if workers == 1 or len(boxes) == 1:
        for box in boxes:
            yield box, encoder(box)
        return
    # Spawned rather than forked: a fork of a process that holds threads (OpenCV, Dask) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(boxes)), context, _start_worker, (encoder,)) as pool:
        pending: deque[tuple[tuple[int, int, int, int], Future[Any]]] = deque()
        try:
            for box in boxes:
                if len(pending) >= 2 * workers:
                    first, future = pending.popleft()
                    yield first, future.result()
                pending.append((box, pool.submit(_encode_in_worker, box)))
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _render_levels(
    encoder: _BlockEncoder,
    sizes: list[tuple[int, int]],
    spools: list[_Spool],
    block_px: int,
    workers: int,
) -> None:
    width, height = sizes[0]
    tile_px = encoder.tile_px
    direct = encoder.levels
    bands = [
        _Band(np.zeros((tile_px, w, 3), np.uint8), h)
        for w, h in (sizes[direct - 1 :] if len(sizes) > direct else [])
    ]
    boxes = [
        (x, y, min(block_px, width - x), min(block_px, height - y))
        for y in range(0, height, block_px)
        for x in range(0, width, block_px)
    ]
    for (x, y, w, _), (encoded, coarsest) in _blocks(encoder, boxes, workers):
        for level, rows in enumerate(encoded):
            spools[level].put((x >> level) // tile_px, (y >> level) // tile_px, rows)
        if bands:
            left = x >> (direct - 1)
            bands[0].pixels[: coarsest.shape[0], left : left + coarsest.shape[1]] = coarsest
            bands[0].filled = coarsest.shape[0]
            if x + w == width:
                _hand_down(bands, spools[direct:], encoder)


def _hand_down(bands: list[_Band], spools: list[_Spool], encoder: _BlockEncoder) -> None:
    """Halve the full first band into the next, encode that one when it is full, and so on."""
    encode = partial(_encode_tiles, tile_px=encoder.tile_px, quality=encoder.quality)
    for upper, lower, spool in zip(bands[:-1], bands[1:], spools, strict=True):
        half = _halve(upper.pixels[: upper.filled])
        upper.row += 1
        upper.filled = 0
        lower.pixels[lower.filled : lower.filled + half.shape[0]] = half
        lower.filled += half.shape[0]
        done = lower.row * encoder.tile_px + lower.filled
        if lower.filled < encoder.tile_px and done < lower.level_height:
            return
        spool.put(0, lower.row, encode(lower.pixels[: lower.filled]))
    # The coarsest level hands down to nobody, and is empty again.
    bands[-1].row += 1
    bands[-1].filled = 0


def _assemble(
    path: Path,
    sizes: list[tuple[int, int]],
    spools: list[_Spool],
    mpp: float,
    tile_px: int,
    description: str,
) -> None:
    bytes_in_all = sum(spool.size + 16 * len(spool.places) for spool in spools)
    with tifffile.TiffWriter(path, bigtiff=bytes_in_all > _CLASSIC_TIFF_BYTES) as tiff:
        for level, ((width, height), spool) in enumerate(zip(sizes, spools, strict=True)):
            # The resolution is that of the pixels of the level, so that each one states its own spacing.
            across, down = 1e4 / mpp * width / sizes[0][0], 1e4 / mpp * height / sizes[0][1]
            tiff.write(
                iter(spool),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(tile_px, tile_px),
                photometric="ycbcr",
                compression="jpeg",
                subsampling=(2, 2),
                subfiletype=1 if level else 0,
                resolution=(across, down),
                resolutionunit="CENTIMETER",
                software="wsi_her2",
                description=description if level == 0 else None,
                metadata=None,
            )
