"""What can be measured of membrane staining in a patch, without training.

All measures live on optical density against the white point, where DAB adds up linearly, and on thin DAB
structures: a membrane is a bright ridge of DAB density one or two microns wide, whatever its strength, while
cytoplasmic blush and smears are broad. Densities are log10, lengths microns.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.slides.backends import RGB
from wsi_her2.slides.density import HEMATOXYLIN_DAB, Float32, StainVectors, optical_density, unmix

MEASURES = (
    "dab_mean",
    "dab_p95",
    "dab_p99",
    "ridge_p90",
    "ridge_p95",
    "ridge_p99",
    "cytoplasm_ridge_p90",
    "ridge_ratio",
    "coverage_faint",
    "coverage_moderate",
    "coverage_intense",
    "membrane_dab",
    "completeness",
    "thickness_um",
    "hematoxylin_mean",
    "nuclear_share",
    "round_nuclear_share",
    "nuclear_contrast",
    "edge_isotropy",
    "fill_ratio",
    "blank_share",
    "unexplained",
)
"""Names of the columns of `measure_patches`, in order; `docs/outputs.md` describes each."""


@dataclass(frozen=True)
class MembraneScale:
    """The densities and sizes at which a structure counts.

    Attributes
    ----------
    mpp : float
        Scale of the patches, um/px.
    ridge_um : tuple of float
        Standard deviations of the Gaussians at which ridges are sought: half a membrane's width and a whole.
    faint, moderate, intense : tuple of float
        Smallest ridge strength and smallest DAB density of a membrane of each intensity.
    cell_um2 : tuple of float
        Smallest and largest area that a closed loop of membrane can enclose and still be one cell.
    blank_density : float
        Mean density below which a pixel is empty.
    nuclear_level : float
        A pixel is nucleus from this share of the patch's own strongest hematoxylin on, so that a pale
        counterstain does not hide nuclei.
    nuclear_floor : float
        Hematoxylin density below which nothing is nucleus.
    round_nucleus_um : float
        Radius of the disc that a nucleus must hold to count as round: spindle nuclei of stroma do not.
    """

    mpp: float = 0.5
    ridge_um: tuple[float, float] = (0.5, 1.0)
    faint: tuple[float, float] = (0.013, 0.05)
    moderate: tuple[float, float] = (0.030, 0.13)
    intense: tuple[float, float] = (0.070, 0.32)
    cell_um2: tuple[float, float] = (15.0, 300.0)
    blank_density: float = 0.03
    nuclear_level: float = 0.5
    nuclear_floor: float = 0.02
    round_nucleus_um: float = 1.5


def measure_patches(
    batch: RGB, scale: MembraneScale | None = None, stains: StainVectors = HEMATOXYLIN_DAB
) -> Float32:
    """Measure membrane staining in patches.

    Parameters
    ----------
    batch : uint8 N x H x W x 3
        RGB with the white point at 255.
    scale : MembraneScale, optional
    stains : StainVectors, optional
        Hematoxylin and DAB.

    Returns
    -------
    float32 N x len(MEASURES)
        Columns as in `MEASURES`.
    """
    scale = scale or MembraneScale()
    measured = np.empty((len(batch), len(MEASURES)), np.float32)
    for row, patch in zip(measured, batch, strict=True):
        row[:] = _measure(patch, scale, stains)
    return measured


def ridge_strength(density: Float32, sigmas_px: tuple[float, ...]) -> Float32:
    """Strength of thin bright structures: the scale-normalised curvature across the ridge.

    Parameters
    ----------
    density : float32 H x W
    sigmas_px : tuple of float
        Gaussian scales in pixels; the strongest response counts.

    Returns
    -------
    float32 H x W
        About half the contrast of a line whose half-width is one of the scales; 0 on flat ground and in pits, a
        quarter of the contrast along a step. After Lindeberg 1998 (scale selection) and Frangi 1998 (sign of the
        Hessian).
    """
    strongest = np.zeros(density.shape, np.float32)
    for sigma in sigmas_px:
        smooth = cv2.GaussianBlur(density, (0, 0), sigma)
        across_x = cv2.Sobel(smooth, cv2.CV_32F, 2, 0, ksize=3, scale=0.25)
        across_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 2, ksize=3, scale=0.25)
        mixed = cv2.Sobel(smooth, cv2.CV_32F, 1, 1, ksize=3, scale=0.25)
        half_trace = cv2.addWeighted(across_x, 0.5, across_y, 0.5, 0)
        half_gap = cv2.addWeighted(across_x, 0.5, across_y, -0.5, 0)
        # Not cv2.magnitude: its last bit depends on where the arrays happen to lie in memory.
        spread = np.sqrt(half_gap * half_gap + mixed * mixed)
        strongest = np.maximum(strongest, (spread - half_trace) * np.float32(sigma * sigma))
    return strongest


def enclosed_share(membrane: npt.NDArray[np.bool_], cell_px: tuple[float, float]) -> float:
    """Share of the area in closed loops of membrane as large as a cell.

    Circumferential staining encloses cells; partial staining leaves gaps and encloses none.

    Parameters
    ----------
    membrane : bool H x W
    cell_px : tuple of float
        Smallest and largest loop in pixels.

    Returns
    -------
    float
        0 to 1.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~membrane).astype(np.uint8), connectivity=4)
    del labels
    if count < 2:
        return 0.0
    height, width = membrane.shape
    x, y = stats[1:, cv2.CC_STAT_LEFT], stats[1:, cv2.CC_STAT_TOP]
    w, h, area = stats[1:, cv2.CC_STAT_WIDTH], stats[1:, cv2.CC_STAT_HEIGHT], stats[1:, cv2.CC_STAT_AREA]
    inside = (x > 0) & (y > 0) & (x + w < width) & (y + h < height)
    cells = inside & (area >= cell_px[0]) & (area <= cell_px[1])
    return float(area[cells].sum()) / membrane.size


