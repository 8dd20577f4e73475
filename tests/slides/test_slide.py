"""A slide gives the pixels of its file, at any scale, in any thread or process, and white beyond its edge."""

import operator
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from tests.fuzz.crafted import SLIDES
from wsi_her2.errors import SlideError, SlideNotFound, SlideReadError, UnsupportedSlide
from wsi_her2.slides import slide as slide_module
from wsi_her2.slides.backends import MemoryBackend
from wsi_her2.slides.resolution import Resolution
from wsi_her2.slides.slide import Box, Slide, open_slide, slide_from_array

BACKENDS = ["tiled-jpeg", "openslide", "tiffslide"]
NAMES = ["😐.tif", "with spaces (1) [2] {3}.tif", "Präparat #7 100%.tif", "-o.tif"]


def difference(a, b):
    return np.abs(a.astype(int) - b.astype(int))


def openslides_own(path, x, y, level, width, height):
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((x, y), level, (width, height)).convert("RGB"))


@pytest.fixture(scope="module")
def coloured_levels(tmp_path_factory):
    """A slide whose levels are of one colour each, so that a read shows which level it came from."""
    path = tmp_path_factory.mktemp("levels") / "levels.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level, grey in enumerate((40, 120, 200)):
            side = 2048 >> level
            tiff.write(
                np.full((side, side, 3), grey, np.uint8),
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                subfiletype=int(level > 0),
                resolution=(20000 >> level, 20000 >> level),
                resolutionunit="CENTIMETER",
            )
    return path


# Pixels


@pytest.mark.parametrize(("x", "y"), [(0, 0), (517, 301), (1333, 1100)])
def test_level_0_is_openslides_own_pixels(ihc_slide_path, ihc_slide, x, y):
    got = ihc_slide.read(x, y, 311, 207)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, openslides_own(ihc_slide_path, x, y, 0, 311, 207))


def test_a_level_of_the_asked_scale_is_read_as_it_is(ihc_slide_path, ihc_slide):
    got = ihc_slide.read(400, 200, 300, 250, mpp=1.0)
    np.testing.assert_array_equal(got, openslides_own(ihc_slide_path, 400, 200, 1, 300, 250))


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_coarser_read_is_the_mean_of_the_pixels_it_covers(ihc_image, factor):
    side = 80
    block = ihc_image[60 : 60 + side * factor, 40 : 40 + side * factor]
    mean = block.reshape(side, factor, side, factor, 3).mean(axis=(1, 3))
    got = slide_from_array(ihc_image, 0.5).read(40, 60, side, side, mpp=0.5 * factor)
    assert np.abs(got - mean).max() <= 1


def test_a_coarser_read_of_a_file_is_the_mean_within_its_compression(ihc_slide, ihc_picture):
    mean = ihc_picture[400:880, 600:1080].reshape(160, 3, 160, 3, 3).mean(axis=(1, 3))
    got = ihc_slide.read(600, 400, 160, 160, mpp=1.5)
    assert difference(got, mean).mean() < 6
    assert np.abs(got.mean(axis=(0, 1)) - mean.mean(axis=(0, 1))).max() < 1.5


def test_a_finer_read_is_enlarged_in_place(ihc_slide):
    same, finer = ihc_slide.read(700, 500, 100, 100), ihc_slide.read(700, 500, 200, 200, mpp=0.25)
    assert finer.shape == (200, 200, 3)
    assert difference(cv2.resize(finer, (100, 100), interpolation=cv2.INTER_AREA), same).mean() < 4


@pytest.mark.parametrize(
    ("mpp", "level"), [(0.25, 0), (0.5, 0), (0.9, 0), (0.995, 1), (1.0, 1), (1.9, 1), (2.0, 2), (8.0, 2)]
)
def test_the_coarsest_level_that_is_fine_enough_is_read(coloured_levels, mpp, level):
    with open_slide(coloured_levels) as slide:
        assert [round(lv.downsample) for lv in slide.levels] == [1, 2, 4]
        np.testing.assert_allclose(slide.read(512, 512, 64, 64, mpp=mpp), (40, 120, 200)[level], atol=2)


