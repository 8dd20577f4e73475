"""TIFF files as bytes: where every number of a directory lies, and files written number by number.

No TIFF library is used: what is to be written here is what such a library refuses to write.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

BYTE, ASCII, SHORT, LONG, RATIONAL, LONG8 = 1, 2, 3, 4, 5, 16
_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 16: "Q", 17: "q", 18: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION, MAKE, STRIP_OFFSETS = (
    256,
    257,
    258,
    259,
    262,
    270,
    271,
    273,
)
SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION, UNIT = 277, 278, 279, 282, 283, 296
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS, SUB_DIRECTORIES = 322, 323, 324, 325, 330


@dataclass(frozen=True)
class Entry:
    """A tag where it stands in the file.

    Attributes
    ----------
    at : int
        Byte at which the entry begins.
    tag, kind, count : int
    value_at : int
        Byte of its count's successor: the value, or the offset of the values.
    data_at : int
        Byte of the first value, wherever that is.
    """

    at: int
    tag: int
    kind: int
    count: int
    value_at: int
    data_at: int


@dataclass(frozen=True)
class Directory:
    """An image file directory: its entries, and the byte at which the offset of the next one stands."""

    at: int
    entries: tuple[Entry, ...]
    next_at: int


@dataclass(frozen=True)
class Layout:
    """How numbers of a file are written, and its directories."""

    order: str
    big: bool
    directories: tuple[Directory, ...]

    @property
    def offset_code(self) -> str:
        """Of `struct`: an offset."""
        return self.order + ("Q" if self.big else "I")

    def numbers(self, data: bytes, entry: Entry) -> list[int]:
        """Values of an entry, as far as they are whole numbers within the file."""
        code = _CODES.get(entry.kind)
        if code is None:
            return []
        size = _SIZES[entry.kind]
        count = min(entry.count, max(0, (len(data) - entry.data_at) // size))
        return list(struct.unpack_from(f"{self.order}{count}{code}", data, entry.data_at))


def layout_of(data: bytes, most: int = 64) -> Layout | None:
    """Where things are in a TIFF file; None where it is none."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0]
    directories: list[Directory] = []
    seen: set[int] = set()
    while at and at not in seen and len(directories) < most:
        seen.add(at)
        directory = _directory(data, at, order, big)
        if directory is None:
            break
        directories.append(directory)
        at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, directory.next_at)[0]
    return Layout(order, big, tuple(directories))


def _directory(data: bytes, at: int, order: str, big: bool) -> Directory | None:
    head, size, code = (8, 20, "HHQ") if big else (2, 12, "HHI")
    if at + head > len(data):
        return None
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)[0]
    end = at + head + count * size
    if end + (8 if big else 4) > len(data):
        return None
    entries = []
    for start in range(at + head, end, size):
        tag, kind, values = struct.unpack_from(order + code, data, start)
        value_at = start + struct.calcsize(order + code)
        inline = _SIZES.get(kind, 1) * values <= size - (value_at - start)
        where = value_at if inline else struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, value_at)[0]
        entries.append(Entry(start, tag, kind, values, value_at, where))
    return Directory(at, tuple(entries), end)


Value = tuple[int, int, Sequence[int] | bytes]
"""Tag, type, values."""


@dataclass
class Page:
    """An image to write: its tags, and the data of its tiles or strips."""

    tags: dict[int, tuple[int, Sequence[int] | bytes]]
    data: Sequence[bytes]
    tiled: bool = True
    counts: Sequence[int] | None = None
    offsets: Sequence[int] | None = None
    extra: Sequence[Value] = field(default_factory=tuple)


def tiled_page(
    width: int,
    height: int,
    tiles: Sequence[bytes],
    *,
    tile: tuple[int, int] = (256, 256),
    compression: int = 1,
    photometric: int = 2,
    mpp: float = 0.5,
    samples: int = 3,
    bits: int = 8,
    description: bytes = b"",
) -> Page:
    """A page of tiles, of any size that is claimed."""
    per_cm = round(10_000 / mpp)
    tags: dict[int, tuple[int, Sequence[int] | bytes]] = {
        WIDTH: (LONG, [width]),
        LENGTH: (LONG, [height]),
        BITS: (SHORT, [bits] * samples),
        COMPRESSION: (SHORT, [compression]),
        PHOTOMETRIC: (SHORT, [photometric]),
        SAMPLES: (SHORT, [samples]),
        X_RESOLUTION: (RATIONAL, [per_cm, 1]),
        Y_RESOLUTION: (RATIONAL, [per_cm, 1]),
        284: (SHORT, [1]),
        UNIT: (SHORT, [3]),
        TILE_WIDTH: (LONG, [tile[0]]),
        TILE_LENGTH: (LONG, [tile[1]]),
    }
    if description:
        tags[DESCRIPTION] = (ASCII, description + b"\0")
    return Page(tags, tiles)


def tiff(pages: Sequence[Page], *, order: str = "<", big: bool = False, ndpi: bool = False) -> bytes:
    """The bytes of a TIFF file. With `ndpi`, offsets of directories have eight bytes, as Hamamatsu writes them."""
    offset_code = "Q" if big else "I"
    next_code = "Q" if big or ndpi else "I"
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    out = bytearray(head + (struct.pack(order + "HHQ", 8, 0, 0) if big else struct.pack(order + "I", 0)))
    if ndpi:
        out += b"\0\0\0\0"
    pointer = 8 if big else 4
    for page in pages:
        offsets = []
        for chunk in page.data:
            offsets.append(len(out))
            out += chunk + b"\0" * (len(chunk) % 2)
        tags = dict(page.tags)
        first, second = (TILE_OFFSETS, TILE_COUNTS) if page.tiled else (STRIP_OFFSETS, STRIP_COUNTS)
        kind = LONG8 if big else LONG
        tags[first] = (kind, page.offsets if page.offsets is not None else offsets)
        tags[second] = (kind, page.counts if page.counts is not None else [len(chunk) for chunk in page.data])
        placed = []
        for tag, (type_, values) in sorted(tags.items()):
            placed.append((tag, type_, *_packed(order, type_, values)))
        for tag, type_, values in page.extra:
            placed.append((tag, type_, *_packed(order, type_, values)))
        inline = 8 if big else 4
        fields = []
        for tag, type_, count, raw in placed:
            if len(raw) <= inline:
                fields.append((tag, type_, count, raw.ljust(inline, b"\0")))
            else:
                fields.append((tag, type_, count, struct.pack(order + offset_code, len(out))))
                out += raw + b"\0" * (len(raw) % 2)
        struct.pack_into(order + next_code, out, pointer, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(fields))
        for tag, type_, count, raw in fields:
            out += struct.pack(order + "HH" + offset_code, tag, type_, count) + raw
        pointer = len(out)
        out += b"\0" * struct.calcsize(order + next_code)
    return bytes(out)


def _packed(order: str, kind: int, values: Sequence[int] | bytes) -> tuple[int, bytes]:
    if isinstance(values, bytes):
        return len(values) // _SIZES[kind], values
    if kind == RATIONAL:
        return len(values) // 2, struct.pack(f"{order}{len(values)}I", *values)
    return len(values), struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
