"""Control tissue on the slide: small round pieces that lie apart from the tissue to be scored.

Laboratories mount spots of cell lines or of known tissue beside the section and stain them with it. They must not
count, but a fragment of the tumour can look the same from afar; so pieces are found and named here, and whoever
knows the laboratory's slides decides whether they are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.slides.tissue import TissueMask, tissue_mask


@dataclass(frozen=True)
class ControlLimits:
    """What a piece of control tissue looks like on the overview.

    Attributes
    ----------
    max_share : float
        Largest area, as a share of the slide's largest piece. Cores of a microarray are all alike, so none of them
        is a control by this.
    min_fill : float
        Smallest share of its convex hull that it fills: torn edges fill less.
    max_elongation : float
        Largest length over width. A row of three spots, which lie so close that they are one piece, has 3; needle
        biopsies have more.
    min_gap_um : float
        Least distance to the largest piece.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    max_share: float = 0.3
    min_fill: float = 0.75
    max_elongation: float = 3.5
    min_gap_um: float = 60.0


@dataclass(frozen=True)
class ControlPiece:
    """A piece of tissue that may be a control: where it lies, level-0 pixels, and how large it is."""

    x: int
    y: int
    width: int
    height: int
    area_mm2: float


def find_controls(mask: TissueMask, limits: ControlLimits | None = None) -> tuple[ControlPiece, ...]:
    """Pieces of tissue that may be controls, from the top of the slide to its bottom.

    Parameters
    ----------
    mask : TissueMask
    limits : ControlLimits, optional
    """
    found, _, stats = _controls(mask, limits or ControlLimits())
    scale, box = mask.overview.downsample, mask.overview.box
    pieces = []
    for label in found:
        left, top, width, height, area = (int(value) for value in stats[label])
        pieces.append(
            ControlPiece(
                x=box.x + round(left * scale),
                y=box.y + round(top * scale),
                width=round(width * scale),
                height=round(height * scale),
                area_mm2=area * (mask.overview.mpp / 1000) ** 2,
            )
        )
    return tuple(pieces)


def without_controls(mask: TissueMask, limits: ControlLimits | None = None) -> TissueMask:
    """The mask less the pieces that may be controls."""
    found, labels, _ = _controls(mask, limits or ControlLimits())
    return tissue_mask(mask.tissue & ~np.isin(labels, found), mask.pen, mask.overview, mask.white_point)


def _controls(
    mask: TissueMask, limits: ControlLimits
) -> tuple[list[int], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Labels of the control pieces, the labels of all pieces, and their boxes and areas."""
    count, numbered, measured, _ = cv2.connectedComponentsWithStats(mask.tissue.astype(np.uint8), connectivity=8)
    labels, stats = np.asarray(numbered, np.int32), np.asarray(measured, np.int32)
    if count < 3:
        return [], labels, stats
    area = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    main = 1 + int(area[1:].argmax())
    to_main = cv2.distanceTransform((labels != main).astype(np.uint8), cv2.DIST_L2, 5) * mask.overview.mpp
    found = []
    for label in range(1, count):
        if label == main or area[label] > limits.max_share * area[main]:
            continue
        piece = labels == label
        outlines, _ = cv2.findContours(piece.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        hull = cv2.convexHull(np.concatenate(outlines))
        (_, sides, _) = cv2.minAreaRect(hull)
        # Outlines run through the middles of pixels, the area counts whole ones.
        fill = area[label] / (cv2.contourArea(hull) + cv2.arcLength(hull, closed=True) / 2 + 1)
        elongation = (max(sides) + 1) / (min(sides) + 1)
        shaped = fill >= limits.min_fill and elongation <= limits.max_elongation
        if shaped and float(to_main[piece].min()) >= limits.min_gap_um:
            found.append(label)
    return found, labels, stats
