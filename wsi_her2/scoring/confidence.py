"""How sure a call is: the share of resamples of the tissue that give the same one.

Neighbouring patches are alike, so patches are resampled in spatial blocks; resampling them one by one would
claim far too much.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

RESAMPLES = 1000
_SEED = 20160701
"""Fixed, so that the same slide always has the same confidence."""


_UNSEEN_WEIGHT = 0.03
"""Weight of a block that may exist, beside 1 of each that was seen."""


def spatial_blocks(xy: npt.NDArray[np.int32], mpp: float, block_um: float) -> npt.NDArray[np.int64]:
    """Number the square block of tissue in which each patch lies.

    Parameters
    ----------
    xy : int32 N x 2
        Level-0 pixels.
    mpp : float
        Of level 0, um/px.
    block_um : float
        Side of a block.

    Returns
    -------
    int64 N
        0 up to the number of blocks less 1.
    """
    side_px = max(1.0, block_um / mpp)
    cells = np.floor_divide(xy.astype(np.float64), side_px).astype(np.int64)
    _, numbers = np.unique(cells, axis=0, return_inverse=True)
    return np.asarray(numbers.reshape(-1), np.int64)


def resample(counts: Float64, estimate: Callable[[Float64], Float64], resamples: int = RESAMPLES) -> Float64:
    """Percentages in bootstrap resamples of blocks.

    Parameters
    ----------
    counts : float64 G x K
        Weight of each class in each block.
    estimate : callable
        Turns total weights (B x K) into percentages (B x C).
    resamples : int

    Returns
    -------
    float64 B x C
    """
    generator = np.random.default_rng(_SEED)
    drawn = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=resamples)
    return estimate(drawn.astype(np.float64) @ counts)


def complete(
    counts: Float64,
    unseen: int,
    possible: Float64,
    estimate: Callable[[Float64], Float64],
    resamples: int = RESAMPLES,
) -> Float64:
    """Percentages of the whole tissue, of which only an even random sample of blocks was seen.

    Each unseen block is drawn from the seen ones and those drawn before it (a Polya urn, the predictive
    distribution of a finite population; Ghosh and Meeden 1997). So nothing is unsure once all is seen, unlike in
    `resample`, which asks what another section of the same tumour would give. A little weight is on blocks that
    may exist though none was seen, or a small region of another class would be impossible.

    Parameters
    ----------
    counts : float64 G x K
        Weight of each class in each seen block.
    unseen : int
        Number of the others.
    possible : float64 P x K
        Weights of each class in blocks that may be among them.
    estimate : callable
        Turns total weights (B x K) into percentages (B x C).
    resamples : int

    Returns
    -------
    float64 B x C
    """
    generator = np.random.default_rng(_SEED)
    prior = np.concatenate([np.ones(len(counts)), np.full(len(possible), _UNSEEN_WEIGHT)])
    shares = generator.dirichlet(prior, size=resamples)
    drawn = generator.multinomial(unseen, shares / shares.sum(axis=1, keepdims=True)).astype(np.float64)
    drawn[:, : len(counts)] += 1
    return estimate(drawn @ np.concatenate([counts, possible]))


def tempered(confidence: Float64, temperature: float) -> Float64:
    """A confidence whose log-odds are divided by a temperature, as fitted on slides of known score.

    Resamples of a slide say how evenly it stains. How often such calls are right is another matter, and is
    measured: `wsi_her2.learning.threshold_fit`. A share of 1 counts as all resamples but half a one.

    Parameters
    ----------
    confidence : float64
        Any shape.
    temperature : float
        1 leaves it as it is.
    """
    if temperature == 1:
        return confidence
    bounded = np.clip(confidence, 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES)
    return np.asarray(1 / (1 + ((1 - bounded) / bounded) ** (1 / temperature)), np.float64)
