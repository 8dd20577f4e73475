"""Scoring only as many patches as the call needs: in which order, and when to stop.

Blocks are taken in a random order of which every beginning is spread evenly over the tissue. After each round it
is asked how surely the call from what was seen is the call that all of it would give. Order and rounds are fixed
before anything is scored, so a sample does not depend on the number of workers nor on interruptions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_her2.scoring.call import SlideCall
from wsi_her2.scoring.result import Sample
from wsi_her2.slides.grid import BLOCK_EDGE, MAX_BLOCK_PX
from wsi_her2.slides.store import PatchStore

BLOCKS = 300
"""Into how many blocks tissue is cut, about: enough for even small samples to be spread over it, few enough for
neighbours to share tiles of the file and chunks of the store."""

FIRST_ROUND = 24
"""Blocks after which a call is first looked at: fewer may all have missed a region of the tumour."""

GROWTH = 1.3
"""By how much each round makes the sample larger."""

_SEED = 20250801

Call = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64], int], SlideCall | None]


@dataclass(frozen=True)
class Assessment:
    """Where a sample stands: the blocks to be scored next, none where it is enough; and what it is."""

    pending: tuple[int, ...]
    sample: Sample


def block_edge(tissue_mm2: float, patch_px: int, mpp: float) -> int:
    """Patches along the side of a block: some `BLOCKS` blocks for so much tissue, none of them too large."""
    patches = tissue_mm2 * 1e6 / (patch_px * mpp) ** 2
    return max(1, min(BLOCK_EDGE, MAX_BLOCK_PX // patch_px, round(math.sqrt(patches / BLOCKS))))


def assess_sample(store: PatchStore, call: Call, confidence: float) -> Assessment:
    """Decide from the blocks that are in a store which to score next.

    Parameters
    ----------
    store : PatchStore
    call : callable
        Gives the call of patches, None where there is none to make, from their probabilities (float32 N x K, NaN
        where not scored), the block of each (int64 N) and how many blocks there are besides.
    confidence : float
        From which on a sample is enough.

    Returns
    -------
    Assessment
        The sample is of whole rounds only, whatever else was scored before an interruption.
    """
    done, selected = store.done, store.grid.selected
    rows = len(selected) // max(1, len(done))
    order = spread_order(store.xy[::rows])
    complete, upcoming = 0, len(order)
    for size in round_sizes(len(order)):
        if not done[order[:size]].all():
            upcoming = size
            break
        complete = size
    block_of_patch = np.arange(len(selected)) // rows
    seen = np.isin(block_of_patch, order[:complete])
    if complete == len(order):
        reached = 1.0
    else:
        probabilities = np.where(seen[:, None], store.probabilities, np.float32(np.nan))
        found = call(probabilities, block_of_patch, len(order) - complete) if complete else None
        reached = 0.0 if found is None else found.confidence
    next_blocks = order[complete:upcoming] if reached < confidence else order[:0]
    return Assessment(
        tuple(int(block) for block in next_blocks[~done[next_blocks]]),
        Sample(confidence, reached, int(selected[seen].sum()), int(selected.sum())),
    )


def round_sizes(n_blocks: int) -> list[int]:
    """How many blocks are scored after each round; the last is all of them."""
    sizes, size = [], float(FIRST_ROUND)
    while size < n_blocks:
        sizes.append(int(size))
        size = max(size * GROWTH, size + 1)
    return [*sizes, n_blocks]


def spread_order(xy: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """A random order of places of which every beginning is spread evenly over them.

    The places are lined up along a curve that stays near where it is (Morton's), and the line is halved again and
    again; places are then taken from the halves in turn, which of the two first being drawn by lot.

    Parameters
    ----------
    xy : int32 N x 2
        Corners on a regular grid.

    Returns
    -------
    int64 N
        Indices.
    """
    if len(xy) == 0:
        return np.zeros(0, np.int64)
    generator = np.random.default_rng(_SEED)
    ranks = [np.unique(axis, return_inverse=True)[1].reshape(-1).astype(np.int64) for axis in xy.T]
    line = np.argsort(_interleaved_bits(ranks[0]) | (_interleaved_bits(ranks[1]) << 1), kind="stable")
    return _in_turn(line, generator)


def _in_turn(line: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    if len(line) == 1:
        return line
    halves = [line[: len(line) // 2], line[len(line) // 2 :]]
    # The longer half begins, or one of its places would have no partner.
    first = int(generator.integers(2)) if len(line) % 2 == 0 else 1
    taken = np.empty_like(line)
    taken[0::2] = _in_turn(halves[first], generator)
    taken[1::2] = _in_turn(halves[1 - first], generator)
    return taken


def _interleaved_bits(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Put a zero between any two bits of numbers below 2**31."""
    spread = numbers.copy()
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        spread = (spread | (spread << shift)) & mask
    return spread
