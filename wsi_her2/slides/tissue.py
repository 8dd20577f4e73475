"""Where the tissue is: a mask over the overview, in microns, for IHC and for H&E.

HER2-0 tissue is pale blue-grey on an off-white ground, so saturation and Otsu lose it. Here tissue is what is
denser than the slide's own glass *and* either coloured or textured. Pen, glass edges and dust are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.slides.backends import RGB
from wsi_her2.slides.channels import channel_extremes, channel_mean
from wsi_her2.slides.density import Float32, optical_density
from wsi_her2.slides.slide import Overview, Slide
from wsi_her2.slides.white_point import WhitePoint, estimate_white_point

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TissueSettings:
    """How tissue is found.

    Attributes
    ----------
    overview_mpp : float
        Scale at which the slide is looked at, um/px. Coarser when the slide is large: see `max_overview_px`.
    max_overview_px : int
        Longest side of the overview; it bounds the memory.
    min_density : float
        Mean optical density (log10) above glass from which a place can be tissue. Pale HER2-0 stroma has
        0.025 and more, glass that is stitched or slightly dirty up to 0.011.
    min_chroma : float
        Difference between the densities of the channels that counts as colour.
    min_texture : float
        Local standard deviation of density that counts as texture.
    smoothing_um : float
        Scale over which density is averaged before it is judged, about one cell.
    closing_um : float
        Gaps up to twice this wide are bridged: lumens, fat, retraction.
    max_hole_um2 : float
        Enclosed holes up to this area count as tissue.
    min_tissue_um2 : float
        Smaller pieces are dust.
    pen_margin_um : float
        Ink bleeds; this much around pen is left out too.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    overview_mpp: float = 4.0
    max_overview_px: int = 2500
    min_density: float = 0.014
    min_chroma: float = 0.010
    min_texture: float = 0.008
    smoothing_um: float = 8.0
    closing_um: float = 50.0
    max_hole_um2: float = 50_000.0
    min_tissue_um2: float = 20_000.0
    pen_margin_um: float = 20.0


@dataclass(frozen=True)
class TissueMask:
    """Tissue over the overview of a slide.

    Attributes
    ----------
    tissue : bool H x W
    pen : bool H x W
        Ink, with its margin; never tissue.
    overview : Overview
        What was looked at.
    white_point : WhitePoint
    """

    tissue: Mask
    pen: Mask
    overview: Overview
    white_point: WhitePoint

    @property
    def area_mm2(self) -> float:
        """Area of the tissue."""
        return float(self.tissue.sum()) * self.overview.mpp**2 / 1e6

    @property
    def pen_share(self) -> float:
        """Share of tissue and ink together that is ink."""
        covered = int(self.tissue.sum()) + int(self.pen.sum())
        return float(self.pen.sum()) / covered if covered else 0.0

    def fractions(self, x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], width: int, height: int) -> Float32:
        """Share of tissue in rectangles of one size.

        Parameters
        ----------
        x, y : int64 N
            Top-left corners in level-0 pixels.
        width, height : int
            Size in level-0 pixels.

        Returns
        -------
        float32 N
        """
        scale, box = self.overview.downsample, self.overview.box
        rows, columns = self.tissue.shape
        left = np.rint((x - box.x) / scale).astype(np.int64)
        top = np.rint((y - box.y) / scale).astype(np.int64)
        right = np.maximum(np.rint((x - box.x + width) / scale).astype(np.int64), left + 1)
        bottom = np.maximum(np.rint((y - box.y + height) / scale).astype(np.int64), top + 1)
        area = (right - left) * (bottom - top)
        left, right = np.clip(left, 0, columns), np.clip(right, 0, columns)
        top, bottom = np.clip(top, 0, rows), np.clip(bottom, 0, rows)
        sums = self._sums
        inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return np.asarray(inside / area, np.float32)

    @cached_property
    def _sums(self) -> npt.NDArray[np.int32]:
        """Tissue pixels above and to the left of each corner of a pixel (int32 H + 1 x W + 1)."""
        return np.asarray(cv2.integral(self.tissue.view(np.uint8), sdepth=cv2.CV_32S), np.int32)


def detect_tissue(slide: Slide, settings: TissueSettings | None = None) -> TissueMask:
    """Find the tissue of a slide.

    Parameters
    ----------
    slide : Slide
    settings : TissueSettings, optional

    Returns
    -------
    TissueMask
        Empty where there is none; that is an answer, not an error.
    """
    settings = settings or TissueSettings()
    longest_um = max(slide.bounds.width, slide.bounds.height) * slide.mpp
    overview = slide.overview(max(settings.overview_mpp, longest_um / settings.max_overview_px))
    white = estimate_white_point(overview.rgb, overview.unreadable)
    pen = _pen(overview, white, settings) & ~overview.unreadable
    tissue = _tissue(overview, white, pen | overview.unreadable, settings)
    return TissueMask(tissue, pen, overview, white)


