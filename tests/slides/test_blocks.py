"""A block is read at once and cut up; damage costs the patches that it hits and no other."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile

from wsi_her2.slides.blocks import read_block, sample_patches
from wsi_her2.slides.grid import plan_patches
from wsi_her2.slides.slide import open_slide


@pytest.fixture
def damaged(ihc_slide_path, tmp_path):
    """A copy of the small slide in which the tile of level 0 at (768, 512) is garbage; path and tile."""
    path = shutil.copy(ihc_slide_path, tmp_path / "damaged.tif")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        tile = 512 // 256 * across + 768 // 256
        offset, size = page.dataoffsets[tile], page.databytecounts[tile]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(range(1, 256)) * (size // 255) + b"\1" * (size % 255))
    return path


@pytest.mark.parametrize("mpp", [0.5, 1.0])
def test_slices_of_a_block_are_single_reads(ihc_slide, ihc_mask, mpp):
    grid = plan_patches(ihc_slide, ihc_mask, 64, mpp, block_edge=4)
    for block in range(grid.n_blocks):
        patches, readable = read_block(ihc_slide, grid, block)
        assert (patches.dtype, patches.shape) == (np.uint8, (16, 64, 64, 3))
        np.testing.assert_array_equal(readable, grid.selected[grid.rows(block)])
        for patch, read, (x, y) in zip(patches, readable, grid.xy[grid.rows(block)], strict=True):
            if read:
                np.testing.assert_array_equal(patch, ihc_slide.read(int(x), int(y), 64, 64, grid.mpp))
            else:
                assert (patch == 0).all()


def test_slices_are_single_reads_at_an_odd_scale_too(ihc_slide_path, ihc_mask):
    with open_slide(ihc_slide_path, mpp=0.2281) as slide:
        grid = plan_patches(slide, ihc_mask, 100, 0.5, block_edge=3)
        for block in range(grid.n_blocks):
            patches, readable = read_block(slide, grid, block)
            for patch, (x, y) in zip(patches[readable], grid.xy[grid.rows(block)][readable], strict=True):
                around = slide.read(int(x), int(y), 100, 100, grid.mpp)
                # A position may fall between two pixels of the level that is read: two pixels of play.
                found = cv2.matchTemplate(around, patch[4:-4, 4:-4], cv2.TM_CCOEFF_NORMED)
                _, likeness, _, (left, top) = cv2.minMaxLoc(found)
                assert likeness > 0.9
                assert max(abs(left - 4), abs(top - 4)) <= 2


@pytest.mark.parametrize("backend", ["tiled-jpeg", "openslide", "tiffslide"])
def test_a_damaged_tile_loses_only_its_patches(damaged, ihc_slide_path, ihc_mask, backend):
    with open_slide(damaged, backend=backend) as slide, open_slide(ihc_slide_path, backend=backend) as whole:
        grid = plan_patches(slide, ihc_mask, 128, 0.5, block_edge=4)
        lost = []
        for block in range(grid.n_blocks):
            patches, readable = read_block(slide, grid, block)
            expected, wanted = read_block(whole, grid, block)
            np.testing.assert_array_equal(patches[readable], expected[readable])
            assert (patches[~readable] == 0).all()
            lost += grid.xy[grid.rows(block)][wanted & ~readable].tolist()
    assert sorted(lost) == [[768, 512], [768, 640], [896, 512], [896, 640]]


def test_a_block_without_patches_reads_nothing(ihc_slide, ihc_mask):
    grid = plan_patches(ihc_slide, ihc_mask, 64, 0.5, block_edge=4)
    patches, readable = read_block(ihc_slide, replace(grid, tissue=np.zeros_like(grid.tissue)), 0)
    assert patches.shape == (16, 64, 64, 3)
    assert not patches.any()
    assert not readable.any()


def test_a_sample_is_spread_over_the_tissue_and_always_the_same(ihc_slide, ihc_mask):
    grid = plan_patches(ihc_slide, ihc_mask, 64, 0.5)
    sample = sample_patches(ihc_slide, grid, 12)
    assert sample.shape == (12, 64, 64, 3)
    np.testing.assert_array_equal(sample, sample_patches(ihc_slide, grid, 12))
    assert len(np.unique(sample.reshape(12, -1), axis=0)) == 12
    assert sample.mean() < 225


def test_a_sample_is_no_larger_than_the_tissue(ihc_slide, ihc_mask):
    grid = plan_patches(ihc_slide, ihc_mask, 256, 0.5)
    assert len(sample_patches(ihc_slide, grid, 10_000)) == grid.n_patches
    assert sample_patches(ihc_slide, grid, 0).shape == (0, 256, 256, 3)


def test_a_sample_passes_over_what_cannot_be_read(damaged, ihc_mask):
    with open_slide(damaged) as slide:
        grid = plan_patches(slide, ihc_mask, 128, 0.5)
        assert len(sample_patches(slide, grid, 10_000)) == grid.n_patches - 4
