"""Optical density and colour deconvolution.

By Beer and Lambert the density -log10(I / I0) of a stain adds up over stains and is proportional to its
amount; colour deconvolution (Ruifrok and Johnston 2001) splits it into the stains' own densities.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.slides.backends import RGB

Vector = tuple[float, float, float]
Float32 = npt.NDArray[np.float32]

HEMATOXYLIN_IHC: Vector = (0.70, 0.64, 0.31)
"""Middle of the range measured on real HER2 slides: [.62-.77, .55-.70, .19-.40]."""

DAB: Vector = (0.29, 0.53, 0.80)
"""Middle of the range measured on real HER2 slides: [.21-.44, .42-.60, .68-.92]."""

HEMATOXYLIN_HE: Vector = (0.65, 0.70, 0.29)
EOSIN: Vector = (0.07, 0.99, 0.11)
"""Hematoxylin and eosin of Ruifrok and Johnston 2001."""


@dataclass(frozen=True)
class StainVectors:
    """Two stains as unit vectors in optical-density space (red, green, blue)."""

    first: Vector
    second: Vector

    def matrix(self) -> npt.NDArray[np.float64]:
        """Rows: first stain, second stain, and the direction that neither explains (3 x 3, unit rows)."""
        first = _unit(np.asarray(self.first, np.float64))
        second = _unit(np.asarray(self.second, np.float64))
        return np.stack([first, second, _unit(np.cross(first, second))])

    def unmixing(self) -> npt.NDArray[np.float64]:
        """Matrix (3 x 3) that turns a density column vector into (first, second, unexplained)."""
        return np.asarray(np.linalg.inv(self.matrix().T), np.float64)


HEMATOXYLIN_DAB = StainVectors(HEMATOXYLIN_IHC, DAB)
HEMATOXYLIN_EOSIN = StainVectors(HEMATOXYLIN_HE, EOSIN)


def density_table(white: Vector = (255.0, 255.0, 255.0)) -> Float32:
    """Lookup table (float32 256 x 1 x 3) from grey level to optical density; never below zero."""
    levels = np.maximum(np.arange(256, dtype=np.float64), 1.0)[:, None]
    density = -np.log10(levels / np.maximum(np.asarray(white, np.float64), 1.0)[None])
    return np.maximum(density, 0.0).astype(np.float32).reshape(256, 1, 3)


def optical_density(rgb: RGB, white: Vector = (255.0, 255.0, 255.0)) -> Float32:
    """Optical density (log10) of an image.

    Parameters
    ----------
    rgb : uint8 H x W x 3
    white : tuple of float
        White point in grey levels.

    Returns
    -------
    float32 H x W x 3
    """
    return np.asarray(cv2.LUT(rgb, density_table(white)), np.float32)


def unmix(density: Float32, stains: StainVectors = HEMATOXYLIN_DAB) -> Float32:
    """Densities of two stains and of what neither explains.

    Parameters
    ----------
    density : float32 H x W x 3
    stains : StainVectors

    Returns
    -------
    float32 H x W x 3
        First stain, second stain, unexplained. Negative where the colour lies outside the stains' wedge.
    """
    return np.asarray(cv2.transform(density, _unmixing(stains)), np.float32)


@lru_cache(maxsize=64)
def _unmixing(stains: StainVectors) -> Float32:
    matrix = stains.unmixing().astype(np.float32)
    matrix.flags.writeable = False
    return matrix


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector), np.float64)
