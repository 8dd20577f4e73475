"""A field of tissue cell by cell: where each cell is, how its membrane stains, which class that makes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.cells.grading import CellViews, judge_cells, load_grader
from wsi_her2.cells.nuclei import NucleusSettings, find_nuclei
from wsi_her2.cells.rings import RingSettings, measure_rings, unit_rays
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.density import Float32, optical_density, unmix


@dataclass(frozen=True)
class CellCutoffs:
    """From which margin on a cell is of which class; see `wsi_her2.cells.grading`.

    1 is where the network has its border. What is counted by mistake (carcinoma in situ, which mostly stains) and
    what is missed (unstained cells more than others) lean to more staining, so these lean to less; they were set
    on digital slides. A laboratory whose DAB is twice as strong needs margins twice as large.

    Attributes
    ----------
    stained, complete, intense : float
        Margin from which a cell stains at all, completely, intensely and completely.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    stained: float = 1.15
    complete: float = 1.05
    intense: float = 1.1


@dataclass(frozen=True)
class CellSettings:
    """How cells are found and measured.

    Attributes
    ----------
    finest_mpp : float
        Fields are read no finer than this, um/px.
    nuclei : NucleusSettings
    rings : RingSettings
    cutoffs : CellCutoffs
    moderate : float
        Strength of a thin line of DAB from which on it counts for `Cells.completeness`, log10 density.
    """

    finest_mpp: float = 0.25
    nuclei: NucleusSettings = field(default_factory=NucleusSettings)
    rings: RingSettings = field(default_factory=RingSettings)
    cutoffs: CellCutoffs = field(default_factory=CellCutoffs)
    moderate: float = 0.022


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a field.

    Attributes
    ----------
    xy : float64 N x 2
        Centres of the nuclei, pixels of the field.
    grade : int8 N
        0 to 3, as if each were a tumour cell.
    margins : float32 N x 3
        By what factor it lies beyond the borders of staining at all, completely and intensely.
    completeness : float32 N
        Share of the circumference that stains moderately or more, 0 to 1.
    strength : float32 N
        Strength that a quarter of the circumference reaches, log10 density: about half of what the membrane is
        denser than what lies beside it.
    blush : float32 N
        DAB density of the cytoplasm.
    surround : float32 N
        Density of what surrounds the nucleus (its 25th percentile, log10): epithelium surrounds a nucleus on all
        sides, stroma does not.
    tumour_probability : float32 N
        How probable it is a cell of the tumour, 0 to 1.
    """

    xy: npt.NDArray[np.float64]
    grade: npt.NDArray[np.int8]
    margins: Float32
    completeness: Float32
    strength: Float32
    blush: Float32
    surround: Float32
    tumour_probability: Float32

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
    xy, views = view_cells(rgb, mpp, settings)
    margins, tumour = judge_cells(load_grader(), views)
    return Cells(
        xy=xy,
        grade=grade_cells(margins, settings.cutoffs),
        margins=margins,
        completeness=(views.rings.lines > settings.moderate).mean(axis=1).astype(np.float32),
        strength=strength_along(views.rings.lines, _STRENGTH_SHARE),
        blush=views.rings.blush,
        surround=views.surround,
        tumour_probability=tumour,
    )


def view_cells(
    rgb: RGB, mpp: float, settings: CellSettings | None = None
) -> tuple[npt.NDArray[np.float64], CellViews]:
    """Find the cells of a field, and what lies around each; parameters as of `measure_cells`.

    Returns
    -------
    xy : float64 N x 2
        Centres of the nuclei, pixels of the field.
    views : CellViews
    """
    settings = settings or CellSettings()
    coarse = _at_scale(rgb, mpp, settings.nuclei.mpp)
    factor_x, factor_y = rgb.shape[1] / coarse.shape[1], rgb.shape[0] / coarse.shape[0]
    coarse_mpp = mpp * factor_x
    coarse_density = optical_density(coarse)
    stains = unmix(coarse_density)
    found = find_nuclei(*_hematoxylin_and_dab(stains), coarse_mpp, settings.nuclei)
    xy = (found + 0.5) * (factor_x, factor_y) - 0.5
    blue, dab = _hematoxylin_and_dab(stains if coarse is rgb else unmix(optical_density(rgb)))
    return xy, CellViews(
        xy_um=xy * mpp,
        rings=measure_rings(dab, xy, mpp, settings.rings, hematoxylin=blue),
        profile=_profile(stains, found, coarse_mpp),
        surround=_surround(coarse_density.mean(axis=2), found, coarse_mpp),
    )


def strength_along(lines: Float32, share: float) -> Float32:
    """Strength (float32 N) that at least this share of the circumference reaches."""
    directions = lines.shape[1]
    needed = min(directions, max(1, math.ceil(share * directions - 1e-9)))
    return np.asarray(np.sort(lines, axis=1)[:, directions - needed], np.float32)


def grade_cells(margins: Float32, cutoffs: CellCutoffs, scale: float = 1.0) -> npt.NDArray[np.int8]:
    """Class of each cell.

    Parameters
    ----------
    margins : float32 N x 3
        As in `Cells`.
    cutoffs : CellCutoffs
    scale : float
        Factor on densities: what the class would be, were DAB so much stronger.

    Returns
    -------
    int8 N
        0 to 3.
    """
    borders = np.array([cutoffs.stained, cutoffs.complete, cutoffs.intense]) / scale
    return np.asarray(np.logical_and.accumulate(margins > borders, axis=1).sum(axis=1), np.int8)


_STRENGTH_SHARE = 0.25

_SURROUND_UM = (5.5, 7.5)
_PROFILE_UM = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.5)
_RAYS = 16


def _at_scale(rgb: RGB, mpp: float, wanted_mpp: float) -> RGB:
    if mpp >= 0.75 * wanted_mpp:
        return rgb
    height, width = rgb.shape[:2]
    size = (max(1, round(width * mpp / wanted_mpp)), max(1, round(height * mpp / wanted_mpp)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _hematoxylin_and_dab(stains: Float32) -> tuple[Float32, Float32]:
    return np.ascontiguousarray(stains[..., 0]), np.ascontiguousarray(stains[..., 1])


def _surround(density: Float32, nuclei: npt.NDArray[np.float64], mpp: float) -> Float32:
    if len(nuclei) == 0:
        return np.zeros(0, np.float32)
    smooth = cv2.GaussianBlur(density, (0, 0), 0.75 / mpp)
    around = _on_circles(np.asarray(smooth, np.float32), nuclei, np.asarray(_SURROUND_UM) / mpp)
    return np.asarray(np.percentile(around.reshape(len(nuclei), -1), 25, axis=1), np.float32)


def _profile(stains: Float32, nuclei: npt.NDArray[np.float64], mpp: float) -> Float32:
    """What `CellViews.profile` is, from the stains (H x W x 3) of a field."""
    if len(nuclei) == 0:
        return np.zeros((0, len(_PROFILE_UM), 3), np.float32)
    return np.asarray(_on_circles(stains, nuclei, np.asarray(_PROFILE_UM) / mpp).mean(axis=2), np.float32)


def _on_circles(image: Float32, nuclei: npt.NDArray[np.float64], radii_px: npt.NDArray[np.float64]) -> Float32:
    """The pixels of an image nearest to places on circles around each nucleus (N x R x _RAYS, then channels)."""
    places = nuclei[:, None, None, :] + radii_px[None, :, None, None] * unit_rays(_RAYS)[None, None, :, :]
    columns, rows = (
        np.clip(np.rint(places[..., axis]).astype(np.int64), 0, image.shape[1 - axis] - 1) for axis in (0, 1)
    )
    return np.asarray(image[rows, columns], np.float32)
