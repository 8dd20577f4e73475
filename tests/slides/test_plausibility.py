"""What a TIFF says of itself is believed only as far as it can be true."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from tests.fuzz.images import hamamatsu, jpeg, page_of, pyramid, tissue
from tests.fuzz.tiff_bytes import LONG, Page, tiff, tiled_page
from wsi_her2.errors import UnsupportedSlide
from wsi_her2.slides.plausibility import MAX_COARSEST_PIXELS, refuse_impossible_levels, refuse_impossible_tiff


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        pyramid(),
        pyramid(8),
        pyramid(big=True),
        pyramid(order=">"),
        hamamatsu(),
        b"",
        b"II*\0",
        b"no TIFF at all....",
    ],
    ids=["jpeg", "deflate", "big", "motorola", "hamamatsu", "empty", "cut off", "text"],
)
def test_slides_and_what_is_no_tiff_pass(content: bytes, tmp_path: Path) -> None:
    refuse_impossible_tiff(written(tmp_path / "slide.tif", content))


def test_real_slides_pass(real_slides: Path) -> None:
    for path in real_slides.rglob("*"):
        if path.is_file():
            refuse_impossible_tiff(path)


def test_a_missing_file_is_left_to_what_opens_it(tmp_path: Path) -> None:
    refuse_impossible_tiff(tmp_path / "absent.tif")


def test_a_large_slide_whose_empty_tiles_are_left_out_passes(tmp_path: Path) -> None:
    """100,000 x 80,000 px, of which a fiftieth is stored."""
    tiles = -(-100_000 // 256) * -(-80_000 // 256)
    data = jpeg(tissue(256))
    page = tiled_page(100_000, 80_000, [data], compression=7, photometric=6)
    stored = tiles // 50
    page.offsets, page.counts = [8] * tiles, [len(data)] * stored + [0] * (tiles - stored)
    content = tiff([page])
    path = written(tmp_path / "sparse.tif", content)
    os.truncate(path, len(content) + stored * 5_000)
    refuse_impossible_tiff(path)


def test_a_hamamatsu_file_of_more_than_four_gigabytes_is_followed_where_its_directories_are(
    tmp_path: Path,
) -> None:
    """A classic TIFF with directories beyond 2^32, in offsets of eight bytes; sparse, so that no disk is used."""
    small, beyond = hamamatsu(), 2**32 + 4096
    at = struct.unpack_from("<Q", small, 4)[0]
    path = tmp_path / "large.ndpi"
    count = struct.unpack_from("<H", small, at)[0]
    directory = small[at : at + 2 + 12 * count]
    with path.open("wb") as stream:
        stream.write(b"II*\0" + struct.pack("<Q", beyond))
        stream.seek(beyond)
        stream.write(directory + struct.pack("<Q", beyond))
    with pytest.raises(UnsupportedSlide, match="in a circle"):
        refuse_impossible_tiff(path)
    with path.open("r+b") as stream:
        stream.seek(beyond + len(directory))
        stream.write(struct.pack("<Q", 0))
    refuse_impossible_tiff(path)


def test_the_message_says_which_file_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    page = tiled_page(10**9, 10**9, [b"\0" * 64])
    with pytest.raises(UnsupportedSlide, match=r"(?s)huge\.tif.*1,000,000,000 px.*4,000,000.*copy it again"):
        refuse_impossible_tiff(written(tmp_path / "huge.tif", tiff([page])))


@pytest.mark.parametrize(("entries", "refused"), [(16, False), (17, False), (15, True)])
def test_a_table_for_fewer_tiles_than_the_image_has_is_refused(
    entries: int, refused: bool, tmp_path: Path
) -> None:
    page = page_of(tissue(512), 7)
    page.counts, page.offsets = [100] * entries, [8] * entries
    path = written(tmp_path / "slide.tif", tiff([page]))
    if refused:
        with pytest.raises(UnsupportedSlide, match=r"512 x 512 px in tiles of 128 x 128: that is 16 tiles.* 15"):
            refuse_impossible_tiff(path)
    else:
        refuse_impossible_tiff(path)


def test_directories_below_directories_are_looked_at(tmp_path: Path) -> None:
    outer, inner = page_of(tissue(128), 7), tiled_page(10**9, 5, [b"\0" * 64])
    content = bytearray(tiff([_with_room_for_one_below(outer), inner]))
    first = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, first)[0]
    following = first + 2 + 12 * count
    # What followed now lies below.
    entry = next(p for p in range(first + 2, following, 12) if struct.unpack_from("<H", content, p)[0] == 330)
    content[entry + 8 : entry + 12] = content[following : following + 4]
    content[following : following + 4] = b"\0" * 4
    with pytest.raises(UnsupportedSlide, match="1,000,000,000"):
        refuse_impossible_tiff(written(tmp_path / "below.tif", bytes(content)))


def _with_room_for_one_below(page: Page) -> Page:
    page.tags[330] = (LONG, [0])
    return page


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([], "no level"),
        ([(0, 5)], "no level"),
        ([(5_000_000, 5)], "5,000,000 x 5 px"),
        ([(3_000_000, 3_000_000), (100, 100)], "3,000,000 x 3,000,000 px"),
        ([(200_000, 200_000)], "pyramid"),
    ],
)
def test_levels_of_any_format_that_cannot_be_looked_at_are_refused(
    levels: list[tuple[int, int]], said: str
) -> None:
    with pytest.raises(UnsupportedSlide, match=said):
        refuse_impossible_levels(Path("slide.mrxs"), levels)
    refuse_impossible_levels(Path("slide.mrxs"), [(200_000, 200_000), (MAX_COARSEST_PIXELS // 200_000, 200_000)])
