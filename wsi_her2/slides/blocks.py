"""Reading a block of patches: one read, cut into patches, damage contained to the patches it hits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsi_her2.errors import SlideReadError
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.grid import PatchGrid
from wsi_her2.slides.slide import Slide


def read_block(slide: Slide, grid: PatchGrid, block: int) -> tuple[RGB, npt.NDArray[np.bool_]]:
    """Read the patches of a block that are to be scored.

    Parameters
    ----------
    slide : Slide
    grid : PatchGrid
    block : int

    Returns
    -------
    patches : uint8 rows x patch_px x patch_px x 3
        One for each position of the block; zeros where none was read.
    readable : bool rows
        True where a patch was to be scored and could be decoded.
    """
    wanted = grid.selected[grid.rows(block)].reshape(grid.block_edge, grid.block_edge)
    px, px0 = grid.patch_px, grid.patch_px0
    patches = np.zeros((grid.block_edge, grid.block_edge, px, px, 3), np.uint8)
    readable = np.zeros_like(wanted)
    down, across = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
    if len(down) == 0:
        return patches.reshape(-1, px, px, 3), readable.reshape(-1)
    top, bottom, left, right = down[0], down[-1] + 1, across[0], across[-1] + 1
    x, y = (int(value) for value in grid.block_xy[block])
    n_down, n_across = int(bottom - top), int(right - left)
    try:
        region = slide.read(x + int(left) * px0, y + int(top) * px0, n_across * px, n_down * px, grid.mpp)
        cut = region.reshape(n_down, px, n_across, px, 3).transpose(0, 2, 1, 3, 4)
        patches[top:bottom, left:right] = cut
        readable = wanted
    except SlideReadError:
        for row, column in np.argwhere(wanted):
            try:
                patches[row, column] = slide.read(x + int(column) * px0, y + int(row) * px0, px, px, grid.mpp)
                readable[row, column] = True
            except SlideReadError:
                continue
    patches[~readable] = 0
    return patches.reshape(-1, px, px, 3), readable.reshape(-1)


def sample_patches(slide: Slide, grid: PatchGrid, count: int) -> RGB:
    """Read patches spread evenly over the tissue, those full of tissue first; the same ones every time.

    Parameters
    ----------
    slide : Slide
    grid : PatchGrid
    count : int
        How many at most.

    Returns
    -------
    uint8 n x patch_px x patch_px x 3
        n may be smaller than `count`, and 0.
    """
    patches = []
    for x, y in sample_places(grid, count):
        try:
            patches.append(slide.read(int(x), int(y), grid.patch_px, grid.patch_px, grid.mpp))
        except SlideReadError:
            continue
    return np.stack(patches) if patches else np.zeros((0, grid.patch_px, grid.patch_px, 3), np.uint8)


def sample_places(grid: PatchGrid, count: int) -> npt.NDArray[np.int32]:
    """Top-left corners (int32 n x 2, level-0 pixels) of the patches that `sample_patches` reads."""
    full = np.flatnonzero(grid.tissue >= 0.9)
    candidates = full if len(full) >= count else np.flatnonzero(grid.selected)
    chosen = candidates[np.linspace(0, len(candidates) - 1, min(count, len(candidates))).round().astype(int)]
    return np.asarray(grid.xy[chosen], np.int32)
