"""Small slides of several kinds, most of them written byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import skimage.data
from PIL import Image

from tests.fuzz.tiff_bytes import (
    ASCII,
    BITS,
    COMPRESSION,
    LENGTH,
    LONG,
    MAKE,
    PHOTOMETRIC,
    RATIONAL,
    ROWS_PER_STRIP,
    SAMPLES,
    SHORT,
    UNIT,
    WIDTH,
    X_RESOLUTION,
    Y_RESOLUTION,
    Page,
    tiff,
    tiled_page,
)

TILE_PX = 128
JPEG, DEFLATE, LZW = 7, 8, 5
SUBFILE_TYPE = 254
NDPI_FORMAT, NDPI_LENS, NDPI_X, NDPI_Y, NDPI_Z, NDPI_PROPERTIES = 65420, 65421, 65422, 65423, 65424, 65449
_FLOAT, _SIGNED = 11, 9


def tissue(side: int = 512) -> np.ndarray:
    """Stained tissue with glass around it (uint8 side x side x 3)."""
    picture = np.full((side, side, 3), (236, 233, 240), np.uint8)
    inner = side * 3 // 4
    start = (side - inner) // 2
    picture[start : start + inner, start : start + inner] = skimage.data.immunohistochemistry()[:inner, :inner]
    return picture


def jpeg(pixels: np.ndarray, **options: int) -> bytes:
    """Pixels as JPEG."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        out, "JPEG", **({"quality": 85, "subsampling": 2} | options)
    )
    return out.getvalue()


ENCODERS: dict[int, Callable[[np.ndarray], bytes]] = {
    1: lambda pixels: pixels.tobytes(),
    JPEG: jpeg,
    DEFLATE: lambda pixels: zlib.compress(pixels.tobytes()),
    LZW: lambda pixels: imagecodecs.lzw_encode(pixels.tobytes()),
}


def page_of(pixels: np.ndarray, compression: int, mpp: float = 0.5, description: bytes = b"") -> Page:
    """Pixels as a page of tiles."""
    height, width = pixels.shape[:2]
    encode = ENCODERS[compression]
    tiles = [
        encode(np.ascontiguousarray(pixels[y : y + TILE_PX, x : x + TILE_PX]))
        for y in range(0, height, TILE_PX)
        for x in range(0, width, TILE_PX)
    ]
    photometric = 6 if compression == JPEG else 2
    return tiled_page(
        width,
        height,
        tiles,
        tile=(TILE_PX, TILE_PX),
        compression=compression,
        photometric=photometric,
        mpp=mpp,
        description=description,
    )


def pyramid(compression: int = JPEG, *, order: str = "<", big: bool = False, description: bytes = b"") -> bytes:
    """A slide of two levels."""
    pixels = tissue()
    levels = [page_of(pixels, compression, 0.5, description), page_of(pixels[::2, ::2], compression, 1.0)]
    levels[1].tags[SUBFILE_TYPE] = (LONG, [1])
    return tiff(levels, order=order, big=big)


def aperio(mpp: str = "0.5") -> bytes:
    """A slide as Aperio describes it."""
    text = f"Aperio Image Library v11.2.1\r\n512x512 [0,0 512x512] (128x128) JPEG/RGB Q=30|AppMag = 20|MPP = {mpp}"
    return pyramid(description=text.encode())


def hamamatsu(properties: bytes = b"") -> bytes:
    """A slide as a NanoZoomer lays it out: each level one JPEG with restart markers, and a macro image.

    `properties` are lines of `name=value`, each with both ends of line.
    """
    pixels = tissue()
    pages = [
        _ndpi_page(pixels, 20.0, restart_marker_blocks=8),
        _ndpi_page(pixels[::2, ::2], 10.0, restart_marker_blocks=8),
        _ndpi_page(pixels[::4, ::4], -1.0),
    ]
    if properties:
        pages[0].tags[NDPI_PROPERTIES] = (ASCII, properties + b"\0")
    return tiff(pages, ndpi=True)


def _ndpi_page(pixels: np.ndarray, lens: float, **options: int) -> Page:
    height, width = pixels.shape[:2]
    return Page(
        {
            WIDTH: (LONG, [width]),
            LENGTH: (LONG, [height]),
            BITS: (SHORT, [8, 8, 8]),
            COMPRESSION: (SHORT, [JPEG]),
            PHOTOMETRIC: (SHORT, [6]),
            MAKE: (ASCII, b"Hamamatsu\0"),
            SAMPLES: (SHORT, [3]),
            ROWS_PER_STRIP: (LONG, [height]),
            X_RESOLUTION: (RATIONAL, [20_000, 1]),
            Y_RESOLUTION: (RATIONAL, [20_000, 1]),
            UNIT: (SHORT, [3]),
            NDPI_FORMAT: (LONG, [1]),
            NDPI_LENS: (_FLOAT, struct.pack("<f", lens)),
            NDPI_X: (_SIGNED, [0]),
            NDPI_Y: (_SIGNED, [0]),
            NDPI_Z: (_SIGNED, [0]),
        },
        [jpeg(pixels, subsampling=0, **options)],
        tiled=False,
    )