def tissue_mask(tissue: Mask, pen: Mask, overview: Overview, white: WhitePoint) -> TissueMask:
    """Put a mask together; `tissue` and `pen` are bool H x W over the overview."""
    return TissueMask(tissue, pen, overview, white)


def tissue_overlay(mask: TissueMask) -> RGB:
    """The overview with the tissue outlined in green, ink in magenta and the rest dimmed (uint8 H x W x 3)."""
    rgb = np.asarray(cv2.LUT(mask.overview.rgb, (np.arange(256) * 0.65).astype(np.uint8)), np.uint8)
    cv2.copyTo(mask.overview.rgb, mask.tissue.view(np.uint8), rgb)
    thickness = max(1, round(max(rgb.shape[:2]) / 800))
    for region, colour in ((mask.tissue, (0, 150, 60)), (mask.pen, (200, 0, 160))):
        contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(rgb, contours, -1, colour, thickness)
    return rgb


def outline_pieces(mask: TissueMask) -> list[list[list[tuple[int, int]]]]:
    """Tissue as polygons in level-0 pixels: for each piece its outer ring, then its holes, rings closed."""
    contours, hierarchy = cv2.findContours(mask.tissue.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return []
    scale, box = mask.overview.downsample, mask.overview.box
    rings = []
    for contour in contours:
        corners = cv2.approxPolyDP(contour, 1.0, closed=True)[:, 0, :] + 0.5
        ring = [(box.x + round(float(x) * scale), box.y + round(float(y) * scale)) for x, y in corners]
        rings.append([*ring, ring[0]])
    pieces: dict[int, list[list[tuple[int, int]]]] = {}
    parents = hierarchy.reshape(-1, 4)[:, 3]
    for index, (ring, parent) in enumerate(zip(rings, parents, strict=True)):
        if len(ring) >= 4:
            pieces.setdefault(int(parent) if parent >= 0 else index, []).append(ring)
    return [pieces[index] for index in sorted(pieces)]


def _tissue(overview: Overview, white: WhitePoint, excluded: Mask, settings: TissueSettings) -> Mask:
    mpp = overview.mpp
    sigma = max(0.6, settings.smoothing_um / mpp)
    found = np.zeros(excluded.shape, np.uint8)
    # What is averaged is as dense as the densest of it: a little less is asked for, against rounding.
    for inner, density, core in _dense_parts(overview, white, 0.9 * settings.min_density, sigma):
        mean = channel_mean(density)
        smooth = np.asarray(cv2.GaussianBlur(density, (0, 0), sigma), np.float32)
        least, most = channel_extremes(smooth)
        local_mean = cv2.GaussianBlur(mean, (0, 0), sigma)
        texture = np.sqrt(np.maximum(cv2.GaussianBlur(mean * mean, (0, 0), sigma) - local_mean**2, 0.0))
        evidence = (most - least > settings.min_chroma) | (texture > settings.min_texture)
        found[inner] = ((channel_mean(smooth) > settings.min_density) & evidence)[core] & ~excluded[inner]
    tissue = np.zeros(excluded.shape, bool)
    x, y, width, height = cv2.boundingRect(found)
    if width == 0:
        return tissue
    # Nothing below changes what lies outside the box; its margin tells a gap at the edge of it from a hole.
    margin = 2 + _disc_radius(1.75 * settings.smoothing_um / mpp)
    box = np.s_[max(0, y - margin) : y + height + margin, max(0, x - margin) : x + width + margin]
    # A scratch, a coverslip edge or a hair is long but thin.
    pieces = _open(found[box], 1.75 * settings.smoothing_um / mpp)
    pieces = _close(pieces, settings.closing_um / mpp)
    pieces = _fill_holes(pieces, settings.max_hole_um2 / mpp**2)
    pieces[excluded[box]] = 0
    tissue[box] = _without_small_pieces(pieces, settings.min_tissue_um2 / mpp**2)
    return tissue


def _pen(overview: Overview, white: WhitePoint, settings: TissueSettings) -> Mask:
    """Ink by its hue: no mixture of hematoxylin, eosin and DAB looks like it.

    In density, hematoxylin absorbs red at most 1.4 times as much as green and blue at least a quarter as much as
    red, eosin little blue, DAB more blue than green; green ink absorbs red far more than green, blue ink hardly
    any blue, red ink green and blue alike and hardly any red, and black ink everything.
    """
    mpp = overview.mpp
    sigma = max(0.6, 4.0 / mpp)
    ink = np.zeros(overview.rgb.shape[:2], np.uint8)
    for inner, density, core in _dense_parts(overview, white, 0.9 * _INK_DENSITY, sigma):
        smooth = np.asarray(cv2.GaussianBlur(density, (0, 0), sigma), np.float32)
        red, green, blue = cv2.split(smooth)
        cool = ((red > 1.6 * green) | ((red > 1.25 * green) & (blue < 0.2 * red))) & (red > 0.25)
        warm = (green > _INK_DENSITY) & (blue > 0.75 * green) & (blue < 1.35 * green) & (red < 0.28 * green)
        least, most = channel_extremes(smooth)
        black = (least > 0.65) & (most < 1.45 * least)
        ink[inner] = (cool | warm | black)[core]
    if not ink.any():
        return np.zeros(ink.shape, bool)
    ink = _open(ink, 12.0 / mpp)
    ink = _without_small_pieces(ink, 0.25 * settings.min_tissue_um2 / mpp**2).astype(np.uint8)
    return np.asarray(cv2.dilate(ink, _disc(settings.pen_margin_um / mpp)), bool)


_INK_DENSITY = 0.2
"""That of the palest ink in the channel that it absorbs most."""

_BAND_PX = 256

Window = tuple[slice, slice]


def _dense_parts(
    overview: Overview, white: WhitePoint, density: float, sigma_px: float
) -> Iterator[tuple[Window, Float32, Window]]:
    """Parts of the overview outside of which nothing is denser than glass, also once it is blurred.

    Most of a slide is glass, and what is known to be glass need not be measured; nor does memory then grow with
    the overview.

    Parameters
    ----------
    overview : Overview
    white : WhitePoint
    density : float
        That some channel of a pixel must have.
    sigma_px : float
        Of the blur.

    Yields
    ------
    inner : tuple of slice
        The part, in the overview.
    density : float32 h x w x 3
        Optical density of the part with a margin as wide as the blur reaches.
    core : tuple of slice
        The part, in `density`.
    """
    reach = math.ceil(4 * sigma_px) + 2
    rows, columns = overview.rgb.shape[:2]
    palest = tuple(level * 10**-density for level in white.rgb)
    dense = cv2.bitwise_not(cv2.inRange(overview.rgb, palest, (255.0, 255.0, 255.0)))
    for top in range(0, rows, _BAND_PX):
        bottom = min(rows, top + _BAND_PX)
        x, y, width, height = cv2.boundingRect(dense[max(0, top - reach) : bottom + reach])
        if width == 0:
            continue
        first, last = (
            max(top, max(0, top - reach) + y - reach),
            min(bottom, max(0, top - reach) + y + height + reach),
        )
        left, right = max(0, x - reach), min(columns, x + width + reach)
        upper, outer = max(0, first - reach), max(0, left - reach)
        around = overview.rgb[upper : last + reach, outer : right + reach]
        core = np.s_[first - upper : last - upper, left - outer : right - outer]
        yield np.s_[first:last, left:right], optical_density(around, white.rgb), core


def _disc_radius(radius_px: float) -> int:
    return max(1, round(radius_px))


def _disc(radius_px: float) -> npt.NDArray[np.uint8]:
    size = 2 * _disc_radius(radius_px) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def _open(mask: npt.NDArray[np.uint8], radius_px: float) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(radius_px)), np.uint8)