@pytest.mark.parametrize("mpp", [0.5, 0.7, 1.0, 2.0])
def test_backends_agree(ihc_slide_path, mpp):
    pixels = []
    for backend in BACKENDS:
        with open_slide(ihc_slide_path, backend=backend) as slide:
            assert slide.backend == backend
            pixels.append(slide.read(450, 250, 320, 240, mpp=mpp))
    for others in pixels[1:]:
        # Two JPEG decoders may round differently.
        assert difference(pixels[0], others).max() <= 4
        assert difference(pixels[0], others).mean() < 0.5


def test_openslide_and_tiffslide_agree_on_real_files(real_slides):
    for name in ("hamamatsu_fluorescence_dapi.ndpi", "he_aperio_cmu1_small_region.svs", "ihc_core_score2_a.tif"):
        a, b = (open_slide(real_slides / name, backend=backend) for backend in ("openslide", "tiffslide"))
        # tiffslide leaves out the coarsest levels of an NDPI.
        shared = min(len(a.levels), len(b.levels))
        assert a.levels[:shared] == b.levels[:shared]
        assert a.mpp == pytest.approx(b.mpp, rel=1e-6)
        assert difference(a.read(900, 1100, 200, 150), b.read(900, 1100, 200, 150)).mean() < 1
        a.close()
        b.close()


# The edge, transparency, bounds


@pytest.mark.parametrize("backend", BACKENDS)
def test_outside_the_slide_is_white(ihc_slide_path, backend):
    with open_slide(ihc_slide_path, backend=backend) as slide:
        inside = slide.read(0, 0, 60, 40)
        corner = slide.read(-30, -20, 90, 60)
        np.testing.assert_array_equal(corner[20:, 30:], inside)
        assert (corner[:20] == 255).all()
        assert (corner[:, :30] == 255).all()
        far = slide.read(2190, 1790, 64, 64)
        assert (far[10:] == 255).all()
        assert (far[:, 10:] == 255).all()
        assert (far[:10, :10] < 250).all()
        for x, y in ((-500, 0), (0, -500), (5000, 0), (0, 5000)):
            assert (slide.read(x, y, 64, 64, mpp=1.0) == 255).all()


def test_transparent_pixels_lie_over_white():
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, :32, 3] = 255
    rgba[:, 32:48, 3] = 128
    got = slide_from_array(rgba, 0.5).read(0, 0, 64, 64)
    assert (got[:, :32] == 0).all()
    assert (got[:, 32:48] == 127).all()
    assert (got[:, 48:] == 255).all()


def test_the_bounds_of_a_slide_are_its_overview():
    rgb = np.full((900, 1200, 3), 90, np.uint8)
    keys = {"x": "200", "y": "100", "width": "400", "height": "300"}
    backend = MemoryBackend(rgb, {f"openslide.bounds-{key}": value for key, value in keys.items()})
    slide = Slide(backend, Resolution(0.5, "user"), path=None, name="bounded", requested="memory")
    assert slide.bounds == Box(200, 100, 400, 300)
    overview = slide.overview(2.0)
    assert overview.box == slide.bounds
    assert overview.rgb.shape == (75, 100, 3)
    assert overview.downsample == 4.0


@pytest.mark.parametrize(
    ("x", "y", "width", "height", "expected"),
    [
        ("-10", "5000", "99999", "99999", Box(0, 899, 1200, 1)),
        ("900", "0", "900", "900", Box(900, 0, 300, 900)),
        ("a", "0", "10", "10", Box(0, 0, 1200, 900)),
    ],
)
def test_bounds_that_cannot_be_are_cut_to_the_slide(x, y, width, height, expected):
    rgb = np.zeros((900, 1200, 3), np.uint8)
    stated = {"x": x, "y": y, "width": width, "height": height}
    backend = MemoryBackend(rgb, {f"openslide.bounds-{key}": value for key, value in stated.items()})
    slide = Slide(backend, Resolution(0.5, "user"), path=None, name="bounded", requested="memory")
    assert slide.bounds == expected


