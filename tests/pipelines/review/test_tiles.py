"""Tiles: where they lie, what is on them, and what holds the files open."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from pipelines.review.tiles import ByteCache, SlideReaders, TileGrid, TilePlace, cut_tile
from tests.pipelines.review.conftest import Serve
from wsi_her2.slides.pyramid import write_pyramid
from wsi_her2.slides.slide import Box, Overview, Slide, open_slide, slide_from_array

TILE = "/api/slides/7_HER2/tiles/{}/{}_{}.jpg"


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(simplejpeg.decode_jpeg(jpeg))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), tile_px=st.sampled_from([64, 256, 512]))
def test_the_tiles_of_each_level_cover_it_once_and_halve_down_to_one_pixel(
    width: int, height: int, tile_px: int
) -> None:
    grid = TileGrid(width, height, tile_px)
    assert (grid.downsample(grid.max_level), 2**grid.max_level >= max(width, height)) == (1, True)
    assert grid.place(0, 0, 0) == TilePlace(0, 0, 1, 1, 2**grid.max_level)
    for level in range(grid.max_level + 1):
        scale = 2 ** (grid.max_level - level)
        size = -(-width // scale), -(-height // scale)
        covered = 0
        columns, rows = -(-size[0] // tile_px), -(-size[1] // tile_px)
        for column in range(columns):
            for row in range(rows):
                place = grid.place(level, column, row)
                assert place is not None
                assert (place.x, place.y) == (column * tile_px * scale, row * tile_px * scale)
                assert 0 < place.width <= tile_px
                assert 0 < place.height <= tile_px
                covered += place.width * place.height
        assert covered == size[0] * size[1]
        assert grid.place(level, columns, 0) is None
        assert grid.place(level, 0, rows) is None
    assert grid.place(grid.max_level + 1, 0, 0) is None
    assert grid.place(-1, 0, 0) is None


def test_tiles_over_http_show_the_slide_at_every_level(client: httpx.Client, review_run: Path) -> None:
    described = client.get("/api/slides/7_HER2").json()
    grid = TileGrid(described["width"], described["height"], described["tile_px"])
    assert described["max_level"] == grid.max_level
    with open_slide(review_run.parent / "slides" / "7_HER2.tif") as slide:
        assert (grid.width, grid.height) == slide.dimensions
        # Coarser ones are a few pixels, of which JPEG keeps few colours.
        for level in range(7, grid.max_level + 1):
            place = grid.place(level, 0, 0)
            assert place is not None
            answer = client.get(TILE.format(level, 0, 0))
            assert answer.headers["content-type"] == "image/jpeg"
            expected = slide.read(0, 0, place.width, place.height, slide.mpp * place.downsample)
            assert pixels(answer.content).shape == expected.shape
            assert difference(pixels(answer.content), expected) < 5


def test_the_last_tiles_of_a_row_end_with_the_slide(client: httpx.Client) -> None:
    described = client.get("/api/slides/7_HER2").json()
    side, level = described["tile_px"], described["max_level"]
    column, row = described["width"] // side, described["height"] // side
    last = pixels(client.get(TILE.format(level, column, row)).content)
    assert last.shape == (described["height"] - row * side, described["width"] - column * side, 3)
    for address in (
        TILE.format(level, column + 1, 0),
        TILE.format(level, 0, row + 1),
        TILE.format(level + 1, 0, 0),
    ):
        refused = client.get(address)
        assert refused.status_code == 404
        assert "tile" in refused.json()["error"]


@pytest.mark.parametrize(
    "address", ["-1/0_0", "0/-1_0", "0/0_x", "1e3/0_0", "0/0_0.png", "99999999999999999999/0_0"]
)
def test_what_is_no_tile_is_not_found(client: httpx.Client, address: str) -> None:
    assert client.get(f"/api/slides/7_HER2/tiles/{address}.jpg").status_code == 404


def test_a_browser_asks_whether_a_tile_has_changed_unless_its_address_holds_the_version(
    client: httpx.Client,
) -> None:
    version = client.get("/api/slides/7_HER2").json()["tile_version"]
    plain = client.get(TILE.format(9, 0, 0))
    assert plain.headers["cache-control"] == "private, no-cache"
    again = client.get(TILE.format(9, 0, 0), headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    # The same place on another slide is another tile.
    other = client.get("/api/slides/12_HER2/tiles/9/0_0.jpg", headers={"if-none-match": plain.headers["etag"]})
    assert other.status_code == 200
    assert "immutable" in client.get(TILE.format(9, 0, 0) + f"?v={version}").headers["cache-control"]
    assert "immutable" not in client.get(TILE.format(9, 0, 0) + "?v=older").headers["cache-control"]


def test_many_tiles_at_once_are_the_same_as_one_by_one(client: httpx.Client) -> None:
    level = client.get("/api/slides/30_HER2").json()["max_level"]
    addresses = [
        f"/api/slides/{name}/tiles/{level - 1}/{c}_0.jpg" for name in ("30_HER2", "12_HE") for c in (0, 1)
    ]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda address: client.get(address).content, addresses * 4))
    assert at_once == [client.get(address).content for address in addresses] * 4


def damaged(tmp_path: Path) -> Path:
    """A slide of which one tile, at x and y from 512 to 768, is no JPEG."""
    rng = np.random.default_rng(0)
    picture = rng.integers(120, 136, (1024, 1024, 3), np.uint8)
    path = write_pyramid(
        tmp_path / "damaged.tif", 1024, 1024, lambda x, y, w, h: picture[y : y + h, x : x + w], mpp=0.5, levels=1
    )
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, size = page.dataoffsets[2 * 4 + 2], page.databytecounts[2 * 4 + 2]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x00" * size)
    return path


def test_what_cannot_be_decoded_is_hatched_and_nothing_else_is(tmp_path: Path) -> None:
    with open_slide(damaged(tmp_path)) as slide:
        grid = TileGrid(1024, 1024, 512)
        for level, column in ((10, 1), (9, 0)):
            place = grid.place(level, column, column)
            assert place is not None
            jpeg, whole = cut_tile(slide, place)
            assert not whole
            shown = pixels(jpeg)
            hole = np.s_[0:256, 0:256] if level == 10 else np.s_[256:384, 256:384]
            hatched = shown[hole].copy()
            # Two greys in stripes, of 150 and of 205, where the picture has neither.
            assert (
                (np.abs(hatched.astype(int) - 150) < 12) | (np.abs(hatched.astype(int) - 205) < 12)
            ).mean() > 0.7
            shown[hole] = 128
            assert difference(shown, np.full_like(shown, 128)) < 8
        jpeg, whole = cut_tile(slide, TilePlace(0, 0, 512, 512, 1))
        assert whole


def test_a_damaged_tile_is_shown_as_such_and_not_remembered_by_the_browser(run_copy: Path, serve: Serve) -> None:
    slides = run_copy.parent / "slides"
    slides.mkdir()
    original = Path(serve(run_copy).get("/files/7_HER2/result.json").json()["path"])
    copy = Path(shutil.copy(original, slides / "7_HER2.tif"))
    with tifffile.TiffFile(copy) as tiff:
        places = [(page.dataoffsets[0], page.databytecounts[0]) for page in tiff.pages]
    with copy.open("r+b") as file:
        for offset, size in places:
            file.seek(offset)
            file.write(b"\x00" * size)
    client = serve(run_copy, slides=slides)
    level = client.get("/api/slides/7_HER2").json()["max_level"]
    shown = client.get(TILE.format(level, 0, 0))
    assert shown.status_code == 200
    assert shown.headers["x-unreadable"] == "part"
    assert shown.headers["cache-control"] == "no-store"


def test_coarse_tiles_of_a_slide_without_a_pyramid_come_from_its_overview(tmp_path: Path) -> None:
    side = 4200
    path = write_pyramid(
        tmp_path / "flat.tif", side, side, lambda x, y, w, h: np.full((h, w, 3), 60, np.uint8), mpp=0.5, levels=1
    )
    coarse = np.full((300, 300, 3), 200, np.uint8)
    coarse[:, :150] = 120
    overview = Overview(coarse, np.zeros((300, 300), bool), 0.5 * side / 300, Box(0, 0, side, side))
    grid = TileGrid(side, side, 512)
    with open_slide(path) as slide:

        def shown(level: int, kept: Overview | None) -> np.ndarray:
            place = grid.place(level, 0, 0)
            assert place is not None
            jpeg, whole = cut_tile(slide, place, lambda: kept)
            assert whole
            return pixels(jpeg)

        # 1 : 16 and 1 : 32, somewhat finer and coarser than the overview's 1 : 14.
        for level, half in ((9, 131), (8, 66)):
            picture = shown(level, overview)
            assert difference(picture[:, : half - 3], np.full_like(picture[:, : half - 3], 120)) < 3
            assert difference(picture[:-2, half + 3 : -2], np.full_like(picture[:-2, half + 3 : -2], 200)) < 3
        # A finer tile, or one of a slide of which no overview was kept, is read from the slide.
        for level, kept in ((13, overview), (11, overview), (9, None)):
            picture = shown(level, kept)[:-2, :-2]
            assert difference(picture, np.full_like(picture, 60)) < 3


def test_the_cache_holds_what_was_used_last_and_no_more_than_its_bytes() -> None:
    cache = ByteCache(100)
    for name in "abc":
        cache.put(name, name.encode() * 30)
    assert cache.get("a") == b"a" * 30
    cache.put("d", b"d" * 30)
    assert cache.get("b") is None
    assert cache.get("a") == b"a" * 30
    cache.put("a", b"x" * 90)
    assert (cache.get("a"), cache.get("c"), cache.get("d")) == (b"x" * 90, None, None)
    cache.put("large", b"x" * 101)
    assert cache.get("large") is None
    cache.put("e", b"e" * 100)
    assert cache.get("e") == b"e" * 100


class Opened:
    """Slides that say whether they are open, and in which thread they are used."""

    def __init__(self, key: str, log: list[str]) -> None:
        self.key, self.log, self.thread = key, log, threading.get_ident()
        log.append(f"open {key}")

    def read(self) -> str:
        assert threading.get_ident() == self.thread
        return self.key

    def close(self) -> None:
        assert threading.get_ident() == self.thread
        self.log.append(f"close {self.key}")


def test_a_thread_keeps_the_slides_it_read_last_and_lets_go_of_all_when_idle_or_at_the_end() -> None:
    log: list[str] = []
    readers = SlideReaders(lambda key: Opened(str(key), log), threads=1, idle_s=0.2)  # type: ignore[arg-type, return-value]
    for key in "abcda":
        assert readers.submit(key, lambda slide: slide.read()).result(10) == key  # type: ignore[call-arg]
    assert log == ["open a", "open b", "open c", "open d"]
    readers.submit("e", lambda slide: slide.read()).result(10)  # type: ignore[call-arg]
    assert log[4:] == ["open e", "close b"]
    until = time.monotonic() + 10
    while log.count("close a") == 0 and time.monotonic() < until:
        time.sleep(0.02)
    assert sorted(log[6:]) == ["close a", "close c", "close d", "close e"]
    readers.submit("f", lambda slide: slide.read()).result(10)  # type: ignore[call-arg]
    readers.close()
    assert log[-2:] == ["open f", "close f"]


def test_a_slide_that_cannot_be_opened_or_read_fails_alone() -> None:
    def refuse(key: object) -> Slide:
        if key == "gone":
            raise FileNotFoundError(key)
        return slide_from_array(np.zeros((8, 8, 3), np.uint8), 0.5)

    readers = SlideReaders(refuse, threads=2)
    try:
        with pytest.raises(FileNotFoundError):
            readers.submit("gone", lambda slide: slide.mpp).result(10)
        with pytest.raises(ZeroDivisionError):
            readers.submit("there", lambda slide: 1 / 0).result(10)
        assert readers.submit("there", lambda slide: slide.mpp).result(10) == 0.5
    finally:
        readers.close()