def _close(mask: npt.NDArray[np.uint8], radius_px: float) -> npt.NDArray[np.uint8]:
    """Close by a disc of any size at a cost that does not depend on it."""
    if not mask.any():
        return mask
    margin = int(np.ceil(radius_px)) + 1
    padded = cv2.copyMakeBorder(mask, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    grown = (cv2.distanceTransform(1 - padded, cv2.DIST_L2, 5) <= radius_px).astype(np.uint8)
    closed = cv2.distanceTransform(grown, cv2.DIST_L2, 5) > radius_px
    inner = closed[margin:-margin, margin:-margin].astype(np.uint8)
    return np.maximum(inner, mask)


def _fill_holes(mask: npt.NDArray[np.uint8], max_px: float) -> npt.NDArray[np.uint8]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = np.zeros(count, bool)
    small[1:] = stats[1:, cv2.CC_STAT_AREA] <= max_px
    # A gap that reaches the edge of the slide is not enclosed.
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        small[np.unique(border)] = False
    return np.where(small[labels], 1, mask).astype(np.uint8)


def _without_small_pieces(mask: npt.NDArray[np.uint8], min_px: float) -> Mask:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    kept = np.zeros(count, bool)
    kept[1:] = stats[1:, cv2.CC_STAT_AREA] >= min_px
    return np.asarray(kept[labels], bool)
