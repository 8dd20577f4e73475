"""Fits of the H&E stains of one slide: Macenko, Vahadane and Reinhard.

Each looks at a sample of the slide's tissue and returns a few numbers; `wsi_her2.slides.stain` applies them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.errors import StainFitError
from wsi_her2.slides.density import HEMATOXYLIN_EOSIN

Float64 = npt.NDArray[np.float64]

STAINED_DENSITY = 0.15
"""Norm of the density (log10) from which a pixel is stained: Macenko's 0.15 in natural units is 0.065; pale
scans need the higher value to keep the background out."""

BLACK_DENSITY = 1.6
"""Density (log10) of a channel from which it is lost in the sensor's noise."""

MIN_STAINED_PX = 500
"""Fewer stained pixels do not determine two directions."""

REFERENCE_VECTORS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
"""Hematoxylin and eosin of the reference slide of Macenko 2009 (rows, unit length)."""

REFERENCE_MAXIMA = np.array([1.9705, 1.0308]) / np.log(10)
"""99th percentiles of its concentrations, converted to log10 units."""

REFERENCE_LAB = ((65.0, 19.0, -11.0), (14.0, 8.0, 6.0))
"""Mean and standard deviation of CIE L*a*b* that Reinhard's method maps to: a middling H&E scan."""


def stained(density: Float64) -> Float64:
    """Pixels that carry stain.

    Parameters
    ----------
    density : float64 N x 3

    Returns
    -------
    float64 M x 3

    Raises
    ------
    StainFitError
        Too few pixels are stained, or all are of one colour.
    """
    # A channel that is all but black has no hue left.
    coloured = (np.linalg.norm(density, axis=1) > STAINED_DENSITY) & (density.max(axis=1) < BLACK_DENSITY)
    kept = density[coloured]
    if len(kept) < MIN_STAINED_PX:
        raise StainFitError(
            f"{len(kept)} of {len(density)} sampled pixels are stained; a fit needs {MIN_STAINED_PX}"
        )
    hues = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    spread = float(np.linalg.norm(hues - hues.mean(axis=0), axis=1).std())
    if spread < 0.01:
        raise StainFitError(f"the sampled pixels are of one colour (spread of hue {spread:.4f})")
    return np.asarray(kept, np.float64)


def macenko_vectors(density: Float64, tail_percent: float = 1.0) -> Float64:
    """Hematoxylin and eosin of a slide after Macenko 2009.

    Parameters
    ----------
    density : float64 N x 3
        Stained pixels.
    tail_percent : float
        Angles beyond this percentile on either side are noise.

    Returns
    -------
    float64 2 x 3
        Unit rows: hematoxylin, eosin.
    """
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    along = density @ plane
    angles = np.arctan2(along[:, 1], along[:, 0])
    low, high = np.percentile(angles, (tail_percent, 100 - tail_percent))
    extremes = np.array([plane @ (np.cos(angle), np.sin(angle)) for angle in (low, high)])
    return _hematoxylin_first(extremes)


def vahadane_vectors(density: Float64, sparsity: float = 0.1, iterations: int = 200) -> Float64:
    """Hematoxylin and eosin of a slide by sparse non-negative factorisation, after Vahadane 2016.

    Parameters
    ----------
    density : float64 N x 3
        Stained pixels.
    sparsity : float
        Weight of the L1 penalty on concentrations.
    iterations : int
        Multiplicative updates, started at Macenko's answer; deterministic.

    Returns
    -------
    float64 2 x 3
        Unit rows: hematoxylin, eosin.
    """
    tiny = 1e-9
    vectors = np.maximum(macenko_vectors(density), 1e-3)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    amounts = np.maximum(density @ np.linalg.pinv(vectors), 1e-3)
    for _ in range(iterations):
        amounts *= (density @ vectors.T) / (amounts @ (vectors @ vectors.T) + sparsity + tiny)
        vectors *= (amounts.T @ density) / (amounts.T @ amounts @ vectors + tiny)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= lengths
        amounts *= lengths.T
    return _hematoxylin_first(vectors)


def concentration_maxima(density: Float64, vectors: Float64) -> Float64:
    """99th percentile of each stain's concentration (float64 2); see Macenko 2009."""
    amounts = density @ np.linalg.pinv(vectors)
    maxima = np.asarray(np.percentile(amounts, 99, axis=0), np.float64)
    if (maxima < 0.02).any():
        raise StainFitError(f"a stain is all but absent (99th percentiles {maxima[0]:.3f} and {maxima[1]:.3f})")
    return maxima


def lab_statistics(rgb: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of CIE L*a*b* over pixels (uint8 N x 3), for Reinhard 2001."""
    if len(rgb) < MIN_STAINED_PX:
        raise StainFitError(f"{len(rgb)} tissue pixels were sampled; a fit needs {MIN_STAINED_PX}")
    lab = cv2.cvtColor((rgb[None] / np.float32(255)).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    deviation = lab.std(axis=0)
    if deviation[0] < 1.0:
        raise StainFitError(f"the sampled pixels are of one lightness (deviation {deviation[0]:.2f})")
    return tuple(float(v) for v in lab.mean(axis=0)), tuple(float(max(v, 0.5)) for v in deviation)


def _hematoxylin_first(vectors: Float64) -> Float64:
    vectors = vectors * np.where(vectors.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = vectors @ HEMATOXYLIN_EOSIN.matrix()[:2].T
    swapped = likeness[0, 0] - likeness[0, 1] < likeness[1, 0] - likeness[1, 1]
    return np.asarray(vectors[::-1] if swapped else vectors, np.float64)
