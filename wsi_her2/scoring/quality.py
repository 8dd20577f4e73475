"""How good a patch is, before anything is said about its staining."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.slides.backends import RGB
from wsi_her2.slides.density import optical_density, unmix

QUALITY = ("focus", "coarseness", "structure", "veil", "eosin_share", "foreign_share", "stained_share")
"""Names of the columns of `measure_quality`, in order."""

_STAINED_DENSITY = 0.08
_COLOURLESS = 0.08
_UNEXPLAINED = 0.12


def measure_quality(batch: RGB) -> npt.NDArray[np.float32]:
    """Measure the quality of patches.

    Parameters
    ----------
    batch : uint8 N x H x W x 3
        RGB with the white point at 255, at about 0.5 um/px.

    Returns
    -------
    float32 N x 7
        `focus`: energy of density finer than 1 px over energy between 1 and 3 px; it does not depend on how
        strong the stain is. Sharp tissue has 0.2 to 1.2, a blur of 1 um 0.06 to 0.11, pixel noise 10.
        `coarseness`: energy between 3 and 8 px over energy between 1 and 3 px. Sharp tissue has 0.3 to 1.5, a
        blur of 2 um 5 and more; unlike `focus` it is not fooled by noise that was added after the blur.
        `structure`: energy coarser than 8 px over energy between 3 and 8 px. Tissue, which has cells and
        regions, has 0.5 to 10, noise of any grain 0.2 to 0.35.
        `veil`: density of the clearest hundredth of the patch. In tissue some light passes between the fibres
        and it is below 0.1; under ink it is not.
        `eosin_share`: share of the stained pixels in which green is absorbed most by far, as eosin does and no
        mixture of hematoxylin and DAB.
        `foreign_share`: share of the stained pixels whose colour no mixture of hematoxylin and DAB makes, or
        that have none, as dust and a picture in black and white.
        `stained_share`: share of the pixels that are stained.
    """
    measured = np.empty((len(batch), len(QUALITY)), np.float32)
    for row, patch in zip(measured, batch, strict=True):
        row[:] = _measure(patch)
    return measured


def _measure(patch: RGB) -> tuple[float, ...]:
    density = optical_density(patch)
    mean = density.mean(axis=2)
    details = _details(mean)
    veil = float(np.percentile(mean, 1))
    smooth = cv2.GaussianBlur(density, (0, 0), 1.0)
    stained = smooth.mean(axis=2) > _STAINED_DENSITY
    count = int(stained.sum())
    if count == 0:
        return *details, veil, 0.0, 0.0, 0.0
    pixels = smooth[stained]
    red, green, blue = pixels.T
    eosin = (green > 1.25 * red) & (green > 1.25 * blue)
    length = np.maximum(np.linalg.norm(pixels, axis=1), 1e-3)
    parts = unmix(np.ascontiguousarray(pixels[None]))[0] / length[:, None]
    # The vectors of hematoxylin and DAB of all slides that were measured leave at most 0.08 unexplained.
    foreign = (np.abs(parts[:, 2]) > _UNEXPLAINED) | (parts[:, 0] < -0.25) | (parts[:, 1] < -0.25)
    strongest = pixels.max(axis=1)
    foreign |= strongest - pixels.min(axis=1) < _COLOURLESS * strongest
    return *details, veil, float(eosin.mean()), float(foreign.mean()), count / stained.size


def _details(mean: npt.NDArray[np.float32]) -> tuple[float, float, float]:
    """Ratios of the energy in neighbouring bands of detail: focus, coarseness, structure."""
    fine, middle, coarse = (cv2.GaussianBlur(mean, (0, 0), sigma) for sigma in (1.0, 3.0, 8.0))
    bands = (mean - fine, fine - middle, middle - coarse, coarse - coarse.mean())
    finest, cells, larger, largest = (float((band * band).mean()) for band in bands)
    # What is added keeps an empty patch, which has no energy in any band, from being anything.
    return finest / (cells + 1e-6), larger / (cells + 1e-6), largest / (larger + 1e-6)
