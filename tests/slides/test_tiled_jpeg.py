"""Tiles that are decoded here are OpenSlide's own pixels; what cannot be decoded here is left to OpenSlide."""

import gc
import shutil
from pathlib import Path

import cv2
import numpy as np
import openslide
import psutil
import pytest
import tifffile

from wsi_her2.errors import SlideReadError, UnsupportedSlide
from wsi_her2.slides.backends import over_white
from wsi_her2.slides.opening import open_backend
from wsi_her2.slides.pyramid import write_pyramid
from wsi_her2.slides.slide import open_slide
from wsi_her2.slides.tiled_jpeg import TiledJpegBackend

REAL = [
    "ihc_core_score0_a.tif",
    "ihc_core_score2_a.tif",
    "ihc_core_score3_a.tif",
    "he_aperio_cmu1_small_region.svs",
]


def regions(width, height, count=12):
    """Boxes on and off the grid of tiles, some at the far edges."""
    generator = np.random.default_rng(1)
    for _ in range(count):
        w, h = (int(side) for side in generator.integers(1, 400, 2))
        x, y = int(generator.integers(0, max(1, width - w))), int(generator.integers(0, max(1, height - h)))
        yield x, y, min(w, width - x), min(h, height - y)
    yield width - 1, height - 1, 1, 1
    yield max(0, width - 300), max(0, height - 300), min(300, width), min(300, height)


def openslides_own(path, level, x, y, width, height):
    with openslide.OpenSlide(path) as slide:
        step = slide.level_downsamples[level]
        origin = (round(x * step), round(y * step))
        return over_white(np.asarray(slide.read_region(origin, level, (width, height))))


def assert_pixels_of_openslide(path):
    backend = TiledJpegBackend(path)
    compared = 0
    for index, level in enumerate(backend.levels):
        if not level.stored or not level.downsample.is_integer():
            continue
        number = [stored.downsample for stored in backend.levels if stored.stored].index(level.downsample)
        for box in regions(level.width, level.height):
            np.testing.assert_array_equal(backend.read(index, *box), openslides_own(path, number, *box))
            compared += 1
    backend.close()
    assert compared


def test_pixels_of_stored_levels_are_openslides_own(ihc_slide_path):
    assert_pixels_of_openslide(ihc_slide_path)


@pytest.mark.parametrize("name", REAL)
def test_pixels_of_real_slides_are_openslides_own(real_slides, name):
    assert_pixels_of_openslide(real_slides / name)


@pytest.mark.parametrize("name", [None, *REAL])
def test_levels_shrunk_while_they_are_decoded_are_averages_of_pixels(ihc_slide_path, request, name):
    path = ihc_slide_path if name is None else request.getfixturevalue("real_slides") / name
    backend = TiledJpegBackend(path)
    stored = [index for index, level in enumerate(backend.levels) if level.stored]
    shrunk = [index for index, level in enumerate(backend.levels) if not level.stored]
    assert shrunk
    for index in shrunk:
        level = backend.levels[index]
        source = max((i for i in stored if i < index), key=lambda i: backend.levels[i].downsample)
        factor = round(level.downsample / backend.levels[source].downsample)
        x, y = level.width // 3, level.height // 3
        width, height = min(200, level.width - x), min(200, level.height - y)
        got = backend.read(index, x, y, width, height)
        fine = backend.read(source, x * factor, y * factor, width * factor, height * factor)
        expected = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
        difference = np.abs(got.astype(int) - expected)
        assert difference.mean() < 1
        assert np.percentile(difference, 99) <= 6
    backend.close()


def test_a_scale_between_levels_far_apart_is_decoded_at_that_scale(ihc_picture, tmp_path):
    path = tmp_path / "one_level.tif"
    height, width = ihc_picture.shape[:2]
    write_pyramid(path, width, height, lambda x, y, w, h: ihc_picture[y : y + h, x : x + w], mpp=0.25, levels=1)
    with open_slide(path) as slide, open_slide(path, backend="openslide") as other:
        assert (slide.backend, len(slide.levels)) == ("tiled-jpeg", 1)
        for mpp in (0.5, 1.0, 2.0):
            got, expected = slide.read(512, 320, 100, 100, mpp), other.read(512, 320, 100, 100, mpp)
            assert np.abs(got.astype(int) - expected).mean() < 0.6


