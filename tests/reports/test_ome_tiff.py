"""Maps as OME-TIFF: they lie over the slide, and other programs read them."""

import re
import tracemalloc
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide

from tests.reports.conftest import CLASSES
from wsi_her2.reports.ome_tiff import (
    TILE_PX,
    SlideExtent,
    downsample_for,
    write_class_map,
    write_probability_map,
)
from wsi_her2.reports.palette import colour_of
from wsi_her2.scoring.quality import QUALITY
from wsi_her2.slides.grid import PatchGrid
from wsi_her2.slides.store import PatchStore

EXTENT = SlideExtent(1601, 1200, 0.5)
"""Of the scored slide, made a pixel wider: 1601 is no multiple of the downsample."""

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


@pytest.fixture
def class_map(scored, tmp_path):
    path = tmp_path / "map.ome.tif"
    write_class_map(path, scored.store, EXTENT, name="case 1", notes={"note": "research use only"})
    return path


def described(path):
    """Attributes of the one `Pixels` element, and of its channels."""
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        (pixels,) = ElementTree.fromstring(tiff.ome_metadata).iter(f"{OME}Pixels")
    return pixels.attrib, [channel.attrib for channel in pixels.iter(f"{OME}Channel")]


@pytest.mark.parametrize(("side", "downsample"), [(256, 32), (253, 23), (507, 39), (257, 32), (7, 32), (96, 32)])
def test_the_downsample_divides_the_patch_where_it_can(side, downsample):
    assert downsample_for(side) == downsample


