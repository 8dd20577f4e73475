"""Random fields that are the same at a place whichever region around it is drawn.

Inside a slide every random value is a hash of its lattice position, never the next number of a generator, so
a region can be drawn alone and in any order. The layout of a slide, drawn once as a whole, uses a generator.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

# ``float32`` throughout; the stubs of NumPy and OpenCV widen it in arithmetic, so it is not spelt out here.
Field = NDArray[Any]

_TEXTURE_PX = 1024
# How much of a texture is repeated at its end: with it, a block and its surroundings are one slice. Fibres
# are bent, so they need more surroundings than noise.
_BLOCK_REPEAT_PX = 1088
_REPEAT_PX = 1280
ORIENTATIONS = 8
STREAK_UNIT = 40.0


def hash_uniform(ix: NDArray[np.int64] | np.int64, iy: NDArray[np.int64] | np.int64, seed: int) -> Field:
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
    base = np.uint32((seed * 0xC2B2AE3D + 0x27D4EB2F) & 0xFFFFFFFF)
    # At least one dimension: on whole arrays unsigned integers wrap around silently, as the hash needs.
    ux, uy = np.atleast_1d(ix).astype(np.uint32), np.atleast_1d(iy).astype(np.uint32)
    h = (ux * np.uint32(0x9E3779B1)) ^ (uy * np.uint32(0x85EBCA77) + base)
    h = h ^ (h >> np.uint32(16))
    h = h * np.uint32(0x7FEB352D)
    h = h ^ (h >> np.uint32(15))
    h = h * np.uint32(0x846CA68B)
    h = h ^ (h >> np.uint32(16))
    # 24 bits fill the mantissa of a float32 exactly, so that 1.0 is never reached.
    uniform: Field = (h >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return uniform


def upsample(lattice: Field, scale_px: int, x0: int, y0: int, w: int, h: int, cubic: bool = True) -> Field:
    """Enlarge a lattice by a whole factor and cut out a window given in enlarged pixels of the lattice."""
    method = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    if scale_px > 1:
        lattice = cv2.resize(
            lattice, (lattice.shape[1] * scale_px, lattice.shape[0] * scale_px), interpolation=method
        )
    return np.ascontiguousarray(lattice[y0 : y0 + h, x0 : x0 + w], dtype=np.float32)


def value_noise(x0: int, y0: int, w: int, h: int, scale_px: int, seed: int) -> Field:
    """Smooth noise of zero mean and about unit variance.

    Parameters
    ----------
    x0, y0, w, h
        The window, in pixels of the slide.
    scale_px
        Length scale, in pixels; 1 gives white noise. Up to 64 px the noise repeats itself every 1024 px,
        which nothing shows since cells and layout do not; above, it is interpolated between hashed values.
    seed
        Number of the noise field.

    Returns
    -------
    numpy.ndarray
        ``float32``, ``h x w``; not to be written to.
    """
    if scale_px <= 64:
        shift = hash_uniform(np.array([1, 2]), np.array([3, 3]), seed) * np.float32(_TEXTURE_PX)
        return tile(_noise_texture(max(1, scale_px)), x0 + int(shift[0]), y0 + int(shift[1]), w, h)
    # First smoothly to a sixteenth of the length scale, then, for the window alone, linearly to pixels.
    step = round(scale_px / 16)
    scale_px = 16 * step
    i0, j0 = x0 // scale_px - 2, y0 // scale_px - 2
    i1, j1 = (x0 + w - 1) // scale_px + 3, (y0 + h - 1) // scale_px + 3
    lattice = hash_uniform(np.arange(i0, i1)[None, :], np.arange(j0, j1)[:, None], seed)
    # The standard deviation of a uniform number is 0.289; interpolation takes another quarter away.
    lattice = (lattice - np.float32(0.5)) * np.float32(4.6)
    left, top = x0 // step - 1, y0 // step - 1
    columns, rows = (x0 + w - 1) // step + 2 - left, (y0 + h - 1) // step + 2 - top
    coarse = upsample(lattice, 16, left - 16 * i0, top - 16 * j0, columns, rows)
    return upsample(coarse, step, x0 - left * step, y0 - top * step, w, h, False)


@lru_cache(maxsize=24)
def _noise_texture(scale_px: int) -> Field:
    """Endless noise of one length scale: a square whose borders fit, its beginning repeated at its end."""
    rng = np.random.default_rng([5, scale_px])
    white = rng.standard_normal((_TEXTURE_PX, _TEXTURE_PX), dtype=np.float32)
    if scale_px > 1:
        fy, fx = np.meshgrid(np.fft.fftfreq(_TEXTURE_PX), np.fft.rfftfreq(_TEXTURE_PX), indexing="ij")
        response = np.exp(-2 * (np.pi * 0.42 * scale_px) ** 2 * (fx * fx + fy * fy)).astype(np.float32)
        white = scipy.fft.irfft2(scipy.fft.rfft2(white) * response, s=white.shape)
    return _repeated((white / white.std()).astype(np.float32), _BLOCK_REPEAT_PX)


def _repeated(texture: Field, by_px: int) -> Field:
    repeated: Field = np.pad(texture, ((0, by_px), (0, by_px)), mode="wrap")
    repeated.setflags(write=False)
    return repeated


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
def streak_textures(across_px: float, along_px: float, seed: int) -> NDArray[np.uint8]:
    """Endless fibre textures in eight orientations, zero mean and unit variance.

    Parameters
    ----------
    across_px, along_px
        Thickness and length of the fibres, in pixels.
    seed
        Number of the set.

    Returns
    -------
    numpy.ndarray
        ``uint8``, one texture per orientation, 128 plus `STREAK_UNIT` times the value; texture `k` runs at
        ``k * 22.5`` degrees from the x axis, y down.
    """
    rng = np.random.default_rng(seed)
    fy, fx = np.meshgrid(np.fft.fftfreq(_TEXTURE_PX), np.fft.rfftfreq(_TEXTURE_PX), indexing="ij")
    size = _TEXTURE_PX + _REPEAT_PX
    textures = np.empty((ORIENTATIONS, size, size), np.uint8)
    for k in range(ORIENTATIONS):
        angle = np.pi * k / ORIENTATIONS
        along = fx * np.cos(angle) + fy * np.sin(angle)
        across = fy * np.cos(angle) - fx * np.sin(angle)
        # Fibrils, fibres and bundles: three sizes, the thin ones shorter and weaker.
        band = np.zeros_like(along)
        for ratio, weight in ((0.4, 0.8), (1.0, 1.0), (2.6, 0.7)):
            thick, long = across_px * ratio, along_px * ratio**0.5
            band += (
                weight
                * np.exp(-2 * (np.pi * along * long / 2.5) ** 2)
                * (
                    np.exp(-2 * (np.pi * across * thick / 2.5) ** 2)
                    - 0.8 * np.exp(-2 * (np.pi * across * thick * 1.2) ** 2)
                )
            )
        white = rng.standard_normal((_TEXTURE_PX, _TEXTURE_PX), dtype=np.float32)
        texture = scipy.fft.irfft2(scipy.fft.rfft2(white) * band.astype(np.float32), s=white.shape)
        grey = np.clip(128 + STREAK_UNIT * texture / texture.std(), 0, 255)
        textures[k] = _repeated(np.round(grey).astype(np.uint8), _REPEAT_PX)
    textures.setflags(write=False)
    return textures


def tile(texture: Field, x0: int, y0: int, w: int, h: int) -> Field:
    """Cut a window out of an endless texture; a view of it where the window is not larger than a block."""
    x, y = x0 % _TEXTURE_PX, y0 % _TEXTURE_PX
    if x + w <= texture.shape[1] and y + h <= texture.shape[0]:
        return texture[y : y + h, x : x + w]
    rows, columns = np.arange(y, y + h) % _TEXTURE_PX, np.arange(x, x + w) % _TEXTURE_PX
    window: Field = texture[np.ix_(rows, columns)]
    return window
