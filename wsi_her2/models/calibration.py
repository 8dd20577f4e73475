"""Patches on which a network is quantised, compared between runtimes, and timed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from wsi_her2.errors import ClassifierError
from wsi_her2.models.classifier import Modality
from wsi_her2.phantom.patches import render_patches
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.stain import StainCorrection

CALIBRATION_PATCHES = 64
HELD_OUT_PATCHES = 64
_SEED = 20250912
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True, eq=False)
class CalibrationPatches:
    """Patches and what they are.

    Attributes
    ----------
    calibration, held_out : uint8 N x H x W x 3
        To choose the ranges of numbers with, and to measure agreement on. No patch is in both.
    source : str
        In words, for the card.
    """

    calibration: RGB
    held_out: RGB
    source: str


def phantom_patches(patch_px: int, mpp: float, modality: Modality) -> CalibrationPatches:
    """Patches of digital phantoms, the same at every call; the two parts have scenes of their own.

    Parameters
    ----------
    patch_px : int
    mpp : float
    modality : {'ihc', 'he'}
    """
    count = CALIBRATION_PATCHES + HELD_OUT_PATCHES
    drawn = render_patches(count, patch_px=patch_px, mpp=mpp, seed=_SEED, modality=modality)
    pixels = np.stack(
        [
            StainCorrection("white-point", (float(r), float(g), float(b))).apply(patch)
            for patch, (r, g, b) in zip(drawn.pixels, drawn.white, strict=True)
        ]
    )
    return CalibrationPatches(pixels[:CALIBRATION_PATCHES], pixels[CALIBRATION_PATCHES:], "digital phantoms")


def folder_patches(folder: str | Path, patch_px: int) -> CalibrationPatches:
    """Patches cut from the images of a folder and its sub-folders, every other image for each part.

    Parameters
    ----------
    folder : str or pathlib.Path
        Images at the network's scale, at least `patch_px` wide and high.
    patch_px : int

    Raises
    ------
    ClassifierError
        There are fewer than two images that are large enough.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES)
    parts: tuple[list[RGB], list[RGB]] = ([], [])
    wanted = (CALIBRATION_PATCHES, HELD_OUT_PATCHES)
    used = 0
    for path in files:
        part = used % 2
        if all(len(patches) >= number for patches, number in zip(parts, wanted, strict=True)):
            break
        tiles = _tiles(path, patch_px)
        if not tiles:
            continue
        used += 1
        # A few of each image, so that many images are seen.
        parts[part].extend(tiles[: max(1, wanted[part] // 8)])
    if not (parts[0] and parts[1]):
        raise ClassifierError(
            f"{folder}: calibration needs two images of at least {patch_px} x {patch_px} px, and {used} were found"
        )
    calibration, held_out = (np.stack(patches[:number]) for patches, number in zip(parts, wanted, strict=True))
    return CalibrationPatches(calibration, held_out, f"{used} images of {folder.name}")


def _tiles(path: Path, patch_px: int) -> list[RGB]:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), np.uint8)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
        return []
    height, width = pixels.shape[:2]
    return [
        pixels[y : y + patch_px, x : x + patch_px]
        for y in range(0, height - patch_px + 1, patch_px)
        for x in range(0, width - patch_px + 1, patch_px)
    ]