def test_it_starts_where_the_slide_starts_covers_all_of_it_and_says_its_scale(class_map):
    downsample = downsample_for(128)
    with tifffile.TiffFile(class_map) as tiff:
        (series,) = tiff.series
        assert series.axes == "YXS"
        assert series.shape == (-(-1200 // downsample), -(-1601 // downsample), 3)
        assert series.shape[1] * downsample >= 1601 > (series.shape[1] - 1) * downsample
    pixels, _ = described(class_map)
    assert float(pixels["PhysicalSizeX"]) == float(pixels["PhysicalSizeY"]) == 0.5 * downsample
    assert pixels["PhysicalSizeXUnit"] == pixels["PhysicalSizeYUnit"] == "µm"
    assert (pixels["SizeX"], pixels["SizeY"]) == (str(series.shape[1]), str(series.shape[0]))


def test_each_patch_has_its_colour_at_its_place_and_all_else_is_white(scored, class_map):
    downsample = downsample_for(128)
    expected = np.full((-(-1200 // downsample), -(-1601 // downsample), 3), 255, np.uint8)
    probabilities, counted = scored.store.probabilities, 0
    for (x, y), row, tissue in zip(scored.store.xy, probabilities, scored.store.tissue, strict=True):
        place = np.s_[y // downsample : (y + 128) // downsample, x // downsample : (x + 128) // downsample]
        if not np.isnan(row).any():
            name = CLASSES[int(row.argmax())]
            expected[place] = (205, 206, 208) if name == "other" else colour_of(name)
            counted += 1
        elif tissue >= np.float32(scored.store.attributes["min_tissue"]):
            expected[place] = (60, 60, 60)
    assert counted > 20
    np.testing.assert_array_equal(tifffile.imread(class_map), expected)


def test_openslide_and_tiffslide_read_it(class_map):
    pixels = tifffile.imread(class_map)
    with openslide.OpenSlide(class_map) as slide:
        assert slide.dimensions == pixels.shape[1::-1]
        region = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    np.testing.assert_array_equal(region, pixels)
    with tiffslide.TiffSlide(class_map) as slide:
        assert float(slide.properties["tiffslide.mpp-x"]) == 0.5 * downsample_for(128)


def test_coarser_levels_are_means_of_the_finer_ones_in_sub_directories(scored, tmp_path):
    # As if the slide were large: the tissue lies in its corner.
    path = tmp_path / "large.ome.tif"
    write_class_map(path, scored.store, SlideExtent(40_000, 30_000, 0.5), name="large")
    with tifffile.TiffFile(path) as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
        assert len(tiff.pages) == 1
        assert tiff.pages[0].tile == (TILE_PX, TILE_PX)
    assert [level.shape[:2] for level in levels] == [(938, 1250), (469, 625), (235, 313), (118, 157)]
    for finer, coarser in pairwise(levels):
        # Patches are 4 px wide, so that two levels are of whole pixels; further ones are rounded twice here.
        height, width = (2 * side for side in coarser.shape[:2])
        whole = np.pad(finer, ((0, height - len(finer)), (0, width - finer.shape[1]), (0, 0)), mode="edge")
        means = whole.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
        assert np.abs(coarser - means).max() <= 1


def test_probabilities_are_a_channel_a_class_with_its_name_and_colour(scored, tmp_path):
    path = tmp_path / "p.ome.tif"
    write_probability_map(path, scored.store, EXTENT, name="case 1")
    pixels, channels = described(path)
    assert pixels["SizeC"] == "5"
    assert [channel["Name"] for channel in channels] == list(CLASSES)
    red, green, blue = colour_of("2+")
    assert int(channels[3]["Color"]) & 0xFFFFFFFF == (red << 24) | (green << 16) | (blue << 8) | 255
    image, downsample = tifffile.imread(path), downsample_for(128)
    scored_rows = np.flatnonzero(~np.isnan(scored.store.probabilities).any(axis=1))
    for row in scored_rows[[0, 7, -1]]:
        x, y = scored.store.xy[row] // downsample
        np.testing.assert_array_equal(image[:, y, x], np.rint(255 * scored.store.probabilities[row]))
    assert image[:, 0, 0].tolist() == [0] * 5


def test_equal_stores_give_equal_bytes_and_nothing_of_the_machine(scored, class_map, tmp_path):
    again = tmp_path / "again.ome.tif"
    write_class_map(again, scored.store, EXTENT, name="case 1", notes={"note": "research use only"})
    assert again.read_bytes() == class_map.read_bytes()
    with tifffile.TiffFile(class_map) as tiff:
        (uuid,) = re.findall(r'UUID="urn:uuid:([0-9a-f-]+)"', tiff.ome_metadata)
        assert "DateTime" not in tiff.pages[0].tags
    assert uuid[14] == "5", "made of its content, not of the machine's address and the time"


def test_notes_and_names_may_hold_anything(scored, tmp_path, hostile):
    path = tmp_path / "h.ome.tif"
    name = hostile + "\x00\x1b\ud800]]>&<"
    write_class_map(path, scored.store, EXTENT, name=name, notes={name: name})
    with tifffile.TiffFile(path) as tiff:
        image = next(ElementTree.fromstring(tiff.ome_metadata).iter(f"{OME}Image"))
    assert image.attrib["Name"] == hostile + "\\x00\\x1b\\ud800]]>&<"


def test_nothing_scored_is_a_white_image(empty, tmp_path):
    path = tmp_path / "empty.ome.tif"
    write_class_map(path, empty.store, SlideExtent(800, 600, 0.5), name="empty")
    assert (tifffile.imread(path) == 255).all()


def test_a_slide_of_150_000_pixels_needs_little_memory(tmp_path):
    side = 256
    corners = np.array([[0, 0], [148_000, 146_000]], np.int32) // (8 * side) * (8 * side)
    grid = PatchGrid(128, side, 0.5, 0.5, 8, corners, np.ones(128, np.float32), 0.5)
    store = PatchStore.create(tmp_path / "patches.zarr", grid, classes=CLASSES, quality=QUALITY)
    probabilities = np.tile(np.eye(5, dtype=np.float32)[4], (64, 1))
    for block in range(2):
        store.write_block(block, probabilities, np.zeros((64, len(QUALITY)), np.float32))
    extent = SlideExtent(150_000, 150_000, 0.25)
    tracemalloc.start()
    write_class_map(tmp_path / "large.ome.tif", store, extent, name="large")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6, "the image alone takes 66 MB"
    with tifffile.TiffFile(tmp_path / "large.ome.tif") as tiff:
        assert tiff.series[0].shape == (4688, 4688, 3)
        x, y = (corners[1] + 8 * side) // 32 - 1
        last = tiff.series[0].asarray()[y - 1 : y + 2, x - 1 : x + 2]
    assert (last[:2, :2] == colour_of("3+")).all()
    assert (last[2] == 255).all()
