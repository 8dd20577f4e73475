"""Ways to damage a file: of bytes, of the numbers of a TIFF, of the JPEG within it, of a tree of values."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

from tests.fuzz.tiff_bytes import (
    BITS,
    COMPRESSION,
    LENGTH,
    SAMPLES,
    TILE_COUNTS,
    TILE_LENGTH,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    Layout,
    layout_of,
)

_NUMBERS = (0, 1, 2, 3, 5, 7, 16, 255, 256, 65_535, 65_536, 100_000, 2**31 - 1, 2**31, 2**32 - 1, 10**9)
_LARGE_NUMBERS = (*_NUMBERS, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_TELLING = (
    WIDTH,
    LENGTH,
    BITS,
    COMPRESSION,
    SAMPLES,
    TILE_WIDTH,
    TILE_LENGTH,
    TILE_OFFSETS,
    TILE_COUNTS,
    262,
    284,
    347,
)
_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32_773, 32_946, 33_003, 33_005, 33_007, 34_712, 34_887, 34_925, 50_000)
_JPEG_MARKERS = (0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xCF, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE, 0x00)

Mutation = Callable[[bytearray, random.Random], None]


def flip_bits(data: bytearray, rng: random.Random) -> None:
    """Some bits, anywhere or near the beginning."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 4096)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        data[rng.randrange(end)] ^= 1 << rng.randrange(8)