def _measure(patch: RGB, scale: MembraneScale, stains: StainVectors) -> tuple[float, ...]:
    density = optical_density(patch)
    unmixed = unmix(density, stains)
    hematoxylin, dab, unexplained = (np.ascontiguousarray(unmixed[..., stain]) for stain in range(3))
    hematoxylin, dab = np.maximum(hematoxylin, np.float32(0)), np.maximum(dab, np.float32(0))
    mean_density = density.mean(axis=2)
    nuclear = cv2.GaussianBlur(hematoxylin, (0, 0), 1.0 / scale.mpp)
    strongest = float(np.percentile(nuclear, 97))
    nuclei = (nuclear > max(scale.nuclear_level * strongest, scale.nuclear_floor)).astype(np.uint8)
    fill_low, fill_high = np.percentile(cv2.GaussianBlur(mean_density, (0, 0), 1.0 / scale.mpp), (25, 75))
    # The rims of nuclei are ridges too, of stain that leaks from one channel into the other.
    outside = (cv2.dilate(nuclei, np.ones((3, 3), np.uint8)) == 0) & (mean_density > scale.blank_density)
    return (
        *_membranes(dab, hematoxylin, outside, scale),
        float(hematoxylin.mean()),
        float(nuclei.mean()),
        float(_opened(nuclei, scale.round_nucleus_um / scale.mpp).mean()),
        strongest / max(float(nuclear.mean()), 1e-3),
        _edge_isotropy(hematoxylin, scale.mpp),
        float(fill_low) / max(float(fill_high), 1e-3),
        float((mean_density < scale.blank_density).mean()),
        float(np.abs(unexplained).mean()),
    )


def _membranes(
    dab: Float32, hematoxylin: Float32, outside_nuclei: npt.NDArray[np.bool_], scale: MembraneScale
) -> tuple[float, ...]:
    """The measures from `dab_mean` to `thickness_um`."""
    sigmas = tuple(um / scale.mpp for um in scale.ridge_um)
    ridge = ridge_strength(dab, sigmas)
    faint, moderate, intense = (
        (ridge > strength) & (dab > least) for strength, least in (scale.faint, scale.moderate, scale.intense)
    )
    dab_p95, dab_p99 = np.percentile(dab, (95, 99))
    ridge_p90, ridge_p95, ridge_p99 = np.percentile(ridge, (90, 95, 99))
    of_hematoxylin = float(np.percentile(ridge_strength(hematoxylin, sigmas), 95))
    loops = cv2.morphologyEx(faint.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(bool)
    per_um2 = scale.mpp**2
    return (
        float(dab.mean()),
        float(dab_p95),
        float(dab_p99),
        float(ridge_p90),
        float(ridge_p95),
        float(ridge_p99),
        float(np.percentile(ridge[outside_nuclei], 90)) if outside_nuclei.any() else 0.0,
        float(ridge_p95) / max(of_hematoxylin, 1e-3),
        float(faint.mean()),
        float(moderate.mean()),
        float(intense.mean()),
        float(dab[faint].mean()) if faint.any() else 0.0,
        enclosed_share(loops, (scale.cell_um2[0] / per_um2, scale.cell_um2[1] / per_um2)),
        _thickness(moderate) * scale.mpp,
    )


def _opened(mask: npt.NDArray[np.uint8], radius_px: float) -> npt.NDArray[np.uint8]:
    size = 2 * max(1, round(radius_px)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc), np.uint8)


_EDGE_FLOOR = 1e-3
"""Mean squared gradient below which edges are the sensor's noise; glass then has no isotropic edges either."""


def _edge_isotropy(hematoxylin: Float32, mpp: float) -> float:
    """How far edges within 4 um run in all directions: high among round nuclei, near 0 along fibres and on glass.

    One less the coherence of the structure tensor (Bigun and Granlund 1987), weighted by the edges' own strength.
    """
    smooth = cv2.GaussianBlur(hematoxylin, (0, 0), 0.5 / mpp)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    xx, yy, xy = (cv2.GaussianBlur(part, (0, 0), 4.0 / mpp) for part in (across**2, down**2, across * down))
    strength = xx + yy
    isotropic = strength - np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    return float(isotropic.mean() / (strength.mean() + _EDGE_FLOOR))


def _thickness(membrane: npt.NDArray[np.bool_]) -> float:
    """Mean width in pixels: an elongated structure of width w has w / 4 as its mean distance to the edge."""
    if not membrane.any():
        return 0.0
    to_edge = cv2.distanceTransform(membrane.astype(np.uint8), cv2.DIST_L2, 3)
    return 4.0 * max(0.0, float(to_edge[membrane].mean()) - 0.5)