def test_a_complete_pyramid_gets_no_further_levels_between(ihc_slide_path):
    levels = TiledJpegBackend(ihc_slide_path).levels
    assert [level.downsample for level in levels] == [1, 2, 4, 8, 16, 32]
    assert [level.stored for level in levels] == [True, True, True, False, False, False]


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("tables", [True, False])
def test_the_colour_space_is_that_of_the_file(ihc_picture, tmp_path, photometric, tables):
    path = tmp_path / "colour.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            ihc_picture,
            tile=(256, 256),
            photometric=photometric,
            compression="jpeg",
            compressionargs={"level": 90, "outcolorspace": photometric} if not tables else {"level": 90},
        )
    with open_slide(path, mpp=0.5) as slide:
        assert slide.backend == "tiled-jpeg"
        np.testing.assert_array_equal(slide.read(500, 300, 300, 300), openslides_own(path, 0, 500, 300, 300, 300))


def test_another_compression_is_left_to_openslide(ihc_picture, tmp_path):
    path = tmp_path / "deflate.tif"
    tifffile.imwrite(path, ihc_picture, tile=(256, 256), photometric="rgb", compression="deflate")
    with pytest.raises(UnsupportedSlide, match="tiled JPEG"):
        TiledJpegBackend(path)
    assert open_slide(path, mpp=0.5).backend == "openslide"


def test_jpeg_2000_is_left_to_openslide(real_slides):
    assert open_slide(real_slides / "he_aperio_tcga_no_mpp.svs", mpp=0.25).backend == "openslide"


def test_tiles_that_do_not_decode_to_openslides_pixels_are_left_to_it(ihc_slide_path, monkeypatch):
    monkeypatch.setattr(TiledJpegBackend, "_tile", lambda self, tiles, number, reduction: _wrong(tiles, reduction))
    with pytest.raises(UnsupportedSlide, match="do not decode to what OpenSlide gives"):
        open_backend(ihc_slide_path, "tiled-jpeg")


def _wrong(tiles, reduction):
    return np.zeros((tiles.height // reduction, tiles.width // reduction, 3), np.uint8)


@pytest.mark.parametrize("spoil", ["garbage", "cut", "absent"])
def test_a_spoilt_tile_is_read_or_refused_as_by_openslide(ihc_slide_path, tmp_path, spoil):
    path = shutil.copy(ihc_slide_path, tmp_path / "spoilt.tif")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        number = 2 * -(-page.imagewidth // 256) + 3
        offset, size = page.dataoffsets[number], page.databytecounts[number]
        lengths = page.tags["TileByteCounts"].valueoffset
        wide = page.tags["TileByteCounts"].dtype == 4
    with path.open("r+b") as file:
        if spoil == "absent":
            file.seek(lengths + number * (4 if wide else 2))
            file.write(bytes(4 if wide else 2))
        else:
            file.seek(offset if spoil == "garbage" else offset + size // 2)
            file.write(b"\x5a" * (size // 2))
    backend = open_backend(path, "tiled-jpeg")
    try:
        expected = openslides_own(path, 0, 768, 512, 256, 256)
    except openslide.OpenSlideError:
        expected = None
    if expected is None:
        with pytest.raises(SlideReadError):
            backend.read(0, 768, 512, 256, 256)
    else:
        np.testing.assert_array_equal(backend.read(0, 768, 512, 256, 256), expected)
    # The tiles around it are as good as ever.
    np.testing.assert_array_equal(
        backend.read(0, 1024, 512, 200, 256), openslides_own(ihc_slide_path, 0, 1024, 512, 200, 256)
    )
    backend.close()


def test_a_slide_that_is_let_go_of_leaves_no_file_open(ihc_slide_path, tmp_path):
    path = shutil.copy(ihc_slide_path, tmp_path / "alone.tif")

    def held():
        return [file for file in psutil.Process().open_files() if Path(file.path).name == "alone.tif"]

    slide = open_slide(path)
    slide.read(0, 0, 10, 10)
    assert held()
    del slide
    gc.collect()
    assert not held()
