"""A field of tissue cell by cell: where each cell is, how its membrane stains, which class that makes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.cells.nuclei import NucleusSettings, find_nuclei
from wsi_her2.cells.rings import DIRECTIONS, Rings, RingSettings, measure_rings
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.density import Float32, optical_density, unmix


@dataclass(frozen=True)
class CellCutoffs:
    """From how much staining on a cell is of which class.

    Strengths are those of thin lines of DAB (`wsi_her2.models.membrane.measures.ridge_strength`, log10 density):
    about half of what the membrane is denser than what lies beside it. They were fitted on digital phantoms
    (`python benchmarks/cells.py --fit`).

    Attributes
    ----------
    faint, moderate, intense : float
        Strength from which on a stretch of membrane stains at all, moderately, intensely.
    stained_share : float
        A cell stains at all if at least this share of its circumference is faint or more.
    complete_share : float
        Staining is complete if at least this share of the circumference is moderate or more, and intense and
        complete if as much of it is intense. A ray now and then passes between the pixels of a membrane, hence not
        all of it.
    least_contrast : float
        Lines must be stronger than gaps by this much (natural logarithm of the ratio of their medians) for
        complete staining: granular blush is as strong in gaps as in lines.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    faint: float = 0.012
    moderate: float = 0.022
    intense: float = 0.075
    stained_share: float = 0.375
    complete_share: float = 0.75
    least_contrast: float = 0.2


@dataclass(frozen=True)
class CellSettings:
    """How cells are found and measured."""

    finest_mpp: float = 0.25
    nuclei: NucleusSettings = field(default_factory=NucleusSettings)
    rings: RingSettings = field(default_factory=RingSettings)
    cutoffs: CellCutoffs = field(default_factory=CellCutoffs)


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a field.

    Attributes
    ----------
    xy : float64 N x 2
        Centres of the nuclei, pixels of the field.
    grade : int8 N
        0 to 3, as if each were a tumour cell.
    completeness : float32 N
        Share of the circumference that stains moderately or more, 0 to 1.
    strength : float32 N
        Median strength of the membrane along the circumference, log10 density.
    contrast : float32 N
        Natural logarithm of the ratio of the median line to the median gap.
    surround : float32 N
        Density of what surrounds the nucleus (its 25th percentile, log10): epithelium surrounds a nucleus on all
        sides, stroma does not.
    """

    xy: npt.NDArray[np.float64]
    grade: npt.NDArray[np.int8]
    completeness: Float32
    strength: Float32
    contrast: Float32
    surround: Float32


def measure_cells(rgb: RGB, mpp: float, settings: CellSettings | None = None) -> Cells:
    """Find and measure the cells of a field.

    Parameters
    ----------
    rgb : uint8 H x W x 3
        White point at 255, at about 0.25 um/px; membranes blur at coarser scales.
    mpp : float
        Its scale, um/px.
    settings : CellSettings, optional

    Notes
    -----
    Cells whose surroundings reach beyond the field are measured on what there is; leave a margin of 12 um.
    """
    settings = settings or CellSettings()
    coarse = _at_scale(rgb, mpp, settings.nuclei.mpp)
    factor_x, factor_y = rgb.shape[1] / coarse.shape[1], rgb.shape[0] / coarse.shape[0]
    coarse_mpp = mpp * factor_x
    coarse_density = optical_density(coarse)
    hematoxylin, coarse_dab, _ = (np.ascontiguousarray(part) for part in np.moveaxis(unmix(coarse_density), 2, 0))
    found = find_nuclei(hematoxylin, coarse_dab, coarse_mpp, settings.nuclei)
    xy = (found + 0.5) * (factor_x, factor_y) - 0.5
    dab = np.ascontiguousarray(unmix(optical_density(rgb))[..., 1])
    rings = measure_rings(dab, xy, mpp, settings.rings)
    median_line = np.median(rings.lines, axis=1)
    contrast = np.log((median_line + _FLOOR) / (np.median(rings.gaps, axis=1) + _FLOOR)).astype(np.float32)
    return Cells(
        xy=xy,
        grade=grade_cells(rings, contrast, settings.cutoffs),
        completeness=(rings.lines > settings.cutoffs.moderate).mean(axis=1).astype(np.float32),
        strength=median_line.astype(np.float32),
        contrast=contrast,
        surround=_surround(coarse_density.mean(axis=2), found, coarse_mpp),
    )


def grade_cells(rings: Rings, contrast: Float32, cutoffs: CellCutoffs) -> npt.NDArray[np.int8]:
    """Class of each cell (int8 N), 0 to 3."""
    stained, moderate, intense = (
        (rings.lines > strength).sum(axis=1) for strength in (cutoffs.faint, cutoffs.moderate, cutoffs.intense)
    )
    needed = cutoffs.complete_share * DIRECTIONS
    complete = (moderate >= needed) & (contrast > cutoffs.least_contrast)
    grade = np.select(
        [complete & (intense >= needed), complete, stained >= cutoffs.stained_share * DIRECTIONS], [3, 2, 1], 0
    )
    return np.asarray(grade, np.int8)


_FLOOR = 1e-3
"""Strength below which nothing is told from the sensor's noise."""

_SURROUND_UM = (5.5, 7.5)
_SURROUND_RAYS = 16


def _at_scale(rgb: RGB, mpp: float, wanted_mpp: float) -> RGB:
    if mpp >= 0.75 * wanted_mpp:
        return rgb
    height, width = rgb.shape[:2]
    size = (max(1, round(width * mpp / wanted_mpp)), max(1, round(height * mpp / wanted_mpp)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _surround(density: Float32, nuclei: npt.NDArray[np.float64], mpp: float) -> Float32:
    if len(nuclei) == 0:
        return np.zeros(0, np.float32)
    smooth = cv2.GaussianBlur(density, (0, 0), 0.75 / mpp)
    angles = np.arange(_SURROUND_RAYS) * (2 * np.pi / _SURROUND_RAYS)
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    radii = np.asarray(_SURROUND_UM) / mpp
    places = nuclei[:, None, None, :] + radii[None, None, :, None] * rays[None, :, None, :]
    x, y = (places[..., axis].reshape(len(nuclei), -1) for axis in (0, 1))
    columns = np.clip(np.rint(x).astype(np.int64), 0, density.shape[1] - 1)
    rows = np.clip(np.rint(y).astype(np.int64), 0, density.shape[0] - 1)
    return np.asarray(np.percentile(smooth[rows, columns], 25, axis=1), np.float32)
