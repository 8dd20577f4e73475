"""Annotated regions of a slide: GeoJSON polygons in level-0 pixels, as QuPath exports them.

A name says what a region is for: tumour to be scored, or tissue that must not count (in-situ ducts, controls).
Case, spaces and the asterisk that QuPath puts behind names of regions make no difference.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.bounded_file import read_bounded
from wsi_her2.errors import RegionsError
from wsi_her2.messages import shortened
from wsi_her2.slides.slide import Overview
from wsi_her2.slides.tissue import TissueMask, tissue_mask

_MAX_BYTES = 32 * 2**20
"""Of a GeoJSON file. A corner takes some 20 bytes, so that this holds a million and a half."""

_MAX_REGIONS = 10_000
"""In a file, counting each part of a MultiPolygon. Annotations are drawn by hand; cells are none."""

_MAX_CORNERS = 2_000_000
"""Of all regions together."""

_MAX_NAME = 200
"""Characters of a name that are kept; it stands in results and reports."""

_FURTHEST_PX = 1_000_000
"""Corners further out are drawn here: OpenCV counts in 32 bits, and no overview is that large."""

_MOST_COMPARISONS = 500_000_000
"""Of a point with a line of an outline: some seconds."""

Ring = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Region:
    """A polygon with holes.

    Attributes
    ----------
    name : str or None
        What the annotator called it.
    rings : tuple of ring
        The outline, then its holes; corners in level-0 pixels.
    """

    name: str | None
    rings: tuple[Ring, ...]


@dataclass(frozen=True)
class RegionNames:
    """What the names of regions mean.

    Attributes
    ----------
    include : tuple of str
        Regions to score; regions without a name belong to them. Where there is none, all tissue is scored but
        what is excluded.
    exclude : tuple of str
        Regions that do not count.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    include: tuple[str, ...] = (
        "tumour",
        "tumor",
        "invasive",
        "invasive tumour",
        "invasive tumor",
        "region",
        "roi",
    )
    exclude: tuple[str, ...] = (
        "dcis",
        "in situ",
        "normal",
        "control",
        "necrosis",
        "artefact",
        "artifact",
        "ignore",
    )


@dataclass(frozen=True)
class UsedRegions:
    """Which regions decided what was scored.

    Attributes
    ----------
    file : str
        Name of the file.
    included, excluded, ignored : dict of str to int
        How many regions of each name were scored, left out, and passed over because the name says neither. A
        region without a name is ''.
    """

    file: str
    included: dict[str, int]
    excluded: dict[str, int]
    ignored: dict[str, int]


def restrict(
    mask: TissueMask, path: str | Path, names: RegionNames | None = None
) -> tuple[TissueMask, UsedRegions]:
    """Tissue within the regions of a file.

    Parameters
    ----------
    mask : TissueMask
    path : str or pathlib.Path
        GeoJSON; see `read_regions`.
    names : RegionNames, optional

    Raises
    ------
    RegionsError
        The file cannot be read, no name in it means anything, or its regions do not touch the slide.
    """
    path, names = Path(path), names or RegionNames()
    included, excluded, ignored = sort_by_name(read_regions(path), names)
    if not included and not excluded:
        found = shortened(", ".join(sorted({region.name or "" for region in ignored})))
        raise RegionsError(
            f"{path}: none of the names of its regions ({found}) is one to include ({', '.join(names.include)}) "
            f"or to exclude ({', '.join(names.exclude)}): rename them, or set regions.include and regions.exclude"
        )
    if not cover(included or excluded, mask.overview).any():
        raise RegionsError(f"{path}: its regions do not touch the slide; corners must be in level-0 pixels")
    kept = what_counts(included, excluded, mask.overview)
    used = UsedRegions(path.name, _counted(included), _counted(excluded), _counted(ignored))
    return tissue_mask(mask.tissue & kept, mask.pen & kept, mask.overview, mask.white_point), used


def sort_by_name(regions: Iterable[Region], names: RegionNames) -> tuple[list[Region], list[Region], list[Region]]:
    """Regions to score, regions that do not count, and regions whose name says neither."""
    include, exclude = ({_plain(name) for name in group} for group in (names.include, names.exclude))
    sorted_: tuple[list[Region], list[Region], list[Region]] = ([], [], [])
    for region in regions:
        name = _plain(region.name or "")
        place = 1 if name in exclude else 0 if not name or name in include else 2
        sorted_[place].append(region)
    return sorted_


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").rstrip("* ").lower().split())


def _counted(regions: Iterable[Region]) -> dict[str, int]:
    return dict(sorted(Counter(region.name or "" for region in regions).items()))


def read_regions(path: str | Path) -> tuple[Region, ...]:
    """Read the polygons of a GeoJSON file.

    Parameters
    ----------
    path : str or pathlib.Path
        A FeatureCollection, a list of features, or one feature, of Polygon and MultiPolygon. The name is
        `properties.classification.name`, or `properties.name`. Other geometries are passed over.

    Raises
    ------
    RegionsError
        It is no GeoJSON, or holds no polygon.
    """
    path = Path(path)
    try:
        content = json.loads(read_bounded(path, _MAX_BYTES).decode("utf-8-sig"))
        regions = parse_regions(content)
    except (OSError, ValueError, RecursionError) as failed:
        raise RegionsError(
            f"{path}: not GeoJSON of polygons ({shortened(failed)}); export the annotations again"
        ) from failed
    if not regions:
        raise RegionsError(f"{path}: holds no polygon")
    return regions


