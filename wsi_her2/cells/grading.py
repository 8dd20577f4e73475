"""The class of a cell from what lies around its nucleus: a small network that was fitted on digital phantoms.

A border between two classes is not one strength. A faint membrane and granular haze, a line that is shared with
a neighbour that stains more, the rim of a dark nucleus: what tells them apart lies along the ray, around the cell
and in its neighbours. So the rays of a cell go through convolutions around it, and what they say of its
neighbours, near and not so near, is put beside what they say of itself. From the same, and from what the nucleus
looks like, it says whether this is a cell of the tumour at all.

What is kept of a cell is not its class but its margin at each border: the factor by which the DAB of the field
could be weaker before the cell would no longer lie beyond it. All that depends on the scale of a laboratory's DAB
follows from margins, without measuring again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_her2.cells.rings import Rings
from wsi_her2.models.runtimes.onnx_session import opened_graph
from wsi_her2.slides.density import Float32

BORDERS = ("stained", "complete", "intense")
"""Between 0 and 1+, 1+ and 2+, 2+ and 3+."""

NEIGHBOURHOODS_UM = (9.0, 25.0, 80.0)
"""Standard deviations of the Gaussians by which neighbours count: those that touch, the nest around, the field."""

EPITHELIAL = 0.4
"""Nuclei with less around them than this share of what is usual in the field are stroma, and no neighbours."""

GRADER = Path(__file__).parent / "grader.onnx"
"""The network that comes with the package."""

_SCALES = np.exp(np.linspace(-1.2, 1.2, 5))
"""Factors on DAB that are tried; the middle one is 1. Between them the odds follow a line."""

_LINE, _DENSITY, _BLUE = np.float32(0.02), np.float32(0.05), np.float32(0.15)
"""Line strength, DAB (or unexplained) and hematoxylin density that count as one. Of DAB, inputs are linear below
and logarithmic above."""


@dataclass(frozen=True, eq=False)
class CellViews:
    """What is seen of the cells of a field.

    Attributes
    ----------
    xy_um : float64 N x 2
        Centres of the nuclei.
    rings : Rings
    profile : float32 N x R x 3
        Hematoxylin, DAB and what neither explains, densities at some distances from the centre, means of the
        circle.
    surround : float32 N
        See `wsi_her2.cells.field.Cells`.
    """

    xy_um: npt.NDArray[np.float64]
    rings: Rings
    profile: Float32
    surround: Float32


class CellGrader:
    """The network, ready to run in one thread, so that what comes out does not depend on how many there are.

    Parameters
    ----------
    path : pathlib.Path
        An ONNX file as `wsi_her2.learning.cell_grading.write_grader` writes it.
    """

    def __init__(self, path: Path) -> None:
        self._session = opened_graph(path.read_bytes(), threads=1)

    @property
    def card(self) -> Mapping[str, Any]:
        """On what the network was fitted."""
        card: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map["card"])
        return card

    def log_odds(self, views: CellViews, scales: Sequence[float] = (1.0,)) -> Float32:
        """Natural logarithm of the odds that each cell lies beyond each of `BORDERS`, and is of the tumour.

        Parameters
        ----------
        views : CellViews
            Of at least one cell.
        scales : sequence of float
            Factors on DAB.

        Returns
        -------
        float32 S x N x 4
        """
        inputs = {
            "rings": np.stack([ring_inputs(views.rings, scale) for scale in scales]),
            "centre": np.stack([centre_inputs(views.profile, views.surround, scale) for scale in scales]),
            "neighbours": neighbour_shares(views.xy_um, views.surround),
        }
        return np.asarray(self._session.run(None, inputs)[0], np.float32)


@lru_cache(maxsize=2)
def load_grader(path: Path = GRADER) -> CellGrader:
    """The network of a file, by default the one that comes with the package."""
    return CellGrader(path)


def judge_cells(grader: CellGrader, views: CellViews) -> tuple[Float32, Float32]:
    """By what factor each cell lies beyond each of `BORDERS`, and how probable it is of the tumour.

    Returns
    -------
    margins : float32 N x 3
        1 is at the border; a cell with 2 at one would lie beyond it with half the DAB. 0 is far below any border.
        No cell is beyond a border without being beyond those before it.
    tumour : float32 N
        0 to 1, from the DAB as it is: what a cell is does not depend on how a laboratory stains.
    """
    if len(views.surround) == 0:
        return np.zeros((0, len(BORDERS)), np.float32), np.zeros(0, np.float32)
    odds = grader.log_odds(views, _SCALES.tolist())
    margins = np.minimum.accumulate(_margins_of(odds[..., : len(BORDERS)]), axis=1)
    tumour = 1 / (1 + np.exp(-odds[len(_SCALES) // 2, :, len(BORDERS)].astype(np.float64)))
    return np.asarray(margins, np.float32), np.asarray(tumour, np.float32)


def _margins_of(odds: Float32) -> npt.NDArray[np.float64]:
    """Margins from log odds on each of `_SCALES` (S x N x 3): where they change sign, nearest to the scale of 1.

    So the class on that scale is the network's own, also where odds do not rise with DAB all the way.
    """
    middle, logs = len(_SCALES) // 2, np.log(_SCALES)
    margins = np.where(odds[middle] > 0, 1 / _SCALES[0], 0.0)
    open_still = np.ones(margins.shape, bool)
    for step in range(middle):
        for lower, beyond in ((middle - step - 1, odds[middle] > 0), (middle + step, odds[middle] <= 0)):
            low, high = odds[lower], odds[lower + 1]
            found = open_still & beyond & (low <= 0) & (high > 0)
            share = np.clip(-low / np.maximum(high - low, 1e-9), 0, 1)
            crossing = np.exp(logs[lower] + share * (logs[lower + 1] - logs[lower]))
            margins = np.where(found, 1 / crossing, margins)
            open_still &= ~found
    return margins


def ring_inputs(rings: Rings, scale: float = 1.0) -> Float32:
    """What the network is shown of the rays (float32 N x DIRECTIONS x C), DAB times a factor."""
    lines, dab, blue, along, across = np.moveaxis(rings.rays, -1, 0)
    factor = np.float32(scale)
    return np.concatenate(
        [
            _compressed(lines * (factor / _LINE)),
            _compressed(dab * (factor / _DENSITY)),
            blue / _BLUE,
            _compressed(along * (factor / _LINE)),
            _compressed(across * (factor / _LINE)),
            _compressed(rings.gaps * (factor / _LINE))[..., None],
            rings.reach_um[..., None] / 6 - 1,
        ],
        axis=2,
    ).astype(np.float32)


def centre_inputs(profile: Float32, surround: Float32, scale: float = 1.0) -> Float32:
    """What the network is shown of the nuclei and what surrounds them (float32 N x C), DAB times a factor."""
    blue, dab, unexplained = np.moveaxis(profile, -1, 0)
    return np.concatenate(
        [
            blue / _BLUE,
            _compressed(dab * np.float32(scale / _DENSITY)),
            unexplained / _DENSITY,
            (3 * surround)[:, None],
            (surround / _usual(surround))[:, None],
        ],
        axis=1,
    ).astype(np.float32)


def neighbour_shares(xy_um: npt.NDArray[np.float64], surround: Float32) -> Float32:
    """How much each other cell counts as a neighbour (float32 K x N x N), for each of `NEIGHBOURHOODS_UM`.

    Rows add up to 1, or to 0 for a cell that has none.
    """
    x, y = xy_um.T
    squared = (x[:, None] - x[None]) ** 2 + (y[:, None] - y[None]) ** 2
    epithelial = surround > EPITHELIAL * _usual(surround)
    found = np.empty((len(NEIGHBOURHOODS_UM), *squared.shape), np.float32)
    for shares, deviation in zip(found, NEIGHBOURHOODS_UM, strict=True):
        weight = np.exp(-squared / (2 * deviation**2)) * epithelial[None]
        np.fill_diagonal(weight, 0)
        shares[:] = weight / (weight.sum(axis=1, keepdims=True) + 1e-6)
    return found


def _compressed(values: Float32) -> Float32:
    """Linear near 0, logarithmic far from it. NumPy has logarithms for whole vectors, and no arcsinh."""
    return np.asarray(np.copysign(np.log(np.abs(values) + np.float32(1)), values), np.float32)


def _usual(surround: Float32) -> np.float32:
    return np.float32(max(float(np.percentile(surround, 75)), 1e-3)) if len(surround) else np.float32(1)
