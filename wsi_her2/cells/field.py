"""A field of tissue cell by cell: where each cell is, how its membrane stains, which class that makes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.cells.nuclei import NucleusSettings, find_nuclei
from wsi_her2.cells.rings import Rings, RingSettings, measure_rings
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.density import Float32, optical_density, unmix


@dataclass(frozen=True)
class CellCutoffs:
    """From how much staining on a cell is of which class.

    Strengths are those of thin lines of DAB (`wsi_her2.models.membrane.measures.ridge_strength`, log10 density):
    about half of what the membrane is denser than what lies beside it. They were chosen on digital phantoms by
    coordinate searches, of which `python benchmarks/cells.py --fit` is one; where it ends, and that `faint`,
    `stained_share` and `least_stained_relief` were then set by hand, is in `docs/cells.md`.

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
    least_relief : float
        Strength of a stretch of complete staining, at least as a share of the DAB density of the cytoplasm beside
        it: blush is granular, and the more there is of it the stronger its grains.
    least_stained_relief : float
        The same for a cell that stains at all: a part of the circumference is more easily all grains.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    faint: float = 0.02
    moderate: float = 0.022
    intense: float = 0.075
    stained_share: float = 0.25
    complete_share: float = 0.75
    least_contrast: float = 0.2
    least_relief: float = 0.4
    least_stained_relief: float = 0.7


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
        Strength that as much of the circumference reaches as makes a cell stained, log10 density.
    complete_strength : float32 N
        Strength that as much of the circumference reaches as makes staining complete.
    contrast : float32 N
        Natural logarithm of the ratio of the median line to the median gap.
    blush : float32 N
        DAB density of the cytoplasm.
    surround : float32 N
        Density of what surrounds the nucleus (its 25th percentile, log10): epithelium surrounds a nucleus on all
        sides, stroma does not.
    """

    xy: npt.NDArray[np.float64]
    grade: npt.NDArray[np.int8]
    completeness: Float32
    strength: Float32
    complete_strength: Float32
    contrast: Float32
    blush: Float32
    surround: Float32

    def where(self, chosen: npt.NDArray[np.bool_]) -> Cells:
        """The chosen ones (bool N)."""
        return Cells(**{part.name: getattr(self, part.name)[chosen] for part in fields(self)})


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
    cutoffs = settings.cutoffs
    strength, complete_strength = (
        strength_along(rings.lines, share) for share in (cutoffs.stained_share, cutoffs.complete_share)
    )
    contrast = line_contrast(rings)
    return Cells(
        xy=xy,
        grade=grade_cells(strength, complete_strength, contrast, rings.blush, cutoffs),
        completeness=(rings.lines > cutoffs.moderate).mean(axis=1).astype(np.float32),
        strength=strength,
        complete_strength=complete_strength,
        contrast=contrast,
        blush=rings.blush,
        surround=_surround(coarse_density.mean(axis=2), found, coarse_mpp),
    )


def strength_along(lines: Float32, share: float) -> Float32:
    """Strength (float32 N) that at least this share of the circumference reaches."""
    directions = lines.shape[1]
    needed = min(directions, max(1, math.ceil(share * directions - 1e-9)))
    return np.asarray(np.sort(lines, axis=1)[:, directions - needed], np.float32)


def line_contrast(rings: Rings) -> Float32:
    """Natural logarithm (float32 N) of the ratio of the median line to the median gap."""
    lines, gaps = (np.median(part, axis=1) + np.float32(_FLOOR) for part in (rings.lines, rings.gaps))
    return np.asarray(np.log(lines / gaps), np.float32)


def grade_cells(
    strength: Float32,
    complete_strength: Float32,
    contrast: Float32,
    blush: Float32,
    cutoffs: CellCutoffs,
    scale: float = 1.0,
) -> npt.NDArray[np.int8]:
    """Class of each cell.

    Parameters
    ----------
    strength, complete_strength, contrast, blush : float32 N
        As in `Cells`.
    cutoffs : CellCutoffs
    scale : float
        Factor on densities: what the class would be, were DAB so much stronger.

    Returns
    -------
    int8 N
        0 to 3.
    """
    stained = strength > np.maximum(cutoffs.faint / scale, blush * cutoffs.least_stained_relief)
    complete = complete_strength > np.maximum(cutoffs.moderate / scale, blush * cutoffs.least_relief)
    complete &= contrast > cutoffs.least_contrast
    intense = complete & (complete_strength > cutoffs.intense / scale)
    return np.select([intense, complete, stained], [3, 2, 1], 0).astype(np.int8)


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
