"""What a TIFF file claims to hold, looked at before a library believes it.

The libraries that decode slides allocate what a file says and follow where it points. A file of a few kilobytes
can so ask for terabytes, or lead in a circle. Here only directories are read, no pixels, and only what cannot be
true of any slide is refused; whatever is merely odd or damaged is left to the libraries, which say better what is
wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wsi_her2.errors import UnsupportedSlide
from wsi_her2.slides.location import SlideLocation

MAX_SIDE_PX = 4_000_000
"""Of a level: 200 mm, the length of the largest glass in use, at 0.05 um/px, the finest scale that is accepted."""

MAX_PIXELS_PER_BYTE = 20_000
"""Of an image, for each byte of the file. An empty tile takes a byte for some 200 pixels as JPEG and for 350
deflated; a slide of which one part in fifty is stored, and the rest left out as empty, is still below this."""

MAX_PIXELS = 500_000_000_000
"""Of the finest level: the whole of a glass of 75 x 50 mm at 0.1 um/px has 375,000,000,000."""

MAX_COARSEST_PIXELS = 4_000_000_000
"""Of the coarsest level, which is read whole to find the tissue: half a minute of decoding. Scanners write a
coarser one long before."""

MAX_TILE_BYTES = 256 * 2**20
"""Of one decoded tile or strip: tiles have 0.2 to 3 MB, and a whole image in one strip some tens."""

MAX_DIRECTORIES = 2000
"""In a file. Slides have some ten; stacks of focal planes and of channels have hundreds."""

MAX_ENTRIES = 1000
"""In a directory. Some sixty tags are in use."""

MAX_TEXT_BYTES = 8 * 2**20
"""Of a description. Those that hold a label and a macro image, as Philips writes, take one or two megabytes."""

_WIDTH, _LENGTH, _BITS, _DESCRIPTION, _SAMPLES, _ROWS_PER_STRIP = 256, 257, 258, 270, 277, 278
_STRIP_OFFSETS, _STRIP_COUNTS = 273, 279
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _SUB_DIRECTORIES, _NDPI = 322, 323, 324, 325, 330, 65420
_TABLES = {_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS}
_MOST_TILES = 4_000_000
_NUMBERS = {_WIDTH, _LENGTH, _BITS, _SAMPLES, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH}
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types that whole numbers have: BYTE, SHORT, LONG, IFD, LONG8, IFD8."""


@dataclass(frozen=True)
class _Directory:
    """What is needed of a directory.

    Attributes
    ----------
    numbers : dict of int to int
        By tag.
    entries : dict of int to int
        How many tiles or strips a table says it is for, by its tag.
    table_bytes, text_bytes, largest_tile : int
        What the largest table of tiles, the description and the largest tile say they take.
    """

    numbers: dict[int, int]
    entries: dict[int, int]
    table_bytes: int
    text_bytes: int
    largest_tile: int

    def of(self, tag: int, otherwise: int) -> int:
        """A number, or what holds where the tag is missing."""
        return self.numbers.get(tag, otherwise)


