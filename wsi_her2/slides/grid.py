"""The patch grid: where patches lie, and which of them are read together.

A patch spans a whole number of level-0 pixels, so that coordinates are exact and patches never drift against
each other. Patches are grouped into square blocks; a block is the unit of work: one read, one chunk of the
store, one write. A block holds a row for each of its positions, whether it is scored or not, so that row
numbers follow from the block's number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from wsi_her2.errors import ResolutionTooLow, UnsupportedSlide
from wsi_her2.slides.slide import Slide
from wsi_her2.slides.tissue import TissueMask

BLOCK_EDGE = 8
"""Patches along a block's side: 64 patches a chunk, which Zarr writes twice as fast as one patch a chunk."""

MAX_BLOCK_PX = 2048
"""Side of a block beyond which it holds fewer patches, so that memory does not grow with the patch."""

MAX_POSITIONS = 10_000_000
"""Of patches over a slide, with tissue or without. A glass of 75 x 50 mm has room for 1,200,000 of 56 um; some
hundred bytes are taken for each while they are laid."""

MAX_ENLARGEMENT = 1.5
"""How much coarser than the classifier's scale a slide may be before its patches hold too little detail."""

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """Where the patches of a slide lie.

    Attributes
    ----------
    patch_px : int
        Side of a patch as read, in pixels at `mpp`.
    patch_px0 : int
        Side of a patch in level-0 pixels.
    mpp : float
        Scale at which patches are read, um/px: the requested one, rounded so that `patch_px0` is whole.
    mpp_requested : float
        The classifier's scale.
    block_edge : int
        Patches along the side of a block.
    block_xy : int32 B x 2
        Top-left corners of the blocks, level-0 pixels.
    tissue : float32 N
        Share of tissue in each patch, N = B * block_edge**2; 0 for positions beyond the slide.
    min_tissue : float
        Patches with less tissue are not scored.
    """

    patch_px: int
    patch_px0: int
    mpp: float
    mpp_requested: float
    block_edge: int
    block_xy: Int32
    tissue: Float32
    min_tissue: float

    @property
    def n_blocks(self) -> int:
        """Number of blocks that hold at least one patch to score."""
        return len(self.block_xy)

    @property
    def block_rows(self) -> int:
        """Positions in a block."""
        return self.block_edge**2

    @cached_property
    def xy(self) -> Int32:
        """Top-left corners of all positions, level-0 pixels (int32 N x 2), block after block, row by row."""
        steps = np.arange(self.block_edge, dtype=np.int32) * self.patch_px0
        within = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        return (self.block_xy[:, None, :] + within[None]).reshape(-1, 2).astype(np.int32)

    @cached_property
    def selected(self) -> npt.NDArray[np.bool_]:
        """Which positions are scored (bool N)."""
        return self.tissue >= self.min_tissue

    @property
    def n_patches(self) -> int:
        """Number of patches to score."""
        return int(self.selected.sum())

    def rows(self, block: int) -> slice:
        """Rows of a block."""
        return slice(block * self.block_rows, (block + 1) * self.block_rows)


def plan_patches(
    slide: Slide,
    mask: TissueMask,
    patch_px: int,
    mpp: float,
    *,
    min_tissue: float = 0.5,
    block_edge: int | None = None,
) -> PatchGrid:
    """Lay a grid of patches over the tissue of a slide.

    Parameters
    ----------
    slide : Slide
    mask : TissueMask
    patch_px : int
        Side of a patch in pixels at `mpp`.
    mpp : float
        Scale of the patches, um/px.
    min_tissue : float
        Least share of tissue of a patch that is scored.
    block_edge : int, optional
        Patches along the side of a block; by default as many as `MAX_BLOCK_PX` holds, at most `BLOCK_EDGE`.

    Raises
    ------
    UnsupportedSlide
        There would be more than `MAX_POSITIONS` patches.
    ResolutionTooLow
        The slide is so coarse that patches would have to be enlarged more than `MAX_ENLARGEMENT` times.
    """
    if slide.mpp > MAX_ENLARGEMENT * mpp:
        raise ResolutionTooLow(
            f"{slide.name}: scanned at {slide.mpp:g} um per pixel; the classifier needs {mpp:g} and accepts up "
            f"to {MAX_ENLARGEMENT * mpp:g}. Scan at 20x or more, or pass the true scale with --mpp if it is wrong."
        )
    patch_px0 = patch_side_px0(patch_px, mpp, slide.mpp)
    block_edge = block_edge or max(1, min(BLOCK_EDGE, MAX_BLOCK_PX // patch_px))
    block_px0 = block_edge * patch_px0
    bounds = slide.bounds
    columns, rows = -(-bounds.width // block_px0), -(-bounds.height // block_px0)
    if columns * rows * block_edge**2 > MAX_POSITIONS:
        raise UnsupportedSlide(
            f"{slide.name}: {bounds.width:,} x {bounds.height:,} px at {slide.mpp:g} um/px have room for more "
            f"than {MAX_POSITIONS:,} patches of {patch_px} px at {mpp:g} um/px. If that scale is wrong, pass "
            "the true one with --mpp."
        )
    corners = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    everywhere = PatchGrid(
        patch_px=patch_px,
        patch_px0=patch_px0,
        mpp=slide.mpp * patch_px0 / patch_px,
        mpp_requested=mpp,
        block_edge=block_edge,
        block_xy=(corners * block_px0 + (bounds.x, bounds.y)).astype(np.int32),
        tissue=np.zeros(len(corners) * block_edge**2, np.float32),
        min_tissue=min_tissue,
    )
    x, y = everywhere.xy.astype(np.int64).T
    tissue = mask.fractions(x, y, patch_px0, patch_px0).reshape(len(corners), -1)
    holds_any = (tissue >= min_tissue).any(axis=1)
    return PatchGrid(
        patch_px=patch_px,
        patch_px0=patch_px0,
        mpp=everywhere.mpp,
        mpp_requested=mpp,
        block_edge=block_edge,
        block_xy=everywhere.block_xy[holds_any],
        tissue=tissue[holds_any].reshape(-1),
        min_tissue=min_tissue,
    )


def patch_side_px0(patch_px: int, mpp: float, slide_mpp: float) -> int:
    """Side in level-0 pixels of a patch of `patch_px` pixels at `mpp`, on a slide of `slide_mpp` um/px."""
    return max(1, round(patch_px * mpp / slide_mpp))