# Handles


@pytest.mark.parametrize("backend", BACKENDS)
def test_pickling_drops_the_handle_and_keeps_the_pixels(ihc_slide_path, backend):
    with open_slide(ihc_slide_path, backend=backend) as slide:
        before = slide.read(700, 500, 128, 128)
        pickled = pickle.dumps(slide)
        assert len(pickled) < 20_000
        with pickle.loads(pickled) as again:
            assert (again.name, again.mpp, again.mpp_source, again.backend, again.dimensions, again.levels) == (
                slide.name,
                slide.mpp,
                slide.mpp_source,
                slide.backend,
                slide.dimensions,
                slide.levels,
            )
            np.testing.assert_array_equal(again.read(700, 500, 128, 128), before)


def test_a_slide_in_memory_survives_pickling(ihc_image):
    slide = slide_from_array(ihc_image, 0.5, "patch")
    again = pickle.loads(pickle.dumps(slide))
    assert again.name == "patch"
    np.testing.assert_array_equal(again.read(10, 20, 100, 100), ihc_image[20:120, 10:110])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_closed_slide_opens_again_when_it_is_read(ihc_slide_path, backend):
    slide = open_slide(ihc_slide_path, backend=backend)
    before = slide.read(700, 500, 64, 64)
    slide.close()
    slide.close()
    np.testing.assert_array_equal(slide.read(700, 500, 64, 64), before)
    slide.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_read_the_same(ihc_slide_path, backend):
    with open_slide(ihc_slide_path, backend=backend) as slide:
        places = [(x, y) for x in range(400, 1500, 157) for y in range(300, 1300, 201)]
        serial = [slide.read(x, y, 90, 90, 0.8) for x, y in places]
        with ThreadPoolExecutor(4) as pool:
            parallel = list(pool.map(lambda place: slide.read(*place, 90, 90, 0.8), places))
    for one, other in zip(serial, parallel, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_spawned_process_reads_the_same(ihc_slide_path):
    slides = [open_slide(ihc_slide_path, backend=backend) for backend in BACKENDS]
    read = operator.methodcaller("read", 640, 480, 200, 150, 0.8)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for slide, there in zip(slides, pool.map(read, slides), strict=True):
            np.testing.assert_array_equal(there, read(slide))
            slide.close()


# Large reads and the overview


@pytest.mark.parametrize("mpp", [0.5, 1.0, 2.0])
def test_a_large_read_is_cut_up_and_equals_a_small_one(ihc_slide_path, monkeypatch, mpp):
    with open_slide(ihc_slide_path) as slide:
        width, height = (int(side * 0.5 / mpp) for side in (1500, 1100))
        at_once = slide.read(301, 202, width, height, mpp)
        monkeypatch.setattr(slide_module, "_SOURCE_PX_PER_READ", 200 * 200)
        largest = [0]
        decode = slide._backend().read

        def watched(level, x, y, w, h):
            largest[0] = max(largest[0], w * h)
            return decode(level, x, y, w, h)

        monkeypatch.setattr(slide._backend(), "read", watched)
        np.testing.assert_array_equal(slide.read(301, 202, width, height, mpp), at_once)
        assert 0 < largest[0] <= 200 * 200


def test_a_large_read_at_an_odd_scale_shows_no_seams(ihc_picture, monkeypatch):
    slide = slide_from_array(ihc_picture, 0.2281)
    at_once = slide.read(400, 200, 500, 480, 0.5)
    monkeypatch.setattr(slide_module, "_SOURCE_PX_PER_READ", 200 * 200)
    assert np.abs(slide.read(400, 200, 500, 480, 0.5).mean(axis=(0, 1)) - at_once.mean(axis=(0, 1))).max() < 0.5
    assert difference(slide.read(400, 200, 500, 480, 0.5), at_once).mean() < 6


def test_the_overview_spans_the_slide(ihc_slide, ihc_picture):
    overview = ihc_slide.overview(4.0)
    assert overview.rgb.shape == (225, 275, 3)
    assert (overview.mpp, overview.downsample) == (4.0, 8.0)
    assert not overview.unreadable.any()
    mean = ihc_picture.reshape(225, 8, 275, 8, 3).mean(axis=(1, 3))
    assert difference(overview.rgb, mean).mean() < 3


def test_the_overview_is_never_finer_than_the_slide(ihc_image):
    overview = slide_from_array(ihc_image, 0.5).overview(0.1)
    assert overview.mpp == 0.5
    np.testing.assert_array_equal(overview.rgb, ihc_image)


def test_the_overview_passes_over_what_cannot_be_decoded(real_slides):
    with open_slide(real_slides / "truncated_ihc_core.tif") as damaged:
        overview = damaged.overview(8.0)
        with pytest.raises(SlideReadError, match=r"truncated_ihc_core\.tif"):
            damaged.read(2500, 5000, 256, 256)
    with open_slide(real_slides / "ihc_core_score2_a.tif") as whole:
        expected = whole.overview(8.0)
    assert 0.2 < overview.unreadable.mean() < 0.8
    assert (overview.rgb[overview.unreadable] == 255).all()
    read = ~overview.unreadable
    assert difference(overview.rgb[read], expected.rgb[read]).mean() < 5


def test_what_cannot_be_decoded_is_sought_out_only_so_far(real_slides, monkeypatch):
    with open_slide(real_slides / "truncated_ihc_core.tif") as damaged:
        fine = damaged.overview(2.0)
        monkeypatch.setattr(slide_module, "_OVERVIEW_MOST_SPLIT", 5)
        coarse = damaged.overview(2.0)
    assert coarse.unreadable[fine.unreadable].all()
    assert fine.unreadable.sum() < coarse.unreadable.sum() < fine.unreadable.size
    read = ~coarse.unreadable
    np.testing.assert_array_equal(coarse.rgb[read], fine.rgb[read])


# Errors


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_a_missing_file_is_not_found(tmp_path, backend):
    with pytest.raises(SlideNotFound, match=r"gone\.svs"):
        open_slide(tmp_path / "gone.svs", backend=backend)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"II*\0\x08\0\0\0", bytes(range(256)) * 64], ids=["empty", "text", "stub", "bytes"]
)
@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_a_file_that_is_no_slide_is_refused(tmp_path, content, backend):
    path = tmp_path / "notes.svs"
    path.write_bytes(content)
    with pytest.raises(UnsupportedSlide):
        open_slide(path, backend=backend)