def overwrite_run(data: bytearray, rng: random.Random) -> None:
    """A run of equal or random bytes."""
    start = rng.randrange(len(data))
    length = min(len(data) - start, rng.choice((1, 2, 4, 8, 32, 256, 4096)))
    data[start : start + length] = rng.choice(
        (b"\0" * length, b"\xff" * length, rng.randbytes(length), b"\xff\xd9" * (length // 2 + 1))
    )[:length]


def truncate(data: bytearray, rng: random.Random) -> None:
    """The end is missing."""
    del data[rng.choice((rng.randrange(len(data)), len(data) - 1, min(len(data), 16))) :]


def insert_or_remove(data: bytearray, rng: random.Random) -> None:
    """What follows has moved."""
    start = rng.randrange(len(data))
    if rng.random() < 0.5:
        data[start:start] = rng.randbytes(rng.choice((1, 2, 7, 64)))
    else:
        del data[start : start + rng.choice((1, 2, 7, 64))]


def repeat_part(data: bytearray, rng: random.Random) -> None:
    """A part of the file again, in another place."""
    start = rng.randrange(len(data))
    part = bytes(data[start : start + rng.choice((4, 12, 64, 1024))])
    place = rng.randrange(len(data))
    data[place : place + len(part)] = part


BYTES: tuple[Mutation, ...] = (flip_bits, overwrite_run, truncate, insert_or_remove, repeat_part)


def _entry_value(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """Another number in a tag, most often in one that decides how much is read."""
    entries = [entry for directory in layout.directories for entry in directory.entries]
    telling = [entry for entry in entries if entry.tag in _TELLING]
    entry = rng.choice(telling if telling and rng.random() < 0.7 else entries)
    code = {1: "B", 3: "H", 4: "I", 16: "Q", 5: "I", 9: "I"}.get(entry.kind, "I")
    place = entry.data_at + struct.calcsize(code) * rng.randrange(max(1, min(entry.count, 64)))
    value = rng.choice(_COMPRESSIONS if entry.tag == COMPRESSION else _LARGE_NUMBERS)
    _put(data, layout.order + code, place, value)


def _entry_kind(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """Another type."""
    _put(
        data,
        layout.order + "H",
        _any_entry(rng, layout).at + 2,
        rng.choice((0, 1, 2, 3, 4, 5, 7, 11, 12, 13, 16, 99)),
    )


def _entry_tag(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """Another tag: one is missing, another is there twice."""
    tags = [entry.tag for directory in layout.directories for entry in directory.entries]
    _put(
        data,
        layout.order + "H",
        _any_entry(rng, layout).at,
        rng.choice([*tags, 330, 34_665, 65_420, 347, 530, 700]),
    )


def _entry_count(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """Another number of values, mostly a huge one."""
    _put(data, layout.offset_code, _any_entry(rng, layout).at + 4, rng.choice(_LARGE_NUMBERS))


def _entry_offset(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """Values that lie elsewhere: beyond the end, in the header, in themselves."""
    entry = _any_entry(rng, layout)
    places = (0, 4, len(data) - 1, len(data), len(data) + 10**6, entry.at, 2**32 - 1, rng.randrange(len(data)))
    _put(data, layout.offset_code, entry.value_at, rng.choice(places))


def _next_directory(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """A directory that leads to itself, back, beyond the end or into the pixels."""
    directory = rng.choice(layout.directories)
    places = [other.at for other in layout.directories]
    places += [
        directory.at,
        directory.at + 12,
        len(data),
        len(data) + 10**6,
        2**32 - 1,
        rng.randrange(len(data)),
        1,
    ]
    _put(data, layout.offset_code, directory.next_at, rng.choice(places))


def _entries_of_directory(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """More or fewer entries than there are."""
    code = layout.order + ("Q" if layout.big else "H")
    _put(data, code, rng.choice(layout.directories).at, rng.choice(_NUMBERS))


def _tile_table(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """All entries of a table of tiles alike: one place, no length, more than the file has."""
    tables = [e for d in layout.directories for e in d.entries if e.tag in (TILE_OFFSETS, TILE_COUNTS, 273, 279)]
    if not tables:
        return
    entry = rng.choice(tables)
    code = layout.order + {3: "H", 4: "I", 16: "Q"}.get(entry.kind, "I")
    value = rng.choice((0, 1, 2, 8, len(data), len(data) + 10**6, 2**31 - 1, 2**32 - 1))
    for number in range(min(entry.count, 4096)):
        _put(data, code, entry.data_at + number * struct.calcsize(code), value)


def _claimed_size(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """A level that says it is larger than its tiles."""
    directory = rng.choice(layout.directories)
    for tag in (WIDTH, LENGTH) if rng.random() < 0.7 else (TILE_WIDTH, TILE_LENGTH):
        for entry in directory.entries:
            if entry.tag == tag:
                code = layout.order + {3: "H", 4: "I", 16: "Q"}.get(entry.kind, "I")
                sizes = (
                    5_000,
                    65_535,
                    100_000,
                    300_000,
                    2**24,
                    10**9,
                    2**31 - 1,
                    16,
                    128 * rng.randrange(1, 2000),
                )
                _put(data, code, entry.data_at, rng.choice(sizes))


def _jpeg_of_a_tile(data: bytearray, rng: random.Random, layout: Layout) -> None:
    """A marker, a size, a table or the stream of a JPEG within the file."""
    starts = _all(data, b"\xff\xd8\xff")
    if not starts:
        return
    start = rng.choice(starts)
    end = data.find(b"\xff\xd8\xff", start + 3)
    end = len(data) if end < 0 else end
    choice = rng.randrange(6)
    frame = max(data.find(b"\xff\xc0", start, end), data.find(b"\xff\xc2", start, end))
    if choice <= 1 and frame >= 0:
        _put(data, ">HH", frame + 5, rng.choice(_NUMBERS) & 0xFFFF, rng.choice((65_500, 1, 0, 128, 30_000)))
    elif choice == 2 and frame >= 0:
        place = frame + 4 + rng.randrange(15)
        if place < len(data):
            data[place] = rng.choice((0, 1, 2, 4, 0x11, 0x22, 0x44, 12, 255))
    elif choice == 3:
        marks = [
            place for place in _all(data, b"\xff", start, end) if data[place + 1 : place + 2] not in (b"", b"\0")
        ]
        if marks:
            data[rng.choice(marks) + 1] = rng.choice(_JPEG_MARKERS)
    elif choice == 4:
        for _ in range(rng.choice((1, 10, 100))):
            data[rng.randrange(start, end)] = rng.randrange(256)
    else:
        middle = rng.randrange(start, end)
        data[middle:end] = b"\0" * (end - middle)


TIFF: tuple[Callable[[bytearray, random.Random, Layout], None], ...] = (
    _entry_value,
    _entry_value,
    _entry_kind,
    _entry_tag,
    _entry_count,
    _entry_offset,
    _next_directory,
    _entries_of_directory,
    _tile_table,
    _claimed_size,
    _claimed_size,
    _jpeg_of_a_tile,
    _jpeg_of_a_tile,
    _jpeg_of_a_tile,
)


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """A file with one to three mutations of its bytes."""
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if out:
            rng.choice(BYTES)(out, rng)
    return bytes(out)


def damaged_slide(data: bytes, rng: random.Random) -> bytes:
    """A slide with one to four mutations, mostly of what a TIFF reader believes."""
    layout = layout_of(data)
    if layout is None or not layout.directories or rng.random() < 0.2:
        return damaged_bytes(data, rng)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        rng.choice(TIFF)(out, rng, layout)
    return bytes(out)


_HOSTILE: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: None,
    lambda rng: True,
    lambda rng: rng.choice((-1, 0, 1, 2**31, 2**63, -(2**64), 10**400)),
    lambda rng: rng.choice((math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 0.5)),
    lambda rng: rng.choice(
        ("", "\0", "a\nb", "../../../etc/passwd", "=1+1", "<script>alert(1)</script>", "\ud800")
    ),
    lambda rng: "x" * rng.choice((300, 100_000, 2_000_000)),
    lambda rng: [],
    lambda rng: {},
    lambda rng: [0] * rng.choice((1, 2, 100_000)),
    lambda rng: {"type": "Polygon"},
    lambda rng: _nested(rng.choice((10, 500, 50_000))),
    lambda rng: {str(number): number for number in range(rng.choice((1, 50_000)))},
)


def _nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def damaged_tree(tree: Any, rng: random.Random) -> Any:
    """A tree of JSON values with some of them replaced, removed, doubled or put elsewhere."""
    out = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(out))
        if not places:
            return rng.choice(_HOSTILE)(rng)
        parent, key = rng.choice(places)
        action = rng.random()
        if action < 0.7:
            parent[key] = rng.choice(_HOSTILE)(rng)
        elif action < 0.8:
            del parent[key]
        elif action < 0.9 and isinstance(parent, list):
            parent.extend([parent[key]] * rng.choice((1, 1000)))
        else:
            other_parent, other_key = rng.choice(places)
            with_value = other_parent[other_key] if _holds(other_parent, other_key) else None
            parent[key] = json.loads(json.dumps(with_value, default=str)) if with_value is not out else None
    return out


def as_json(tree: Any, rng: random.Random) -> bytes:
    """The tree as text, however deep it is; now and then with more damage."""
    try:
        text = json.dumps(tree)
    except RecursionError:
        text = "[" * 100_000 + "]" * 100_000
    data = text.encode("utf-8", "surrogatepass")
    return damaged_bytes(data, rng) if rng.random() < 0.15 else data


def _places(tree: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Every value of a tree as its container and its key there."""
    if depth > 12:
        return []
    keys = range(min(len(tree), 200)) if isinstance(tree, list) else list(tree) if isinstance(tree, dict) else ()
    found = []
    for key in keys:
        found.append((tree, key))
        found += _places(tree[key], depth + 1)
    return found


def _holds(parent: Any, key: Any) -> bool:
    return key in parent if isinstance(parent, dict) else key < len(parent)


def _any_entry(rng: random.Random, layout: Layout) -> Any:
    return rng.choice([entry for directory in layout.directories for entry in directory.entries])


def _put(data: bytearray, code: str, place: int, *values: int) -> None:
    size = struct.calcsize(code)
    if 0 <= place <= len(data) - size:
        limit = 1 << (8 * size // len(values))
        struct.pack_into(code, data, place, *(value % limit for value in values))


def _all(data: bytearray, wanted: bytes, start: int = 0, end: int | None = None) -> list[int]:
    found, place = [], data.find(wanted, start, len(data) if end is None else end)
    while place >= 0 and len(found) < 500:
        found.append(place)
        place = data.find(wanted, place + 1, len(data) if end is None else end)
    return found
