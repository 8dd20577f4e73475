"""The class of a cell from what lies around its nucleus: a small network that was fitted on digital phantoms.

A border between two classes is not one strength. A faint membrane and granular haze, a line that is shared with
a neighbour that stains more, the rim of a dark nucleus: what tells them apart lies along the ray, around the cell
and in its neighbours. So the rays of a cell go through convolutions around it, and what they say of its
neighbours, near and not so near, is put beside what they say of itself.

What is kept of a cell is not its class but its margin at each border: the factor by which the DAB of the field
could be weaker before the cell would no longer lie beyond it. All that depends on the scale of a laboratory's DAB
follows from margins, without measuring again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_her2.cells.rings import Rings
from wsi_her2.slides.density import Float32

Float64 = npt.NDArray[np.float64]

BORDERS = ("stained", "complete", "intense")
"""Between 0 and 1+, 1+ and 2+, 2+ and 3+."""

NEIGHBOURHOODS_UM = (9.0, 25.0)
"""Standard deviations of the Gaussians by which neighbours count: those that touch, and the nest around."""

EPITHELIAL = 0.4
"""Nuclei with less around them than this share of what is usual in the field are stroma, and no neighbours."""

GRADER = Path(__file__).parent / "grader.safetensors"
"""The weights that come with the package."""

_SCALES = np.exp(np.linspace(-1.2, 1.2, 7))
"""Factors on DAB that are tried; the middle one is 1. Between them the odds follow a line."""

_DECIMALS = 6
"""Of log odds. The number of threads changes the last bits of a product, of doubles those beyond these decimals:
so results are the same for any number of workers."""

_LINE, _DENSITY, _BLUE = np.float32(0.02), np.float32(0.05), np.float32(0.15)
"""Line strength, DAB and hematoxylin density that count as one: below, inputs are linear, above, logarithmic."""


@dataclass(frozen=True, eq=False)
class CellViews:
    """What is seen of the cells of a field.

    Attributes
    ----------
    xy_um : float64 N x 2
        Centres of the nuclei.
    rings : Rings
    surround : float32 N
        See `wsi_her2.cells.field.Cells`.
    """

    xy_um: npt.NDArray[np.float64]
    rings: Rings
    surround: Float32

    @cached_property
    def neighbours(self) -> list[Float32]:
        """See `neighbour_shares`; the same on every scale of DAB."""
        return neighbour_shares(self.xy_um, self.surround)


@dataclass(frozen=True, eq=False)
class CellGrader:
    """Weights of the network (float64) by name, and its card: on what it was fitted."""

    weights: Mapping[str, Float64]
    card: Mapping[str, Any]

    def log_odds(self, views: CellViews, scale: float = 1.0) -> Float32:
        """Natural logarithm of the odds that each cell lies beyond each of `BORDERS` (float32 N x 3).

        Parameters
        ----------
        views : CellViews
        scale : float
            Factor on DAB.
        """
        weights = self.weights
        around = ring_inputs(views.rings, scale).astype(np.float64)
        around = self._around("first", around, dilation=1)
        around = around + self._around("second", around, dilation=1)
        around = around + self._around("third", around, dilation=2)
        pooled = np.concatenate([around.mean(axis=1), around.max(axis=1), surround_inputs(views.surround)], axis=1)
        own = np.maximum(pooled @ weights["cell.weight"].T + weights["cell.bias"], 0)
        seen = np.concatenate([own, *(share @ own for share in views.neighbours)], axis=1)
        hidden = np.maximum(seen @ weights["neighbours.weight"].T + weights["neighbours.bias"], 0)
        found = hidden @ weights["borders.weight"].T + weights["borders.bias"]
        return np.asarray(np.round(found, _DECIMALS), np.float32)

    def _around(self, name: str, inputs: Float64, *, dilation: int) -> Float64:
        """A convolution around the cell (N x DIRECTIONS x C), which has neither beginning nor end."""
        kernel, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        out, _, width = kernel.shape
        directions = inputs.shape[1]
        reach = (np.arange(width) - width // 2) * dilation
        taken = (np.arange(directions)[:, None] + reach) % directions
        columns = inputs[:, taken].reshape(len(inputs) * directions, -1)
        found = columns @ np.ascontiguousarray(kernel.transpose(2, 1, 0)).reshape(-1, out) + bias
        return np.asarray(np.maximum(found, 0).reshape(len(inputs), directions, out), np.float64)


@lru_cache(maxsize=2)
def load_grader(path: Path = GRADER) -> CellGrader:
    """The network of a file, by default the one that comes with the package."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as opened:
        weights = {name: opened.get_tensor(name).astype(np.float64) for name in opened.keys()}  # noqa: SIM118
        described = opened.metadata() or {}
    return CellGrader(weights, json.loads(described.get("card", "{}")))


def cell_margins(grader: CellGrader, views: CellViews) -> Float32:
    """By what factor each cell lies beyond each of `BORDERS` (float32 N x 3).

    1 is at the border; a cell with 2 at one would lie beyond it with half the DAB. 0 is far below any border.
    No cell is beyond a border without being beyond those before it.
    """
    if len(views.surround) == 0:
        return np.zeros((0, len(BORDERS)), np.float32)
    odds = np.stack([grader.log_odds(views, scale) for scale in _SCALES.tolist()])
    return np.asarray(np.minimum.accumulate(_margins_of(odds), axis=1), np.float32)


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
    lines, dab, blue = np.moveaxis(rings.rays, -1, 0)
    factor = np.float32(scale)
    return np.concatenate(
        [
            np.arcsinh(lines * (factor / _LINE)) / 2,
            np.arcsinh(dab * (factor / _DENSITY)) / 2,
            blue / _BLUE,
            np.arcsinh(rings.gaps * (factor / _LINE))[..., None] / 2,
            rings.reach_um[..., None] / 6 - 1,
        ],
        axis=2,
    ).astype(np.float32)


def surround_inputs(surround: Float32) -> Float32:
    """What the network is shown of what surrounds the nuclei: how much, and of what is usual (float32 N x 2)."""
    return np.stack([3 * surround, surround / _usual(surround)], axis=1).astype(np.float32)


def neighbour_shares(xy_um: npt.NDArray[np.float64], surround: Float32) -> list[Float32]:
    """How much each other cell counts as a neighbour (float32 N x N), for each of `NEIGHBOURHOODS_UM`.

    Rows add up to 1, or to 0 for a cell that has none.
    """
    x, y = xy_um.T
    squared = (x[:, None] - x[None]) ** 2 + (y[:, None] - y[None]) ** 2
    epithelial = surround > EPITHELIAL * _usual(surround)
    found = []
    for deviation in NEIGHBOURHOODS_UM:
        weight = np.exp(-squared / (2 * deviation**2)) * epithelial[None]
        np.fill_diagonal(weight, 0)
        found.append((weight / (weight.sum(axis=1, keepdims=True) + 1e-6)).astype(np.float32))
    return found


def _usual(surround: Float32) -> np.float32:
    return np.float32(max(float(np.percentile(surround, 75)), 1e-3)) if len(surround) else np.float32(1)
