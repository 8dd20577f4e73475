"""The grid covers the tissue once, in patches of a whole number of level-0 pixels, block after block."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_her2.errors import ResolutionTooLow, UnsupportedSlide
from wsi_her2.slides import grid as grid_module
from wsi_her2.slides.backends import MemoryBackend
from wsi_her2.slides.grid import BLOCK_EDGE, MAX_ENLARGEMENT, plan_patches
from wsi_her2.slides.resolution import Resolution
from wsi_her2.slides.slide import Box, Slide, slide_from_array
from wsi_her2.slides.tissue import tissue_mask
from wsi_her2.slides.white_point import WhitePoint

MPPS = [0.2281, 0.25, 0.2527, 0.499, 0.5, 0.7]


def masked_slide(width, height, mpp, seed=None, bounds=None):
    """A slide and a mask of blobs over it, all tissue without a seed."""
    properties = {}
    if bounds is not None:
        stated = zip(("x", "y", "width", "height"), bounds, strict=True)
        properties = {f"openslide.bounds-{key}": str(value) for key, value in stated}
    backend = MemoryBackend(np.full((height, width, 3), 200, np.uint8), properties)
    slide = Slide(backend, Resolution(mpp, "user"), path=None, name="made", requested="memory")
    overview = slide.overview(4 * mpp)
    tissue = np.ones(overview.unreadable.shape, bool)
    if seed is not None:
        noise = np.random.default_rng(seed).normal(size=tissue.shape)
        tissue = cv2.GaussianBlur(noise, (0, 0), 12) > 0
    white = WhitePoint((255.0, 255.0, 255.0), "background", 1.0)
    return slide, tissue_mask(tissue, np.zeros_like(tissue), overview, white)


GRIDS = st.tuples(
    st.integers(200, 1200),
    st.integers(200, 1200),
    st.sampled_from(MPPS),
    st.sampled_from([32, 64, 128]),
    st.sampled_from([2, 3, 8]),
    st.integers(0, 1000),
)


@given(GRIDS)
def test_patches_span_whole_level_0_pixels_on_one_lattice_and_never_overlap(case):
    width, height, mpp, patch_px, edge, seed = case
    slide, mask = masked_slide(width, height, mpp, seed)
    grid = plan_patches(slide, mask, patch_px, 0.5, block_edge=edge)
    assert isinstance(grid.patch_px0, int)
    assert abs(grid.patch_px0 - patch_px * 0.5 / mpp) <= 0.5
    assert grid.xy.dtype == np.int32
    assert (grid.xy % grid.patch_px0 == 0).all()
    assert len(np.unique(grid.xy, axis=0)) == len(grid.xy)


@given(GRIDS)
def test_every_position_with_enough_tissue_is_selected_exactly_once(case):
    width, height, mpp, patch_px, edge, seed = case
    slide, mask = masked_slide(width, height, mpp, seed)
    grid = plan_patches(slide, mask, patch_px, 0.5, min_tissue=0.3, block_edge=edge)
    side = grid.patch_px0
    expected = []
    for y in range(0, height, side):
        for x in range(0, width, side):
            share = mask.fractions(np.array([x]), np.array([y]), side, side)[0]
            if share >= 0.3:
                expected.append((x, y, share))
    got = [
        (*map(int, xy), share)
        for xy, share in zip(grid.xy[grid.selected], grid.tissue[grid.selected], strict=True)
    ]
    assert sorted(got) == sorted(expected)
    assert grid.n_patches == len(expected)


@given(GRIDS)
def test_rows_belong_to_blocks_and_every_block_has_something_to_score(case):
    width, height, mpp, patch_px, edge, seed = case
    slide, mask = masked_slide(width, height, mpp, seed)
    grid = plan_patches(slide, mask, patch_px, 0.5, block_edge=edge)
    assert grid.block_rows == edge**2
    assert len(grid.xy) == len(grid.tissue) == grid.n_blocks * grid.block_rows
    seen = np.zeros(len(grid.xy), int)
    for block in range(grid.n_blocks):
        rows = grid.rows(block)
        seen[rows] += 1
        offset = grid.xy[rows] - grid.block_xy[block]
        steps = np.arange(edge) * grid.patch_px0
        np.testing.assert_array_equal(offset, [(x, y) for y in steps for x in steps])
        assert grid.selected[rows].any()
    assert (seen == 1).all()


@pytest.mark.parametrize("mpp", MPPS)
def test_the_scale_is_rounded_so_that_patches_are_whole(mpp):
    slide, mask = masked_slide(1000, 1000, mpp)
    grid = plan_patches(slide, mask, 128, 0.5)
    assert grid.mpp_requested == 0.5
    assert grid.mpp * grid.patch_px == pytest.approx(grid.patch_px0 * slide.mpp)
    assert grid.mpp == pytest.approx(0.5, rel=0.5 / grid.patch_px0 + 1e-9)
    assert slide.read(0, 0, grid.patch_px, grid.patch_px, grid.mpp).shape == (128, 128, 3)


def test_patches_at_the_edge_are_scored_when_enough_of_them_is_tissue():
    slide, mask = masked_slide(1000, 700, 0.5)
    grid = plan_patches(slide, mask, 128, 0.5, min_tissue=0.5)
    # 1000 = 7 x 128 + 104 and 700 = 5 x 128 + 60: the last column counts, the last row does not.
    assert set(grid.xy[grid.selected][:, 0].tolist()) == set(range(0, 1000, 128))
    assert set(grid.xy[grid.selected][:, 1].tolist()) == set(range(0, 640, 128))
    beyond = (grid.xy[:, 0] >= 1000) | (grid.xy[:, 1] >= 700)
    assert beyond.any()
    assert (grid.tissue[beyond] == 0).all()


def test_the_grid_starts_at_the_bounds_of_the_slide():
    slide, mask = masked_slide(1200, 900, 0.5, bounds=(200, 100, 640, 384))
    grid = plan_patches(slide, mask, 64, 0.5)
    chosen = grid.xy[grid.selected]
    assert slide.bounds == Box(200, 100, 640, 384)
    assert chosen.min(axis=0).tolist() == [200, 100]
    assert (chosen.max(axis=0) + 64).tolist() == [840, 484]
    assert grid.n_patches == 10 * 6


def test_no_tissue_gives_an_empty_grid():
    slide, mask = masked_slide(600, 600, 0.5)
    empty = tissue_mask(np.zeros_like(mask.tissue), mask.pen, mask.overview, mask.white_point)
    grid = plan_patches(slide, empty, 128, 0.5)
    assert (grid.n_blocks, grid.n_patches) == (0, 0)
    assert grid.xy.shape == (0, 2)


def test_a_slide_smaller_than_a_patch_has_one_position():
    slide, mask = masked_slide(100, 90, 0.5)
    grid = plan_patches(slide, mask, 128, 0.5, min_tissue=0.5)
    assert grid.n_patches == 1
    assert grid.tissue.max() == pytest.approx(100 * 90 / 128**2, abs=0.03)


def test_a_slide_that_is_too_coarse_is_refused_with_both_scales():
    slide, mask = masked_slide(600, 600, 1.0)
    with pytest.raises(ResolutionTooLow) as refused:
        plan_patches(slide, mask, 128, 0.5)
    assert str(refused.value) == (
        "made: scanned at 1 um per pixel; the classifier needs 0.5 and accepts up to 0.75. "
        "Scan at 20x or more, or pass the true scale with --mpp if it is wrong."
    )
    plan_patches(slide, mask, 128, 1.0 / MAX_ENLARGEMENT)


def test_a_block_holds_64_positions_by_default():
    slide, mask = masked_slide(600, 600, 0.5)
    assert plan_patches(slide, mask, 64, 0.5).block_rows == BLOCK_EDGE**2 == 64


@pytest.mark.parametrize(("patch_px", "edge"), [(256, 8), (257, 7), (512, 4), (2048, 1), (4096, 1)])
def test_large_patches_make_blocks_of_fewer(patch_px, edge):
    slide, mask = masked_slide(600, 600, 0.5)
    grid = plan_patches(slide, mask, patch_px, 0.5, min_tissue=0.0)
    assert (grid.block_edge, grid.patch_px, grid.patch_px0) == (edge, patch_px, patch_px)


def test_more_positions_than_any_glass_has_are_refused_with_the_scale(monkeypatch):
    slide, mask = masked_slide(1000, 500, 0.5)
    # 1000 x 500 px are 4 x 2 blocks of 4 x 4 patches of 64 px.
    monkeypatch.setattr(grid_module, "MAX_POSITIONS", 128)
    assert plan_patches(slide, mask, 64, 0.5, block_edge=4).n_blocks == 8
    monkeypatch.setattr(grid_module, "MAX_POSITIONS", 127)
    with pytest.raises(UnsupportedSlide) as refused:
        plan_patches(slide, mask, 64, 0.5, block_edge=4)
    assert str(refused.value) == (
        "made: 1,000 x 500 px at 0.5 um/px have room for more than 127 patches of 64 px at 0.5 um/px. "
        "If that scale is wrong, pass the true one with --mpp."
    )


def test_half_of_a_patch_is_enough_tissue_by_default():
    slide, mask = masked_slide(256, 128, 0.5)
    grid = plan_patches(slide, mask, 128, 0.5)
    assert grid.min_tissue == 0.5
    halves = replace(grid, tissue=np.where(np.arange(len(grid.tissue)) == 1, 0.5, 0.49).astype(np.float32))
    assert halves.selected.nonzero()[0].tolist() == [1]


def test_blocks_without_tissue_are_left_out_and_those_with_it_stay_in_their_order():
    slide, mask = masked_slide(1024, 512, 0.5)
    overview = mask.overview
    tissue = np.zeros_like(mask.tissue)
    # A patch in the second and one in the last of 4 x 2 blocks of 256 px, on an overview of 2 um/px.
    tissue[0:16, 64:80] = tissue[112:128, 240:256] = True
    some = tissue_mask(tissue, mask.pen, overview, mask.white_point)
    grid = plan_patches(slide, some, 64, 0.5, block_edge=4)
    assert grid.block_xy.tolist() == [[256, 0], [768, 256]]
    assert grid.block_xy.dtype == np.int32
    assert grid.xy[grid.selected].tolist() == [[256, 0], [960, 448]]
    assert grid.selected.nonzero()[0].tolist() == [0, 31]


def test_real_tissue_is_planned(ihc_picture, ihc_mask):
    grid = plan_patches(slide_from_array(ihc_picture, 0.5), ihc_mask, 128, 0.5)
    assert 40 <= grid.n_patches <= 100
    assert (grid.tissue[grid.selected] >= 0.5).all()
