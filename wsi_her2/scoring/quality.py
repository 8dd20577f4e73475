"""How good a patch is, before anything is said about its staining."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.slides.backends import RGB
from wsi_her2.slides.density import optical_density, unmix

QUALITY = ("focus", "eosin_share", "foreign_share", "stained_share")
"""Names of the columns of `measure_quality`, in order."""

_STAINED_DENSITY = 0.08


def measure_quality(batch: RGB) -> npt.NDArray[np.float32]:
    """Measure the quality of patches.

    Parameters
    ----------
    batch : uint8 N x H x W x 3
        RGB with the white point at 255, at about 0.5 um/px.

    Returns
    -------
    float32 N x 4
        `focus`: energy of density finer than 1 px over energy between 1 and 3 px; it does not depend on how
        strong the stain is. Sharp tissue has 0.2 to 1.2, a blur of 1 um 0.06 to 0.11, pixel noise 10.
        `eosin_share`: share of the stained pixels in which green is absorbed most by far, as eosin does and no
        mixture of hematoxylin and DAB.
        `foreign_share`: share of the stained pixels whose colour no mixture of hematoxylin and DAB makes.
        `stained_share`: share of the pixels that are stained.
    """
    measured = np.empty((len(batch), len(QUALITY)), np.float32)
    for row, patch in zip(measured, batch, strict=True):
        row[:] = _measure(patch)
    return measured


def _measure(patch: RGB) -> tuple[float, float, float, float]:
    density = optical_density(patch)
    mean = density.mean(axis=2)
    fine = cv2.GaussianBlur(mean, (0, 0), 1.0)
    coarse = cv2.GaussianBlur(mean, (0, 0), 3.0)
    focus = float(((mean - fine) ** 2).mean() / (((fine - coarse) ** 2).mean() + 1e-6))
    smooth = cv2.GaussianBlur(density, (0, 0), 1.0)
    stained = smooth.mean(axis=2) > _STAINED_DENSITY
    count = int(stained.sum())
    if count == 0:
        return focus, 0.0, 0.0, 0.0
    pixels = smooth[stained]
    red, green, blue = pixels.T
    eosin = (green > 1.25 * red) & (green > 1.25 * blue)
    length = np.maximum(np.linalg.norm(pixels, axis=1), 1e-3)
    parts = unmix(np.ascontiguousarray(pixels[None]))[0] / length[:, None]
    foreign = (np.abs(parts[:, 2]) > 0.35) | (parts[:, 0] < -0.25) | (parts[:, 1] < -0.25)
    return focus, float(eosin.mean()), float(foreign.mean()), count / stained.size