def test_what_is_no_slide_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "notes.svs"
    path.write_text("hello")
    with pytest.raises(UnsupportedSlide, match=r"notes\.svs.*export it as"):
        open_slide(path)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_a_folder_is_refused(tmp_path, backend):
    with pytest.raises(SlideError):
        open_slide(tmp_path, backend=backend)


def test_an_unopenable_file_is_refused(real_slides):
    with pytest.raises(UnsupportedSlide, match=r"unopenable\.tiff"):
        open_slide(real_slides / "tiny" / "unopenable.tiff")


def test_an_unreadable_file_fails_when_it_is_read_and_has_no_overview(real_slides):
    with open_slide(real_slides / "tiny" / "unreadable.svs") as slide:
        with pytest.raises(SlideReadError, match=r"unreadable\.svs"):
            slide.read(0, 0, 16, 16)
        assert slide.overview(0.5).unreadable.all()


def test_reads_go_on_after_one_that_failed(ihc_slide_path, tmp_path):
    path = shutil.copy(ihc_slide_path, tmp_path / "damaged.tif")
    with tifffile.TiffFile(path) as tiff:
        offset, size = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    for backend in BACKENDS:
        with open_slide(path, backend=backend) as slide, open_slide(ihc_slide_path, backend=backend) as whole:
            for _ in range(2):
                with pytest.raises(SlideReadError, match=r"damaged\.tif"):
                    slide.read(10, 10, 32, 32)
                np.testing.assert_array_equal(slide.read(600, 600, 64, 64), whole.read(600, 600, 64, 64))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_a_region_without_pixels_is_a_value_error(ihc_slide, width, height):
    with pytest.raises(ValueError, match="at least one pixel"):
        ihc_slide.read(0, 0, width, height)


