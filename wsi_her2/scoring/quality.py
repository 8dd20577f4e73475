"""How good a patch is, before anything is said about its staining."""

from __future__ import annotations

import math

import cv2
import numpy as np

from wsi_her2.slides.backends import RGB
from wsi_her2.slides.channels import channel_extremes, channel_mean
from wsi_her2.slides.density import Float32, density_table, unmix

QUALITY = ("focus", "coarseness", "structure", "veil", "eosin_share", "foreign_share", "stained_share")
"""Names of the columns of `measure_quality`, in order."""

_DENSITIES = density_table()[:, 0, 0].copy()
"""Optical density of each grey level, the same for all channels, which is looked up twice as fast as three are."""

_STAINED_DENSITY = 0.08
_COLOURLESS = 0.08
_UNEXPLAINED = 0.12


def measure_quality(batch: RGB) -> Float32:
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
        mean = _mean_density(patch)
        row[:3] = _details(mean)
        # Every fourth pixel has the same distribution as all.
        spread = mean[::2, ::2].ravel()
        row[3] = np.partition(spread, spread.size // 100)[spread.size // 100]
    if len(batch):
        measured[:, 4:] = _colours(np.stack([_colour_densities(patch) for patch in batch]))
    return measured


def _details(mean: Float32) -> tuple[float, float, float]:
    """Ratios of the energy in neighbouring bands of detail: focus, coarseness, structure.

    What is blurred needs fewer pixels: each further blur is made on every second pixel of the one before, with
    what is missing to its width. Variances of Gaussians add up.
    """
    fine = _blurred(mean, 1.0)
    middle_of_fine = _halved(fine)
    middle = _blurred(middle_of_fine, (3.0**2 - 1.0**2) ** 0.5 / 2)
    coarse_of_middle = _halved(middle)
    coarse = _blurred(coarse_of_middle, (8.0**2 - 3.0**2) ** 0.5 / 4)
    finest, cells = _energy(mean, fine), _energy(middle_of_fine, middle)
    larger, largest = _energy(coarse_of_middle, coarse), float(coarse.var())
    # What is added keeps an empty patch, which has no energy in any band, from being anything.
    return finest / (cells + 1e-6), larger / (cells + 1e-6), largest / (larger + 1e-6)


def _colour_densities(patch: RGB) -> Float32:
    """Optical density of every 16th pixel, blurred to what such a pixel stands for."""
    height, width = (max(1, side // 2) for side in patch.shape[:2])
    halved = np.asarray(cv2.resize(patch, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return _halved(_blurred(_density(halved), 0.5))


def _colours(densities: Float32) -> Float32:
    """Shares of eosin and foreign colour in the stained pixels, and of stained pixels (float32 N x 3).

    All patches (float32 N x H x W x 3) are one image, because they are so small that calls would cost the most.
    """
    count, height, width, _ = densities.shape
    density = densities.reshape(count * height, width, 3)
    stained = channel_mean(density) > _STAINED_DENSITY
    red, green, blue = cv2.split(density)
    eosin = (green > 1.25 * red) & (green > 1.25 * blue)
    length = np.maximum(cv2.sqrt(red * red + green * green + blue * blue), 1e-3)
    hematoxylin, dab, unexplained = cv2.split(unmix(density))
    # The vectors of hematoxylin and DAB of all slides that were measured leave at most 0.08 unexplained.
    foreign = (np.abs(unexplained) > _UNEXPLAINED * length) | (cv2.min(hematoxylin, dab) < -0.25 * length)
    weakest, strongest = channel_extremes(density)
    foreign |= strongest - weakest < _COLOURLESS * strongest
    in_each = [
        np.count_nonzero(pixels.reshape(count, -1), axis=1)
        for pixels in (eosin & stained, foreign & stained, stained)
    ]
    of_stained, of_all = np.maximum(in_each[2], 1), height * width
    shares = (in_each[0] / of_stained, in_each[1] / of_stained, in_each[2] / of_all)
    return np.stack(shares, axis=1).astype(np.float32)


def _mean_density(patch: RGB) -> Float32:
    """Mean over the channels of optical density: one logarithm of their product, for three that are looked up."""
    # Three times as fast as NumPy's; the stubs of OpenCV know no numbers here.
    red, green, blue = (cv2.max(channel, 1) for channel in cv2.split(patch))  # type: ignore[call-overload]
    transmitted = np.asarray(cv2.multiply(red, green, dtype=cv2.CV_32F), np.float32)
    transmitted *= blue
    # Whole numbers below 2^24, so that white is exactly 1 after this, and its density 0.
    transmitted /= np.float32(255**3)
    density = np.asarray(cv2.log(transmitted), np.float32)
    density *= np.float32(-1 / (3 * math.log(10)))
    return density


def _density(patch: RGB) -> Float32:
    return np.asarray(cv2.LUT(patch, _DENSITIES), np.float32)


def _blurred(image: Float32, sigma_px: float) -> Float32:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.float32)


def _halved(blurred: Float32) -> Float32:
    """Every second pixel both ways; what was blurred before loses nothing by that."""
    return np.ascontiguousarray(blurred[::2, ::2])


def _energy(image: Float32, blurred: Float32) -> float:
    """Mean square of what the blur took away."""
    return float(cv2.norm(image, blurred, cv2.NORM_L2)) ** 2 / image.size
