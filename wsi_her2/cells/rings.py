"""The membrane around each nucleus: how strongly it stains in each direction.

From the nucleus a ray goes out in each of 32 directions, to a little beyond the line half way to the nearest
other nucleus, where the membrane of a crowded cell lies. What counts on a ray is the strongest thin line of DAB
(`ridge_strength`): a membrane is a line, while cytoplasmic blush and nuclear staining are not. The same is asked
of thin gaps in the DAB. Noise and granular blush make as many gaps as lines; a membrane makes lines. And where
a ray meets a membrane, DAB rises and falls along the ray and not across it; at a granule it does both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.models.membrane.measures import ridge_strength
from wsi_her2.slides.density import Float32

DIRECTIONS = 32
"""Rays around a nucleus: one each um or so along the membrane."""

MEASURES = 5
"""At each step of a ray; see `Rings.rays`."""


@dataclass(frozen=True)
class RingSettings:
    """Where the membrane of a cell is sought.

    Attributes
    ----------
    line_um : float
        Standard deviation of the Gaussian at which lines are sought: about the width of a membrane as scanned.
    grain_um : float
        Standard deviation of the Gaussian at which curvature is measured: about the size of granules.
    inner, outer : float
        Where a ray begins and ends, as a share of the way to the line half way to the nearest other nucleus.
    nearest_um : float
        No ray begins nearer to the centre: there lies the nucleus.
    farthest_um : float
        A cell without neighbours reaches this far.
    neighbours : int
        Nuclei around a cell that can bound it.
    steps : int
        Samples on a ray.
    """

    line_um: float = 1.0
    grain_um: float = 0.6
    inner: float = 0.45
    outer: float = 1.3
    nearest_um: float = 2.2
    farthest_um: float = 9.0
    neighbours: int = 7
    steps: int = 14


@dataclass(frozen=True, eq=False)
class Rings:
    """The staining around each nucleus.

    Attributes
    ----------
    lines, gaps : float32 N x DIRECTIONS
        Strength of the strongest thin line of DAB on each ray, and of the strongest thin gap; log10 density.
    blush : float32 N
        DAB density of the cytoplasm: the median over the rays of the smallest on each; not below 0.
    rays : float32 N x DIRECTIONS x steps x 5
        What lies on each ray from its beginning outwards: strength of a thin line of DAB, density of DAB and of
        hematoxylin, and how much denser DAB is than what lies beside it along the ray and across it.
    reach_um : float32 N x DIRECTIONS
        How far from the nucleus the middle of each ray lies.
    """

    lines: Float32
    gaps: Float32
    blush: Float32
    rays: Float32
    reach_um: Float32


def unit_rays(count: int) -> npt.NDArray[np.float64]:
    """Vectors of length 1 (float64 count x 2) in directions all around."""
    angles = np.arange(count) * (2 * np.pi / count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def measure_rings(
    dab: Float32,
    nuclei: npt.NDArray[np.float64],
    mpp: float,
    settings: RingSettings | None = None,
    *,
    hematoxylin: Float32 | None = None,
) -> Rings:
    """Measure the membranes of a field.

    Parameters
    ----------
    dab : float32 H x W
        DAB density, not clipped at 0.
    nuclei : float64 N x 2
        Centres in pixels of `dab`.
    mpp : float
        Scale of `dab`, um/px.
    settings : RingSettings, optional
    hematoxylin : float32 H x W, optional
        Its density; none by default.
    """
    settings = settings or RingSettings()
    if len(nuclei) == 0:
        nothing = np.zeros((0, DIRECTIONS), np.float32)
        no_rays = np.zeros((0, DIRECTIONS, settings.steps, MEASURES), np.float32)
        return Rings(nothing, nothing, np.zeros(0, np.float32), no_rays, nothing)
    rays = unit_rays(DIRECTIONS)
    border_px = _way_to_border(nuclei, rays, settings, mpp)
    steps = np.linspace(settings.inner, settings.outer, settings.steps)
    radius_px = np.maximum(border_px[..., None] * steps, settings.nearest_um / mpp)
    places = nuclei[:, None, None, :] + radius_px[..., None] * rays[None, :, None, :]
    sigma = (settings.line_um / mpp,)
    lines, density = _on_rays(ridge_strength(dab, sigma), places), _on_rays(dab, places)
    blue = np.zeros_like(density) if hematoxylin is None else _on_rays(hematoxylin, places)
    return Rings(
        lines=lines.max(axis=2),
        gaps=_on_rays(ridge_strength(-dab, sigma), places).max(axis=2),
        blush=np.maximum(np.median(density.min(axis=2), axis=1), 0).astype(np.float32),
        rays=np.stack([lines, density, blue, *_curvatures(dab, places, rays, settings.grain_um / mpp)], axis=-1),
        reach_um=(radius_px.mean(axis=2) * mpp).astype(np.float32),
    )


def _curvatures(
    dab: Float32, places: npt.NDArray[np.float64], rays: npt.NDArray[np.float64], sigma_px: float
) -> tuple[Float32, Float32]:
    """Scale-normalised curvature of DAB along each ray and across it, positive where it is densest."""
    smooth = cv2.GaussianBlur(dab, (0, 0), sigma_px)
    scale = -0.25 * sigma_px**2
    bend_x, bend_y, mixed = (
        _on_rays(np.asarray(cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=scale), np.float32), places)
        for order in ((2, 0), (0, 2), (1, 1))
    )
    cosine, sine = (part.astype(np.float32)[None, :, None] for part in rays.T)
    turn = 2 * mixed * cosine * sine
    along = bend_x * cosine**2 + bend_y * sine**2 + turn
    across = bend_x * sine**2 + bend_y * cosine**2 - turn
    return np.asarray(along, np.float32), np.asarray(across, np.float32)


def _way_to_border(
    nuclei: npt.NDArray[np.float64], rays: npt.NDArray[np.float64], settings: RingSettings, mpp: float
) -> npt.NDArray[np.float64]:
    """Pixels from each nucleus along each ray to the line half way to another nucleus (N x DIRECTIONS)."""
    count = min(settings.neighbours, len(nuclei) - 1)
    farthest = np.full((len(nuclei), len(rays)), settings.farthest_um / mpp)
    if count < 1:
        return farthest
    towards = nuclei[_nearest(nuclei, count)] - nuclei[:, None, :]
    along = towards @ rays.T
    squared = (towards**2).sum(axis=-1)[..., None]
    with np.errstate(divide="ignore"):
        way = np.where(along > 0, squared / (2 * np.maximum(along, 1e-9)), np.inf)
    return np.asarray(np.minimum(way.min(axis=1), farthest), np.float64)


def _nearest(places: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """For each place the `count` others nearest to it (int64 N x count); of equally far ones the first.

    A field has some hundred nuclei, for which looking at all pairs costs less than importing a tree.
    """
    nearest = np.empty((len(places), count), np.int64)
    for start in range(0, len(places), _PLACES):
        these = places[start : start + _PLACES]
        across, down = (these[:, None, axis] - places[None, :, axis] for axis in (0, 1))
        squared = across**2 + down**2
        squared[np.arange(len(these)), np.arange(start, start + len(these))] = np.inf
        nearest[start : start + _PLACES] = np.argsort(squared, axis=1, kind="stable")[:, :count]
    return nearest


def _on_rays(image: Float32, places: npt.NDArray[np.float64]) -> Float32:
    """Values of an image (N x DIRECTIONS x steps) at places (N x DIRECTIONS x steps x 2)."""
    x = places[..., 0].astype(np.float32).reshape(len(places), -1)
    y = places[..., 1].astype(np.float32).reshape(len(places), -1)
    # OpenCV maps at most 32767 rows at a time.
    sampled = [
        cv2.remap(image, x[i : i + _ROWS], y[i : i + _ROWS], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for i in range(0, len(x), _ROWS)
    ]
    return np.asarray(np.concatenate(sampled).reshape(places.shape[:3]), np.float32)


_ROWS, _PLACES = 16_384, 256
