"""Annotated regions of a slide: GeoJSON polygons in level-0 pixels, as QuPath exports them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.errors import DatasetError
from wsi_her2.slides.slide import Overview

_FURTHEST_PX = 1_000_000
"""Corners further out are drawn here: OpenCV counts in 32 bits, and no overview is that large."""

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


def read_regions(path: str | Path) -> tuple[Region, ...]:
    """Read the polygons of a GeoJSON file.

    Parameters
    ----------
    path : str or pathlib.Path
        A FeatureCollection, a list of features, or one feature, of Polygon and MultiPolygon. The name is
        `properties.classification.name`, or `properties.name`. Other geometries are passed over.

    Raises
    ------
    DatasetError
        It is no GeoJSON, or holds no polygon.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        regions = tuple(region for feature in _features(content) for region in _polygons(feature))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as failed:
        raise DatasetError(f"{path}: not GeoJSON of polygons ({failed}); export the annotations again") from failed
    if not regions:
        raise DatasetError(f"{path}: holds no polygon")
    return regions


def cover(regions: Iterable[Region], overview: Overview) -> npt.NDArray[np.bool_]:
    """Where the regions lie on the overview of their slide (bool H x W)."""
    covered = np.zeros(overview.rgb.shape[:2], np.uint8)
    for region in regions:
        rings = [_on_overview(ring, overview) for ring in region.rings]
        # One call for all rings of a polygon fills by the even-odd rule, so that holes stay empty.
        drawn = np.zeros_like(covered)
        cv2.fillPoly(drawn, rings, 1)
        covered |= drawn
    return covered.astype(bool)


def _on_overview(ring: Ring, overview: Overview) -> npt.NDArray[np.int32]:
    corners = (np.asarray(ring, np.float64) - (overview.box.x, overview.box.y)) / overview.downsample
    return np.clip(np.floor(corners), -_FURTHEST_PX, _FURTHEST_PX).astype(np.int32)


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
        Region(None if name is None else str(name), tuple(_ring(ring) for ring in rings)) for rings in polygons
    ]


def _ring(positions: Any) -> Ring:
    ring = tuple((float(position[0]), float(position[1])) for position in positions)
    if len(ring) < 3 or not all(math.isfinite(value) for corner in ring for value in corner):
        raise ValueError("a ring needs three corners that are numbers")
    return ring
