"""Random fields that are the same at a place whichever region around it is drawn.

Inside a slide every random value is a hash of its lattice position, never the next number of a generator, so a
region can be drawn alone and in any order. The layout of a slide, drawn once as a whole, uses a generator.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

_TEXTURE_PX = 1024
ORIENTATIONS = 8


def hash_uniform(ix: NDArray[np.int64], iy: NDArray[np.int64], seed: int) -> Field:
    """Uniform numbers in [0, 1) that depend on the integer position and the seed only.

    Parameters
    ----------
    ix, iy
        Integer positions, of shapes that broadcast.
    seed
        Any integer; its lowest 32 bits count.

    Returns
    -------
    numpy.ndarray
        ``float32``, of the broadcast shape. The mixing is the "lowbias32" integer hash of C. Wellons.
    """
    mask = np.uint32(0xFFFFFFFF)
    base = np.uint32((seed * 0xC2B2AE3D + 0x27D4EB2F) & 0xFFFFFFFF)
    h = (
        (ix.astype(np.uint32) * np.uint32(0x9E3779B1))
        ^ (iy.astype(np.uint32) * np.uint32(0x85EBCA77) + base)
    ) & mask
    h = h ^ (h >> np.uint32(16))
    h = h * np.uint32(0x7FEB352D)
    h = h ^ (h >> np.uint32(15))
    h = h * np.uint32(0x846CA68B)
    h = h ^ (h >> np.uint32(16))
    # 24 bits fill the mantissa of a float32 exactly, so that 1.0 is never reached.
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def upsample(lattice: Field, scale_px: int, x0: int, y0: int, w: int, h: int, cubic: bool = True) -> Field:
    """Enlarge a lattice by a whole factor and cut out a window given in enlarged pixels of the lattice."""
    method = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    if scale_px > 1:
        lattice = cv2.resize(
            lattice, (lattice.shape[1] * scale_px, lattice.shape[0] * scale_px), interpolation=method
        )
    return np.ascontiguousarray(lattice[y0 : y0 + h, x0 : x0 + w], dtype=np.float32)


def value_noise(x0: int, y0: int, w: int, h: int, scale_px: int, seed: int) -> Field:
    """Smooth noise of about zero mean and unit variance, interpolated between hashed lattice values.

    Parameters
    ----------
    x0, y0, w, h
        The window, in pixels of the slide.
    scale_px
        Distance of the lattice points, in pixels; 1 gives white noise.
    seed
        Number of the noise field.

    Returns
    -------
    numpy.ndarray
        ``float32``, ``h x w``.
    """
    scale_px = max(1, scale_px)
    margin = 2 if scale_px > 1 else 0
    i0, j0 = x0 // scale_px - margin, y0 // scale_px - margin
    i1, j1 = (x0 + w - 1) // scale_px + 1 + margin, (y0 + h - 1) // scale_px + 1 + margin
    lattice = hash_uniform(
        np.arange(i0, i1, dtype=np.int64)[None, :], np.arange(j0, j1, dtype=np.int64)[:, None], seed
    )
    # The standard deviation of a uniform number is 0.289; interpolation takes another quarter away.
    lattice = (lattice - np.float32(0.5)) * np.float32(3.46 if scale_px == 1 else 4.6)
    return upsample(lattice, scale_px, x0 - i0 * scale_px, y0 - j0 * scale_px, w, h)


def gaussian_field(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> Field:
    """A Gaussian random field over a whole layout, of zero mean and unit variance.

    Parameters
    ----------
    rng
        The generator to draw from.
    shape
        Rows and columns.
    sigma_px
        Correlation length: structures above a threshold measure about four to five of it.

    Returns
    -------
    numpy.ndarray
        ``float32``, of the given shape.
    """
    factor = max(1, int(sigma_px / 4))
    sigma = sigma_px / factor
    pad = int(4 * sigma) + 2
    small = (shape[0] // factor + 2 + 2 * pad, shape[1] // factor + 2 + 2 * pad)
    field = rng.standard_normal(small, dtype=np.float32)
    field = cv2.GaussianBlur(field, (0, 0), sigma) - 0.5 * cv2.GaussianBlur(field, (0, 0), 2 * sigma)
    field = field[pad:-pad, pad:-pad]
    # White noise blurred to sigma has a standard deviation of 1 / (2 sqrt(pi) sigma); the difference of the
    # two kernels is scaled to it analytically, so that small layouts are not stretched by their own sample.
    norm = 1 / (2 * np.sqrt(np.pi) * sigma) * np.sqrt(1 + 0.25 / 4 - 2 * 0.5 * 2 / 5)
    field = field / np.float32(norm)
    return upsample(field, factor, 0, 0, shape[1], shape[0])


@lru_cache(maxsize=4)
def streak_textures(across_px: float, along_px: float, seed: int) -> NDArray[np.float32]:
    """Tileable fibre textures in eight orientations, zero mean and unit variance.

    Parameters
    ----------
    across_px, along_px
        Thickness and length of the fibres, in pixels.
    seed
        Number of the set.

    Returns
    -------
    numpy.ndarray
        ``float32``, ``8 x 1024 x 1024``; texture `k` runs at ``k * 22.5`` degrees from the x axis, y down.
    """
    rng = np.random.default_rng(seed)
    fy, fx = np.meshgrid(np.fft.fftfreq(_TEXTURE_PX), np.fft.rfftfreq(_TEXTURE_PX), indexing="ij")
    textures = np.empty((ORIENTATIONS, _TEXTURE_PX, _TEXTURE_PX), np.float32)
    for k in range(ORIENTATIONS):
        angle = np.pi * k / ORIENTATIONS
        along = fx * np.cos(angle) + fy * np.sin(angle)
        across = fy * np.cos(angle) - fx * np.sin(angle)
        band = np.exp(-2 * (np.pi * along * along_px / 2.5) ** 2) * (
            np.exp(-2 * (np.pi * across * across_px / 2.5) ** 2)
            - 0.6 * np.exp(-2 * (np.pi * across * across_px * 1.6) ** 2)
        )
        spectrum = np.fft.rfft2(rng.standard_normal((_TEXTURE_PX, _TEXTURE_PX))) * band
        texture = np.fft.irfft2(spectrum, s=(_TEXTURE_PX, _TEXTURE_PX))
        textures[k] = texture / texture.std()
    textures.setflags(write=False)
    return textures


def tile(texture: Field, x0: int, y0: int, w: int, h: int) -> Field:
    """Cut a window out of an endlessly repeated square texture."""
    size = texture.shape[0]
    return texture[np.ix_(np.arange(y0, y0 + h) % size, np.arange(x0, x0 + w) % size)]