def refuse_impossible_tiff(path: Path) -> None:
    """Refuse a TIFF file whose directories cannot be those of a slide; other files are passed over.

    Parameters
    ----------
    path : pathlib.Path

    Raises
    ------
    UnsupportedSlide
        Sizes that no slide has, sizes that the file is too small for, directories in a circle or without end.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            for number, directory in enumerate(_directories(stream, size, path)):
                _refuse_impossible(directory, number, size, path)
    except OSError:
        # That the file cannot be read is said by what opens it.
        return


def refuse_impossible_levels(path: SlideLocation, levels: Sequence[tuple[int, int]]) -> None:
    """Refuse a slide, of whatever format, with levels that cannot be or that it would take hours to look at.

    Parameters
    ----------
    path : pathlib.Path or SlideUrl
    levels : sequence of (int, int)
        Width and height of what is stored, finest first, pixels.

    Raises
    ------
    UnsupportedSlide
    """
    if not levels or min(min(level) for level in levels) < 1:
        raise _impossible(path, "it has no level with pixels")
    width, height = levels[0]
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise _impossible(
            path,
            f"it says it has {width:,} x {height:,} px; the limit is {MAX_SIDE_PX:,}, and {MAX_PIXELS:,} in all",
        )
    width, height = min(levels, key=lambda level: level[0] * level[1])
    if width * height > MAX_COARSEST_PIXELS:
        raise UnsupportedSlide(
            f"{path.name}: its coarsest level has {width:,} x {height:,} px; no more than {MAX_COARSEST_PIXELS:,} "
            "are looked at to find tissue: export it with a pyramid of levels"
        )


def _refuse_impossible(directory: _Directory, number: int, size: int, path: Path) -> None:
    width, length = directory.of(_WIDTH, 0), directory.of(_LENGTH, 0)
    where = f"image {number + 1} of the file"
    if max(width, length) > MAX_SIDE_PX:
        raise _impossible(
            path, f"{where} says it has {width:,} x {length:,} px; no side can exceed {MAX_SIDE_PX:,}"
        )
    if width * length > MAX_PIXELS_PER_BYTE * size:
        raise _impossible(
            path, f"{where} says it has {width:,} x {length:,} px, which a file of {size:,} bytes cannot hold"
        )
    if directory.text_bytes > MAX_TEXT_BYTES:
        raise _impossible(
            path, f"{where} has {directory.text_bytes:,} bytes of description; {MAX_TEXT_BYTES:,} is the limit"
        )
    # Room is made for a table, and for what a tile says it takes, before either is read.
    if directory.table_bytes > size:
        raise _impossible(
            path,
            f"the table of tiles of {where} says it takes {directory.table_bytes:,} bytes of a file of {size:,}",
        )
    if directory.largest_tile > max(size, MAX_TILE_BYTES):
        raise _impossible(
            path, f"a tile of {where} says it takes {directory.largest_tile:,} bytes of a file of {size:,}"
        )
    if _NDPI in directory.numbers:
        # A level is one JPEG there, as large as it is; OpenSlide decodes it in parts.
        return
    _refuse_too_few_tiles(directory, where, path)
    across = directory.of(_TILE_WIDTH, width)
    down = directory.of(_TILE_LENGTH, min(directory.of(_ROWS_PER_STRIP, length), length))
    decoded = across * down * directory.of(_SAMPLES, 1) * max(1, directory.of(_BITS, 8) // 8)
    if decoded > MAX_TILE_BYTES:
        raise _impossible(
            path, f"one tile of {where} takes {decoded:,} bytes of memory; {MAX_TILE_BYTES:,} is the limit"
        )


def _refuse_too_few_tiles(directory: _Directory, where: str, path: Path) -> None:
    """Refuse tiles of a size at which the image has more than the table is for: readers look for each of them."""
    width, length = directory.of(_WIDTH, 0), directory.of(_LENGTH, 0)
    across, down = directory.of(_TILE_WIDTH, 0), directory.of(_TILE_LENGTH, 0)
    if not across or not down:
        return
    needed = -(-width // across) * -(-length // down)
    there = min(directory.entries.get(tag, needed) for tag in (_TILE_OFFSETS, _TILE_COUNTS))
    if there < needed:
        raise _impossible(
            path,
            f"{where} says it has {width:,} x {length:,} px in tiles of {across:,} x {down:,}: that is {needed:,} "
            f"tiles, and its table has {there:,}",
        )


def _impossible(path: SlideLocation, why: str) -> UnsupportedSlide:
    return UnsupportedSlide(
        f"{path.name}: cannot be a slide: {why}. The file is damaged or was made to do harm: copy it again from "
        "the scanner, and be careful with where it came from if that does not help."
    )


def _directories(stream: IO[bytes], size: int, path: Path) -> Iterator[_Directory]:
    """Directories one after the other, those below them included, as far as they can be followed."""
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return
    magic = struct.unpack_from(f"{order}H", head, 2)[0]
    if magic not in (42, 43):
        return
    big = magic == 43
    at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", head, 8 if big else 4)[0]
    ndpi = False
    if not big and order == "<":
        # Hamamatsu writes offsets of directories with eight bytes, though the file says it is a classic TIFF.
        wide = struct.unpack_from("<Q", head, 4)[0]
        for candidate in dict.fromkeys((wide, at)):
            read = _directory(stream, candidate, size, order, big)
            if read is not None and _NDPI in read[0].numbers:
                at, ndpi = candidate, True
                break
    followed: set[int] = set()
    seen: set[int] = set()
    pending = [(at, True)]
    while pending:
        at, in_chain = pending.pop()
        if at in followed:
            raise _impossible(path, "its directories lead in a circle")
        if at == 0 or at in seen:
            continue
        seen.add(at)
        if len(seen) > MAX_DIRECTORIES:
            raise _impossible(path, f"it has more than {MAX_DIRECTORIES:,} images")
        if in_chain:
            followed.add(at)
        read = _directory(stream, at, size, order, big)
        if read is None:
            continue
        directory, below, end = read
        yield directory
        code = order + ("Q" if big or ndpi else "I")
        stream.seek(end)
        following = stream.read(struct.calcsize(code))
        if in_chain and len(following) == struct.calcsize(code):
            pending.append((struct.unpack(code, following)[0], True))
        # Looked at before the chain goes on: one that is in the chain too would be read for ever.
        pending.extend((place, False) for place in below)


def _directory(
    stream: IO[bytes], at: int, size: int, order: str, big: bool
) -> tuple[_Directory, list[int], int] | None:
    """A directory, the offsets of those below it, and where it ends; None where there can be none."""
    if not 8 <= at < size:
        return None
    stream.seek(at)
    count_code, entry_code, room = (order + "Q", order + "HHQ", 8) if big else (order + "H", order + "HHI", 4)
    head = stream.read(struct.calcsize(count_code))
    if len(head) < struct.calcsize(count_code):
        return None
    count = struct.unpack(count_code, head)[0]
    if not 0 < count <= MAX_ENTRIES:
        return None
    entry_bytes = struct.calcsize(entry_code) + room
    table = stream.read(count * entry_bytes)
    if len(table) < count * entry_bytes:
        return None
    numbers: dict[int, int] = {}
    entries: dict[int, int] = {}
    table_bytes = text_bytes = largest_tile = 0
    below: list[int] = []
    for start in range(0, len(table), entry_bytes):
        tag, kind, values = struct.unpack_from(entry_code, table, start)
        place = table[start + entry_bytes - room : start + entry_bytes]
        if tag in _TABLES and kind in _CODES:
            entries[tag] = max(entries.get(tag, 0), values)
            table_bytes = max(table_bytes, values * struct.calcsize(order + _CODES[kind]))
        if tag == _NDPI:
            numbers[tag] = 1
        elif tag == _DESCRIPTION:
            text_bytes = values
        elif tag in _NUMBERS and kind in _CODES and values > 0:
            # Of the bits of all samples the first stands for the others.
            first = _first_number(stream, order, kind, values, place)
            # The libraries differ in which of two equal tags they take; the larger one decides here.
            numbers[tag] = max(numbers.get(tag, 0), first)
        elif tag == _TILE_COUNTS and kind in _CODES and 0 < values <= min(size, _MOST_TILES):
            largest_tile = max(_numbers(stream, order, kind, values, place), default=0)
        elif tag == _SUB_DIRECTORIES and kind in _CODES and 0 < values <= size:
            below += _numbers(stream, order, kind, min(values, MAX_DIRECTORIES), place)
    return _Directory(numbers, entries, table_bytes, text_bytes, largest_tile), below, at + len(head) + len(table)


def _first_number(stream: IO[bytes], order: str, kind: int, values: int, place: bytes) -> int:
    numbers = _numbers(stream, order, kind, 1, place, stored=values)
    return numbers[0] if numbers else 0


def _numbers(
    stream: IO[bytes], order: str, kind: int, wanted: int, place: bytes, *, stored: int | None = None
) -> list[int]:
    """The first numbers of an entry, which lie in it or elsewhere in the file."""
    code = _CODES[kind]
    each = struct.calcsize(order + code)
    if each * (wanted if stored is None else stored) <= len(place):
        data = place
    else:
        stream.seek(struct.unpack(f"{order}{'Q' if len(place) == 8 else 'I'}", place)[0])
        data = stream.read(each * wanted)
    whole = min(wanted, len(data) // each)
    return list(struct.unpack_from(f"{order}{whole}{code}", data))
