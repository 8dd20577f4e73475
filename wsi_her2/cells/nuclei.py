"""Nuclei in the counterstain, also where DAB is strong.

A nucleus is a blob of hematoxylin of a known range of sizes, so it is sought as a maximum of the scale-normalised
Laplacian of Gaussian (Lindeberg 1998). Membranes carry hematoxylin's colour too where DAB is dense, because no
two stains are unmixed perfectly; a share of the DAB density is therefore taken off before.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.slides.density import Float32


@dataclass(frozen=True)
class NucleusSettings:
    """What counts as a nucleus.

    Attributes
    ----------
    mpp : float
        Scale at which nuclei are sought, um/px: finer than this, chromatin is taken for nuclei.
    radii_um : tuple of float
        Radii of the blobs.
    dab_weight : float
        How much of the DAB density is taken off the hematoxylin density.
    compression : float
        Power to which the remaining density is raised, so that pale nuclei stand beside dark ones.
    least_response : float
        Smallest response of a nucleus.
    relative_response : float
        Smallest response as a share of the field's strong ones (99th percentile).
    apart_um : float
        Smallest distance of two nuclei.
    """

    mpp: float = 0.5
    radii_um: tuple[float, ...] = (2.8, 3.6, 4.6)
    dab_weight: float = 0.6
    compression: float = 0.7
    least_response: float = 0.015
    relative_response: float = 0.25
    apart_um: float = 2.6


_MAX_DENSITY = 1.2
_NOTICEABLE = 0.01


def find_nuclei(
    hematoxylin: Float32, dab: Float32, mpp: float, settings: NucleusSettings | None = None
) -> npt.NDArray[np.float64]:
    """Find the nuclei of a field.

    Parameters
    ----------
    hematoxylin, dab : float32 H x W
        Densities at about `settings.mpp`.
    mpp : float
        Their scale, um/px.
    settings : NucleusSettings, optional

    Returns
    -------
    float64 N x 2
        x and y of the centres in pixels, row by row; whole numbers are centres of pixels.
    """
    settings = settings or NucleusSettings()
    blue = np.clip(hematoxylin, 0, _MAX_DENSITY) - np.float32(settings.dab_weight) * np.maximum(dab, 0)
    chromatin = np.power(np.maximum(blue, 0), np.float32(settings.compression)).astype(np.float32)
    response = _blob_response(chromatin, tuple(radius / mpp for radius in settings.radii_um))
    noticeable = response[response > _NOTICEABLE]
    if noticeable.size == 0:
        return np.zeros((0, 2), np.float64)
    strong = float(np.percentile(noticeable, 99))
    least = max(settings.least_response, settings.relative_response * strong)
    reach = 2 * round(settings.apart_um / mpp) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    y, x = np.nonzero((response >= cv2.dilate(response, disc)) & (response > least))
    return np.stack([x, y], axis=1).astype(np.float64)


def _blob_response(image: Float32, radii_px: tuple[float, ...]) -> Float32:
    """Strongest response to a bright blob of any of the radii; 0 where nothing is brighter than around it."""
    strongest = np.zeros(image.shape, np.float32)
    for radius in radii_px:
        sigma = radius / np.sqrt(2.0)
        smooth = cv2.GaussianBlur(image, (0, 0), sigma)
        laplacian = cv2.Laplacian(smooth, cv2.CV_32F, ksize=1)
        strongest = np.maximum(strongest, laplacian * np.float32(-sigma * sigma))
    return strongest
