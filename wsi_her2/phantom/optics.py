"""Light through the section: from amounts of dye to the grey levels that a scanner writes."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_her2.phantom.composition import Modality
from wsi_her2.phantom.drawing import Planes, Window
from wsi_her2.phantom.noise import Field, tile
from wsi_her2.phantom.stains import Look

# Pixels around a region that blur and sharpening reach into, in microns.
HALO_UM = 5.0


@lru_cache(maxsize=1)
def _noise_texture() -> Field:
    """Sensor noise to be tiled: mostly per pixel, a part of it shared by neighbours and by channels."""
    rng = np.random.default_rng(1)
    own = rng.standard_normal((1024, 1024, 3), dtype=np.float32)
    shared = rng.standard_normal((1024, 1024, 1), dtype=np.float32)
    smooth = cv2.GaussianBlur(np.tile(own, (3, 3, 1)), (0, 0), 0.9)[1024:2048, 1024:2048]
    noise: Field = 0.5 * own + 1.3 * smooth + 0.6 * shared
    noise /= noise.std()
    noise.setflags(write=False)
    return noise


def to_rgb(
    planes: Planes,
    window: Window,
    look: Look,
    modality: Modality,
    blur_um: Field | None,
    overlay: Field | None,
) -> NDArray[np.uint8]:
    """Compose the dyes by Beer-Lambert's law and image them.

    Parameters
    ----------
    planes
        Amounts of dye of the region, ``h x w``.
    window
        The region.
    look
        Stain vectors and scanner.
    modality
        Which dyes are in the tissue: ``"ihc"`` hematoxylin and DAB, ``"he"`` hematoxylin and eosin.
    blur_um
        Additional defocus per pixel in microns, ``h x w``, or None for none.
    overlay
        Share of light that passes what lies on the glass, ``h x w x 3``, or None where nothing does.

    Returns
    -------
    numpy.ndarray
        ``uint8``, ``h x w x 3``.

    Notes
    -----
    Transmitted light is ``10 ** -sum(amount * vector)`` (Ruifrok and Johnston, 2001); stray light is added,
    the point spread blurs intensities rather than densities, and the scanner sharpens what it has blurred.
    """
    if modality == "ihc":
        amounts = np.stack([planes.hematoxylin, planes.dab, planes.neutral], -1)
        vectors = look.absorption[[0, 1, 3]]
    else:
        # Routine H&E is stained darker than a counterstain, and rinsed until little but nuclei stay blue.
        blue = planes.hematoxylin * planes.hematoxylin / (planes.hematoxylin + np.float32(0.12))
        amounts = np.stack([blue * np.float32(2.6), planes.eosin, planes.neutral], -1)
        vectors = look.absorption[[0, 2, 3]]
    density = amounts.reshape(-1, 3) @ (vectors * np.float32(-np.log(10)))
    light = cv2.exp(density.reshape(window.h, window.w, 3))
    light = light * np.float32(1 - look.stray) + np.float32(look.stray)
    sigma = look.blur_um / window.mpp
    if sigma > 0.2:
        light = cv2.GaussianBlur(light, (0, 0), sigma)
    if blur_um is not None:
        light = _defocus(light, blur_um / np.float32(window.mpp))
    if look.sharpen > 0:
        soft = cv2.GaussianBlur(light, (0, 0), max(0.5, 0.35 / window.mpp))
        light += np.float32(look.sharpen) * (light - soft)
    if overlay is not None:
        light *= overlay
    if look.shading > 0:
        light *= (1 + np.float32(look.shading) * window.noise(220, 90))[..., None]
    grey = light * look.white
    offset = (window.seed * 7919 + 31) % 1024
    grey += np.float32(look.noise) * _tile_rgb(offset + window.x, offset // 3 + window.y, window.w, window.h)
    rgb: NDArray[np.uint8] = np.clip(grey + np.float32(0.5), 0, 255).astype(np.uint8)
    return rgb


def _tile_rgb(x: int, y: int, w: int, h: int) -> Field:
    texture = _noise_texture()
    return np.stack([tile(texture[..., c], x, y, w, h) for c in range(3)], -1)


def _defocus(light: Field, sigma_px: Field) -> Field:
    """Blur by an amount that varies over the region, blended between a few fixed amounts."""
    steps = (0.0, 2.0, 4.0)
    result: Field = light
    for low, high in pairwise(steps):
        share = np.clip((sigma_px - np.float32(low)) / np.float32(high - low), 0, 1)[..., None]
        if share.max() <= 0:
            break
        result = result * (1 - share) + cv2.GaussianBlur(light, (0, 0), high) * share
    return result
