"""Slides that claim what cannot be: each a known way to make a reader run out of time or memory.

Every function gives the bytes of a file of a few kilobytes, so that a test needs no fixture beside it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np

from tests.fuzz.images import DEFLATE, JPEG, LZW, TILE_PX, hamamatsu, jpeg, page_of, pyramid, tissue
from tests.fuzz.tiff_bytes import (
    BITS,
    COMPRESSION,
    DESCRIPTION,
    LENGTH,
    LONG,
    LONG8,
    SAMPLES,
    SHORT,
    TILE_COUNTS,
    TILE_LENGTH,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    X_RESOLUTION,
    layout_of,
    tiff,
    tiled_page,
)

_BILLION = 10**9
_GREY = np.full((TILE_PX, TILE_PX, 3), 200, np.uint8)


def _with(data: bytes, tag: int, value: int, page: int = 0) -> bytes:
    """A file with another value in the entry of a tag."""
    layout = layout_of(data)
    assert layout is not None
    entry = next(e for e in layout.directories[page].entries if e.tag == tag)
    out = bytearray(data)
    code = {SHORT: "H", LONG: "I", LONG8: "Q"}[entry.kind]
    struct.pack_into(layout.order + code, out, entry.data_at, value)
    return bytes(out)


def billion_pixels_a_side() -> bytes:
    """10^9 x 10^9 px, and one tile."""
    return tiff(
        [tiled_page(_BILLION, _BILLION, [jpeg(_GREY)], tile=(TILE_PX,) * 2, compression=JPEG, photometric=6)]
    )


def billion_pixels_a_side_of_nothing() -> bytes:
    """10^9 x 10^9 px in BigTIFF, uncompressed, one tile."""
    return tiff([tiled_page(_BILLION, _BILLION, [_GREY.tobytes()], tile=(TILE_PX,) * 2)], big=True)


def billion_pixels_in_strips() -> bytes:
    """10^9 x 10^9 px in one strip."""
    page = tiled_page(_BILLION, _BILLION, [b"\0" * 64])
    for tag in (TILE_WIDTH, TILE_LENGTH):
        del page.tags[tag]
    page.tiled = False
    return tiff([page])


def million_pixels_a_side() -> bytes:
    """10^6 x 10^6 px whose tiles all lie at one place: a slide of a terapixel in a few megabytes."""
    side, tile = 1_000_000, 16_384
    count = (-(-side // tile)) ** 2
    data = jpeg(np.full((16, 16, 3), 200, np.uint8))
    page = tiled_page(side, side, [data], tile=(tile, tile), compression=JPEG, photometric=6)
    page.offsets, page.counts = [8] * count, [len(data)] * count
    return tiff([page])


def tile_as_large_as_the_slide() -> bytes:
    """One JPEG tile of 65,500 px a side, in a header; the JPEG itself is 128 px."""
    side = 65_488
    return tiff([tiled_page(side, side, [jpeg(_GREY)], tile=(side, side), compression=JPEG, photometric=6)])


def uncompressed_tile_of_gigabytes() -> bytes:
    """One deflated tile that claims to be 40,000 px a side: nearly 5 GB when unpacked."""
    side = 40_000
    return tiff([tiled_page(side, side, [zlib.compress(bytes(1000))], tile=(side, side), compression=DEFLATE)])


def deflate_bomb() -> bytes:
    """A tile of 49 kB of pixels that unpacks to a gigabyte."""
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    packed = b"".join(packer.compress(block) for _ in range(1024)) + packer.flush()
    return tiff([tiled_page(TILE_PX, TILE_PX, [packed], tile=(TILE_PX,) * 2, compression=DEFLATE)])


def deflate_bomb_in_a_tile_that_large() -> bytes:
    """A tile that says it is 16,384 px a side and is: 800 MB from one megabyte."""
    side = 16_384
    packer = zlib.compressobj(9)
    row = bytes(side * 3 * 16)
    packed = b"".join(packer.compress(row) for _ in range(side // 16)) + packer.flush()
    return tiff([tiled_page(side, side, [packed], tile=(side, side), compression=DEFLATE)])


def lzw_bomb() -> bytes:
    """A tile of 49 kB of pixels that unpacks to a hundred megabytes."""
    packed = imagecodecs.lzw_encode(bytes(100 * 2**20))
    return tiff([tiled_page(TILE_PX, TILE_PX, [packed], tile=(TILE_PX,) * 2, compression=LZW)])


def jpeg_larger_than_its_tile(width: int = 65_500, height: int = 65_500) -> bytes:
    """Tiles of 128 px whose JPEG says that it has billions of pixels."""
    data = bytearray(pyramid())
    layout = layout_of(bytes(data))
    assert layout is not None
    for directory in layout.directories:
        offsets, counts = (
            next(layout.numbers(bytes(data), e) for e in directory.entries if e.tag == tag)
            for tag in (TILE_OFFSETS, TILE_COUNTS)
        )
        for offset, count in zip(offsets, counts, strict=True):
            frame = bytes(data).find(b"\xff\xc0", offset, offset + count)
            struct.pack_into(">HH", data, frame + 5, height, width)
    return bytes(data)


def progressive_jpeg_bomb() -> bytes:
    """A progressive JPEG that says it has 65,500 px a side, with a thousand scans."""
    small = jpeg(_GREY, progressive=True)
    frame = small.find(b"\xff\xc2")
    data = bytearray(small)
    struct.pack_into(">HH", data, frame + 5, 65_500, 65_500)
    scan = small.rfind(b"\xff\xda")
    data = data[:-2] + bytes(data[scan:-2]) * 1000 + b"\xff\xd9"
    return tiff(
        [tiled_page(TILE_PX, TILE_PX, [bytes(data)], tile=(TILE_PX,) * 2, compression=JPEG, photometric=6)]
    )


def directories_in_a_circle() -> bytes:
    """The last directory points to the first."""
    data = bytearray(pyramid())
    layout = layout_of(bytes(data))
    assert layout is not None
    struct.pack_into("<I", data, layout.directories[-1].next_at, layout.directories[0].at)
    return bytes(data)


def directory_that_follows_itself() -> bytes:
    """The only directory points to itself."""
    data = bytearray(tiff([page_of(tissue(256), JPEG)]))
    layout = layout_of(bytes(data))
    assert layout is not None
    struct.pack_into("<I", data, layout.directories[0].next_at, layout.directories[0].at)
    return bytes(data)


def many_directories(count: int = 100_000) -> bytes:
    """A hundred thousand directories, one behind the other, all of the same small image."""
    data = bytearray(tiff([page_of(tissue(128), JPEG)]))
    layout = layout_of(bytes(data))
    assert layout is not None
    first = layout.directories[0]
    body = bytes(data[first.at : first.next_at])
    pointer = first.next_at
    for _ in range(count):
        struct.pack_into("<I", data, pointer, len(data))
        data += body + b"\0\0\0\0"
        pointer = len(data) - 4
    return bytes(data)


def directories_below_directories(depth: int = 2000) -> bytes:
    """Each directory names another as its own sub-directory."""
    pages = [page_of(tissue(128), JPEG)]
    pages[0].tags[330] = (LONG, [8] * 3)
    data = bytearray(tiff(pages))
    layout = layout_of(bytes(data))
    assert layout is not None
    entry = next(e for e in layout.directories[0].entries if e.tag == 330)
    struct.pack_into("<3I", data, entry.data_at, *[layout.directories[0].at] * 3)
    return bytes(data)


def four_billion_tiles() -> bytes:
    """Tables of tiles that claim four billion entries."""
    data = bytearray(pyramid())
    layout = layout_of(bytes(data))
    assert layout is not None
    for entry in layout.directories[0].entries:
        if entry.tag in (TILE_OFFSETS, TILE_COUNTS):
            struct.pack_into("<I", data, entry.at + 4, 0xFFFFFFFF)
    return bytes(data)


def tile_of_two_gigabytes() -> bytes:
    """Every tile says that it takes two gigabytes of the file."""
    data = bytearray(pyramid())
    layout = layout_of(bytes(data))
    assert layout is not None
    for directory in layout.directories:
        entry = next(e for e in directory.entries if e.tag == TILE_COUNTS)
        for place in range(entry.count):
            struct.pack_into("<I", data, entry.data_at + 4 * place, 2**31 - 16)
    return bytes(data)


def tiny_tiles() -> bytes:
    """100,000 x 100,000 px in tiles of 16 px: a table of 39 million tiles would be needed, and is not there."""
    return tiff([tiled_page(100_000, 100_000, [jpeg(_GREY)], tile=(16, 16), compression=JPEG, photometric=6)])


def tiles_of_one_row() -> bytes:
    """5,000 x 5,000 px in tiles of 256 x 1: a hundred thousand would be needed, and the table is for 400."""
    data = jpeg(_GREY)
    page = tiled_page(5_000, 5_000, [data], tile=(256, 1), compression=JPEG, photometric=6)
    page.offsets, page.counts = [8] * 400, [len(data)] * 400
    return tiff([page])


def no_samples() -> bytes:
    """Pixels of 65,535 samples of 65,535 bits."""
    return _with(_with(pyramid(1), SAMPLES, 65_535), BITS, 65_535)


def zero(tag: int) -> Callable[[], bytes]:
    """A slide in which one tag is zero."""
    return lambda: _with(pyramid(), tag, 0)


def description_of_megabytes() -> bytes:
    """Twenty megabytes of description, full of separators."""
    page = page_of(tissue(256), JPEG)
    page.tags[DESCRIPTION] = (2, b"Aperio Image Library v11\r\n" + b"|k=v" * 5_000_000 + b"\0")
    return tiff([page])


def xml_bomb() -> bytes:
    """An OME description whose entities grow to gigabytes."""
    entities = "".join(
        f'<!ENTITY l{level} "{"".join(f"&l{level - 1};" for _ in range(10))}">' for level in range(1, 10)
    )
    xml = (
        f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY l0 "lol">{entities}]>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Description>&l9;</Description>'
        "</Image></OME>"
    )
    page = page_of(tissue(256), JPEG)
    page.tags[DESCRIPTION] = (2, xml.encode() + b"\0")
    return tiff([page])


def hamamatsu_of_billions() -> bytes:
    """An NDPI whose tags say 10^9 px a side."""
    return _with(_with(hamamatsu(), WIDTH, _BILLION), LENGTH, _BILLION)


def hamamatsu_whose_jpeg_is_larger() -> bytes:
    """An NDPI whose JPEG says 65,500 px a side, as its tags do."""
    data = bytearray(_with(_with(hamamatsu(), WIDTH, 65_500), LENGTH, 65_500))
    frame = data.find(b"\xff\xc0")
    struct.pack_into(">HH", data, frame + 5, 65_500, 65_500)
    return bytes(data)


def hamamatsu_with_a_name_in_another_code() -> bytes:
    """An NDPI with a property whose name is Japanese in Shift JIS."""
    return hamamatsu("\u691c\u4f53=1\r\nProduct=C9600-12\r\n".encode("shift_jis"))


def resolution_of_nothing() -> bytes:
    """Pixels per centimetre are 0 / 0."""
    data = bytearray(pyramid())
    layout = layout_of(bytes(data))
    assert layout is not None
    for entry in layout.directories[0].entries:
        if entry.tag in (X_RESOLUTION, X_RESOLUTION + 1):
            struct.pack_into("<II", data, entry.data_at, 0, 0)
    return bytes(data)


def thin(width: int, height: int) -> Callable[[], bytes]:
    """A slide of a few pixels in one direction and very many in the other."""

    def made() -> bytes:
        across, down = -(-width // TILE_PX), -(-height // TILE_PX)
        data = jpeg(tissue(TILE_PX))
        page = tiled_page(width, height, [data], tile=(TILE_PX,) * 2, compression=JPEG, photometric=6)
        page.offsets, page.counts = [8] * (across * down), [len(data)] * (across * down)
        return tiff([page])

    return made


def level_larger_than_the_first() -> bytes:
    """A second level that says it is larger than the first."""
    return _with(_with(pyramid(), WIDTH, 30_000, 1), LENGTH, 30_000, 1)


SLIDES: dict[str, Callable[[], bytes]] = {
    function.__name__: function
    for function in (
        billion_pixels_a_side,
        billion_pixels_a_side_of_nothing,
        billion_pixels_in_strips,
        million_pixels_a_side,
        tile_as_large_as_the_slide,
        uncompressed_tile_of_gigabytes,
        deflate_bomb,
        deflate_bomb_in_a_tile_that_large,
        lzw_bomb,
        jpeg_larger_than_its_tile,
        progressive_jpeg_bomb,
        directories_in_a_circle,
        directory_that_follows_itself,
        many_directories,
        directories_below_directories,
        four_billion_tiles,
        tile_of_two_gigabytes,
        tiny_tiles,
        tiles_of_one_row,
        no_samples,
        description_of_megabytes,
        xml_bomb,
        hamamatsu_of_billions,
        hamamatsu_whose_jpeg_is_larger,
        hamamatsu_with_a_name_in_another_code,
        resolution_of_nothing,
        level_larger_than_the_first,
    )
}
SLIDES |= {f"zero_{tag}": zero(tag) for tag in (WIDTH, LENGTH, COMPRESSION, SAMPLES, TILE_WIDTH, TILE_LENGTH)}
SLIDES |= {"wide_and_flat": thin(600_000, 3), "tall_and_thin": thin(3, 600_000)}
"""Hostile slides by name."""