def parse_regions(content: Any) -> tuple[Region, ...]:
    """The polygons of GeoJSON that was read already, possibly none; see `read_regions`.

    Raises
    ------
    RegionsError
        It is no GeoJSON.
    """
    try:
        return tuple(_up_to_limits(region for feature in _features(content) for region in _polygons(feature)))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as failed:
        raise RegionsError(shortened(failed)) from failed


def cover(regions: Iterable[Region], overview: Overview) -> npt.NDArray[np.bool_]:
    """Where the regions lie on the overview of their slide (bool H x W)."""
    covered = np.zeros(overview.rgb.shape[:2], np.uint8)
    for region in regions:
        rings = [_on_overview(ring, overview) for ring in region.rings]
        # Only where the region can lie: there may be thousands, and the overview has millions of pixels.
        corners = np.concatenate(rings)
        left, top = np.clip(corners.min(axis=0), 0, covered.shape[::-1])
        right, bottom = np.clip(corners.max(axis=0) + 1, 0, covered.shape[::-1])
        if left >= right or top >= bottom:
            continue
        drawn = np.zeros((bottom - top, right - left), np.uint8)
        # One call for all rings of a polygon fills by the even-odd rule, so that holes stay empty.
        cv2.fillPoly(drawn, rings, 1, offset=(-int(left), -int(top)))
        covered[top:bottom, left:right] |= drawn
    return covered.astype(bool)


def what_counts(
    included: Sequence[Region], excluded: Sequence[Region], overview: Overview
) -> npt.NDArray[np.bool_]:
    """What of the slide counts (bool H x W): what is included, all where nothing is, less what is excluded."""
    kept = cover(included, overview) if included else np.ones(overview.rgb.shape[:2], bool)
    return np.asarray(kept & ~cover(excluded, overview), bool)


def contains(regions: Iterable[Region], xy: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Which points lie in one of the regions, by the even-odd rule (bool N).

    Parameters
    ----------
    regions : iterable of Region
    xy : int N x 2
        Level-0 pixels.

    Raises
    ------
    RegionsError
        The outlines run past so many points that this would take minutes.
    """
    order = np.argsort(xy[:, 1], kind="stable")
    x, y = xy[order].astype(np.float64).T
    inside, compared = np.zeros(len(xy), bool), 0
    for region in regions:
        odd = np.zeros(len(xy), bool)
        for ring in region.rings:
            ends = np.asarray(ring, np.float64)
            starts = np.roll(ends, 1, axis=0)
            # Of a line that goes past points, half of its ends count, or a corner would be crossed twice.
            first = np.searchsorted(y, np.minimum(starts[:, 1], ends[:, 1]))
            last = np.searchsorted(y, np.maximum(starts[:, 1], ends[:, 1]))
            compared += int((last - first).sum())
            if compared > _MOST_COMPARISONS:
                raise RegionsError("the outlines of the regions are too intricate: draw them with fewer corners")
            for line in np.flatnonzero(last > first):
                (x0, y0), (x1, y1) = starts[line], ends[line]
                passed = slice(first[line], last[line])
                odd[passed] ^= x[passed] < x0 + (y[passed] - y0) * ((x1 - x0) / (y1 - y0))
        inside |= odd
    contained = np.empty(len(xy), bool)
    contained[order] = inside
    return contained


def _on_overview(ring: Ring, overview: Overview) -> npt.NDArray[np.int32]:
    corners = (np.asarray(ring, np.float64) - (overview.box.x, overview.box.y)) / overview.downsample
    return np.clip(np.floor(corners), -_FURTHEST_PX, _FURTHEST_PX).astype(np.int32)


def _up_to_limits(regions: Iterable[Region]) -> Iterator[Region]:
    corners = 0
    for number, region in enumerate(regions):
        corners += sum(map(len, region.rings))
        if number >= _MAX_REGIONS or corners > _MAX_CORNERS:
            raise ValueError(f"more than {_MAX_REGIONS:,} regions or {_MAX_CORNERS:,} corners")
        yield region


def _features(content: Any) -> Sequence[Any]:
    if isinstance(content, list):
        return content
    if content["type"] == "FeatureCollection":
        features: Sequence[Any] = content["features"]
        return features
    return [content]


def _polygons(feature: Any) -> list[Region]:
    properties = feature.get("properties") or {}
    classification = properties.get("classification") or {}
    named = classification.get("name") if isinstance(classification, dict) else classification
    name = named or properties.get("name")
    geometry = feature["geometry"] if feature.get("type") == "Feature" else feature
    kind = geometry.get("type") if geometry is not None else None
    if kind not in ("Polygon", "MultiPolygon"):
        return []
    coordinates = geometry["coordinates"]
    polygons = [coordinates] if kind == "Polygon" else coordinates
    return [
        Region(None if name is None else _printable(name), tuple(_ring(ring) for ring in rings))
        for rings in polygons
    ]


def _printable(name: Any) -> str:
    """A name as text that any file can hold."""
    return str(name)[:_MAX_NAME].encode("utf-8", "replace").decode("utf-8")


def _ring(positions: Any) -> Ring:
    ring = tuple((float(position[0]), float(position[1])) for position in positions)
    if len(ring) < 3 or not all(math.isfinite(value) for corner in ring for value in corner):
        raise ValueError("a ring needs three corners that are numbers")
    return ring