def test_an_unknown_backend_is_named(ihc_slide_path):
    with pytest.raises(ValueError, match="bioformats"):
        open_slide(ihc_slide_path, backend="bioformats")


@pytest.mark.parametrize("shape", [(10, 10), (10, 10, 2), (10, 10, 3)])
def test_an_array_that_is_no_rgb_image_is_refused(shape):
    with pytest.raises(UnsupportedSlide, match="uint8"):
        slide_from_array(np.zeros(shape, np.float32 if shape[-1] == 3 else np.uint8), 0.5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_file_name_opens(ihc_slide_path, tmp_path, name, backend):
    shutil.copy(ihc_slide_path, tmp_path / name)
    with open_slide(tmp_path / name, backend=backend) as slide:
        assert slide.name == name
        assert slide.read(700, 500, 32, 32).mean() < 240


@pytest.mark.parametrize(
    "name", ["hamamatsu fluorescence é (560).ndpi", "tiny/😐.svs", "tiny/boxes_0.dcm", "tiny/boxes_1.dcm"]
)
def test_real_files_of_every_format_open(real_slides, name):
    with open_slide(real_slides / name) as slide:
        assert slide.read(0, 0, 8, 8).shape == (8, 8, 3)


def test_a_property_with_a_name_in_another_code_is_left_out(tmp_path):
    path = tmp_path / "slide.ndpi"
    path.write_bytes(SLIDES["hamamatsu_with_a_name_in_another_code"]())
    with open_slide(path, backend="openslide") as slide:
        assert slide.properties["hamamatsu.Product"] == "C9600-12"
        assert slide.read(200, 200, 64, 64).std() > 5


def test_ndpi_is_read_at_every_level(real_slides):
    path = real_slides / "hamamatsu_fluorescence_dapi.ndpi"
    with open_slide(path) as slide:
        assert slide.dimensions == (3968, 4864)
        assert len(slide.levels) == 7
        for index, level in enumerate(slide.levels):
            got = slide.read(0, 0, 60, 70, mpp=slide.mpp * level.downsample)
            np.testing.assert_array_equal(got, openslides_own(path, 0, 0, index, 60, 70))


@pytest.mark.parametrize("size", [(1826, 1247), (2929, 2350), (136, 4000)])
def test_the_overview_shows_the_slide_and_nothing_beyond(size):
    width, height = size
    overview = slide_from_array(np.zeros((height, width, 3), np.uint8), 0.25).overview(4.0)
    assert overview.rgb.max() == 0
    assert overview.rgb.shape[0] * overview.downsample <= height


@pytest.mark.parametrize("mpp", range(3, 11))
def test_the_overview_of_a_dark_scan_is_dark_at_any_scale(data_dir, mpp):
    with open_slide(data_dir / "slides" / "hamamatsu_fluorescence_dapi.ndpi") as slide:
        assert slide.overview(float(mpp)).rgb.min(axis=2).max() < 140


def test_transparent_pixels_are_white_at_every_scale():
    rgba = np.zeros((1200, 1200, 4), np.uint8)
    rgba[:, ::2] = 255
    assert slide_from_array(rgba, 0.5).read(0, 0, 300, 300, mpp=2.0).min() == 255


@pytest.mark.parametrize("mpp", [0.0, -0.5, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(mpp):
    with pytest.raises(ValueError, match="mpp"):
        slide_from_array(np.zeros((64, 64, 3), np.uint8), 0.5).read(0, 0, 8, 8, mpp=mpp)
