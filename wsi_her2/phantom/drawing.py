"""Amounts of dye in one region: what lies in the tissue before any light passes through it.

Neighbouring cells share a membrane: each cell is a distance field scaled by its own axes, a pixel belongs to
the nearest cell, and the membrane runs where the two nearest are equally far. Both cells stain it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_her2.phantom.cells import BARE, COLUMNAR, CellTable
from wsi_her2.phantom.noise import (
    ORIENTATIONS,
    STREAK_UNIT,
    Field,
    hash_uniform,
    streak_textures,
    tile,
    upsample,
    value_noise,
)
from wsi_her2.phantom.tissue import Layout, Tissue

_FieldOf = Callable[[NDArray[Any]], Field]

# Angular resolution of the staining along a membrane.
_BINS = 96
# Cells matter to their neighbours up to this scaled distance from their centre.
_REACH = 1.5
_FAR = np.float32(64.0)
_LARGEST_CELL_UM = 90.0


@dataclass(frozen=True)
class Planes:
    """Amounts of each absorber of a region, and what kind of cell covers each pixel.

    Attributes
    ----------
    hematoxylin, dab, eosin, neutral
        ``float32``, ``h x w``; optical density (log10) along the unit vector of the dye.
    body
        ``uint8``, ``h x w``; the `Tissue` of the cell body at the pixel, 0 where there is none.
    """

    hematoxylin: Field
    dab: Field
    eosin: Field
    neutral: Field
    body: NDArray[np.uint8]


@dataclass(frozen=True)
class TissueStyle:
    """Traits of the stroma and of unspecific staining that a slide has throughout.

    Attributes
    ----------
    stroma_stain
        Hematoxylin density of dense collagen.
    stroma_haze
        DAB density of stroma.
    nuclear_stain
        Hematoxylin density of an average nucleus.
    cytoplasm_stain
        Hematoxylin density of epithelial cytoplasm.
    looseness
        How far the fibres are apart: below 0 dense, above 0 loose.
    granularity
        Relative roughness of membrane DAB.
    apical
        Factor on the staining of membranes that face no other cell.
    edge_haze
        DAB added at the very edge of the tissue.
    specks_per_mm2
        Unspecific brown grains.
    """

    stroma_stain: float
    stroma_haze: float
    nuclear_stain: float
    cytoplasm_stain: float
    looseness: float
    granularity: float
    apical: float
    edge_haze: float
    specks_per_mm2: float


def draw_tissue_style(rng: np.random.Generator, edge_artefact: bool) -> TissueStyle:
    """Draw the traits of stroma and background of one slide.

    Parameters
    ----------
    rng
        The generator of the slide's cells.
    edge_artefact
        Dried edges, which stain brown.

    Returns
    -------
    TissueStyle
        Densities within the range seen on real slides.
    """
    return TissueStyle(
        stroma_stain=float(rng.uniform(0.08, 0.16)),
        stroma_haze=float(rng.choice([0.0, 0.004, 0.015], p=[0.5, 0.35, 0.15])),
        nuclear_stain=float(rng.uniform(0.30, 0.48)),
        cytoplasm_stain=float(rng.uniform(0.05, 0.14)),
        looseness=float(rng.uniform(-0.6, 0.5)),
        granularity=float(rng.uniform(0.2, 0.5)),
        apical=float(rng.uniform(0.35, 1.0)),
        edge_haze=float(rng.uniform(0.10, 0.25)) if edge_artefact else float(rng.uniform(0.0, 0.03)),
        specks_per_mm2=float(rng.choice([2.0, 15.0, 60.0], p=[0.6, 0.3, 0.1])),
    )


@dataclass(frozen=True)
class Window:
    """A region of level 0 in pixels, with the size of a pixel and the seed of the slide."""

    x: int
    y: int
    w: int
    h: int
    mpp: float
    seed: int

    def noise(self, scale_um: float, number: int) -> Field:
        """Smooth noise of a length scale in microns; `number` tells the fields of a slide apart."""
        scale_px = round(scale_um / self.mpp)
        return value_noise(self.x, self.y, self.w, self.h, scale_px, self.seed * 131 + number)


def draw_planes(window: Window, layout: Layout, cells: CellTable, style: TissueStyle) -> Planes:
    """Draw the dyes of one region.

    Parameters
    ----------
    window
        The region.
    layout
        The layout of the slide.
    cells
        All cells of the slide, or at least those within 90 um of the region.
    style
        Stroma and background of the slide.

    Returns
    -------
    Planes
        Densities; `hematoxylin` and `dab` are those of an IHC stain, `eosin` is used on H&E only.
    """
    here = _cells_near(window, cells)
    shape = (window.h, window.w)
    # Irregular outlines: everything is drawn in coordinates that are slightly bent.
    bend_x = 0.75 * window.noise(5.0, 1) + 0.14 * window.noise(1.75, 3)
    bend_y = 0.75 * window.noise(5.0, 2) + 0.14 * window.noise(1.75, 4)
    x_um = ((np.arange(window.w, dtype=np.float32) + np.float32(0.5)) * np.float32(window.mpp))[None, :]
    y_um = ((np.arange(window.h, dtype=np.float32) + np.float32(0.5)) * np.float32(window.mpp))[:, None]
    x_um, y_um = x_um + 0.6 * bend_x, y_um + 0.6 * bend_y
    fine, middle, coarse = window.noise(0.5, 5), window.noise(1.25, 6), window.noise(4.0, 7)

    def field(values: NDArray[Any]) -> Field:
        return _layout_window(values, layout, window)

    inside_tissue = _inside(field(layout.depth_um), coarse, window)
    depth = field(layout.depth_um)
    thickness = field(layout.thickness) * np.float32(1 / 128)
    hematoxylin, dab, eosin, neutral = (np.zeros(shape, np.float32) for _ in range(4))
    _draw_stroma(window, layout, style, field, fine, middle, coarse, hematoxylin, dab, eosin, neutral)

    bodies = here[here["shape"] != BARE]
    nearest, second, first_id, second_id = _nearest_cells(window, bodies, x_um, y_um)
    # Within a nest cells grow until they meet; at its border they are cut to the nest's outline.
    limit = np.float32(0.84) + np.float32(0.58) * field(layout.epithelium) * np.float32(1 / 255)
    limit += np.float32(0.03) * coarse + np.float32(0.02) * middle
    if len(bodies):
        fat_limit = np.float32(0.6) + np.float32(0.8 / 255) * field(layout.fat)
        np.copyto(limit, fat_limit, where=(bodies["kind"] == Tissue.FAT)[first_id] & (first_id >= 0))
    _draw_cytoplasm(
        bodies, first_id, nearest, limit, fine, middle, coarse, style, hematoxylin, dab, eosin, neutral
    )
    membrane = _membranes(bodies, nearest, second, first_id, second_id, limit, x_um, y_um, style)
    _draw_loose_matter(field, layout, fine, middle, coarse, hematoxylin, dab, eosin, neutral)
    _draw_nuclei(window, here, x_um, y_um, fine, middle, style, hematoxylin, dab, eosin, neutral)
    rough = np.clip(1 + style.granularity * (0.3 * fine + 0.6 * middle) + 0.32 * coarse, 0.2, 2.2)
    dab += membrane.dab * rough
    hematoxylin += membrane.outline * np.float32(0.03)
    eosin += membrane.outline * np.float32(0.12)
    fat = membrane.fat
    eosin += fat * np.float32(0.3)
    hematoxylin += fat * np.float32(0.07)
    dab += _specks(window, style)
    haze = np.float32(style.edge_haze) * np.exp(-np.maximum(depth, 0) / np.float32(22))
    dab += haze * np.clip(hematoxylin * 12, 0, 1)
    cover = inside_tissue * thickness
    # Sections are not evenly thick, nor evenly stained.
    uneven = cover * (1 + np.float32(0.06) * window.noise(160, 8))
    kinds = np.append(bodies["kind"], np.uint8(0)).astype(np.uint8)
    covered = (first_id >= 0) & (nearest < limit * limit) & (cover > 0.25)
    body = kinds[np.where(covered, first_id, len(bodies))]
    return Planes(hematoxylin * uneven, dab * uneven, eosin * uneven, neutral * cover, body)


def _cells_near(window: Window, cells: CellTable) -> CellTable:
    """The cells that can reach into the region, with positions relative to its corner."""
    x0, y0 = window.x * window.mpp, window.y * window.mpp
    x1, y1 = x0 + window.w * window.mpp, y0 + window.h * window.mpp
    reach = np.where(cells["kind"] == Tissue.FAT, np.float32(_LARGEST_CELL_UM), np.float32(48))
    near = (
        (cells["x_um"] > x0 - reach)
        & (cells["x_um"] < x1 + reach)
        & (cells["y_um"] > y0 - reach)
        & (cells["y_um"] < y1 + reach)
    )
    here = cells[near]
    for name in ("x_um", "nucleus_x_um"):
        here[name] = (here[name].astype(np.float64) - x0).astype(np.float32)
    for name in ("y_um", "nucleus_y_um"):
        here[name] = (here[name].astype(np.float64) - y0).astype(np.float32)
    return here


def _layout_window(values: NDArray[Any], layout: Layout, window: Window) -> Field:
    """One layout field enlarged to the pixels of the region."""
    pitch = layout.pitch_px
    i0, j0 = window.y // pitch - 2, window.x // pitch - 2
    i1, j1 = (window.y + window.h - 1) // pitch + 3, (window.x + window.w - 1) // pitch + 3
    rows = np.clip(np.arange(i0, i1), 0, values.shape[0] - 1)
    columns = np.clip(np.arange(j0, j1), 0, values.shape[1] - 1)
    lattice = values[np.ix_(rows, columns)].astype(np.float32)
    return upsample(lattice, pitch, window.x - j0 * pitch, window.y - i0 * pitch, window.w, window.h, False)


def _inside(depth: Field, coarse: Field, window: Window) -> Field:
    """1 inside the tissue, 0 outside, with a frayed edge."""
    frayed = depth + np.float32(1.6) * coarse + np.float32(0.7) * window.noise(1.5, 9)
    inside: Field = np.clip(frayed * np.float32(0.8) + np.float32(0.5), 0, 1)
    return inside


def _draw_stroma(
    window: Window,
    layout: Layout,
    style: TissueStyle,
    field: _FieldOf,
    fine: Field,
    middle: Field,
    coarse: Field,
    hematoxylin: Field,
    dab: Field,
    eosin: Field,
    neutral: Field,
) -> None:
    """Collagen: wavy fibres along the local direction, dense or loose."""
    weight = field(layout.stroma) * np.float32(1 / 255)
    if not weight.any():
        return
    cos2 = field(layout.fibre_cos) * np.float32(1 / 127)
    sin2 = field(layout.fibre_sin) * np.float32(1 / 127)
    textures = streak_textures(1.6 / window.mpp, 26.0 / window.mpp, 7)
    fibres, total = np.zeros_like(weight), np.full_like(weight, 1e-3)
    wave_x = (1.5 / window.mpp) * window.noise(11.0, 10)
    wave_y = (1.5 / window.mpp) * window.noise(11.0, 11)
    margin = 64
    columns = np.arange(window.w, dtype=np.float32)[None, :] + np.float32(margin)
    rows = np.arange(window.h, dtype=np.float32)[:, None] + np.float32(margin)
    map_xy, map_part = cv2.convertMaps(columns + wave_x, rows + wave_y, cv2.CV_16SC2)
    offset = (window.seed * 97) % 1024
    for k in range(ORIENTATIONS):
        angle = 2 * np.pi * k / ORIENTATIONS
        share = cos2 * np.float32(np.cos(angle)) + sin2 * np.float32(np.sin(angle))
        np.maximum(share, 0, out=share)
        share *= share
        share *= share
        if share.max() < 0.05:
            continue
        piece = tile(
            textures[k],
            window.x - margin + offset,
            window.y - margin,
            window.w + 2 * margin,
            window.h + 2 * margin,
        )
        bent = cv2.remap(piece, map_xy, map_part, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        fibres += share * (bent.astype(np.float32) - np.float32(128))
        total += share * share
    fibres *= np.float32(1 / STREAK_UNIT)
    fibres /= np.sqrt(total)
    loose = field(layout.loose) * np.float32(1 / 255) - np.float32(0.5) + np.float32(0.4 * style.looseness)
    spread = np.float32(0.35) * window.noise(7.0, 12) + np.float32(0.2) * coarse
    # Where it is loose only the fibres themselves remain, with empty ground between them.
    gap = np.clip(1.9 * loose + spread - np.float32(0.42) * fibres, 0, 1)
    # Froth: small round holes between the fibres, with a thin wall around each.
    bubble = 0.8 * window.noise(3.5, 14) + 0.7 * window.noise(7.0, 15) + 1.2 * loose
    hole = np.clip((bubble - np.float32(1.25)) * 4, 0, 1)
    wall = np.exp(-(((bubble - np.float32(1.15)) * 5) ** 2))
    rough = 0.16 * coarse + 0.16 * middle + 0.16 * fine + 0.35 * wall
    density = np.clip(0.66 + 0.24 * fibres + rough, 0.08, 2.4) * (1 - gap) * (1 - 0.9 * hole) * weight
    neutral += np.float32(0.24 * style.stroma_stain) * density
    hematoxylin += np.float32(style.stroma_stain) * density
    dab += np.float32(style.stroma_haze) * density
    eosin += np.float32(0.34) * density


def _nearest_cells(
    window: Window, bodies: CellTable, x_um: Field, y_um: Field
) -> tuple[Field, Field, NDArray[np.int32], NDArray[np.int32]]:
    """Squared scaled distance to the nearest and second-nearest cell of each pixel, and which they are."""
    shape = x_um.shape
    nearest, second = np.full(shape, _FAR), np.full(shape, _FAR)
    first_id, second_id = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    cos, sin = np.cos(bodies["angle"]), np.sin(bodies["angle"])
    long, short = bodies["long_um"], bodies["short_um"]
    columnar = bodies["shape"] == COLUMNAR
    half_w = np.where(columnar, np.abs(long * cos) + np.abs(short * sin), np.hypot(long * cos, short * sin))
    half_h = np.where(columnar, np.abs(long * sin) + np.abs(short * cos), np.hypot(long * sin, short * cos))
    slack = 2.0
    boxes = _boxes(bodies["x_um"], bodies["y_um"], half_w * _REACH + slack, half_h * _REACH + slack, window)
    scaled = np.stack([cos / long, sin / long, -sin / short, cos / short], -1)
    for k in np.flatnonzero((boxes[:, 1] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 2])):
        x0, x1, y0, y1 = boxes[k]
        box = np.s_[y0:y1, x0:x1]
        dx, dy = x_um[box] - bodies["x_um"][k], y_um[box] - bodies["y_um"][k]
        cx, sx, cy, sy = scaled[k]
        u = dx * cx
        u += dy * sx
        v = dx * cy
        v += dy * sy
        u *= u
        v *= v
        if columnar[k]:
            u *= u
            v *= v
            u += v
            distance = np.sqrt(u, out=u)
        else:
            u += v
            distance = u
        n, s, i, j = nearest[box], second[box], first_id[box], second_id[box]
        closer = distance < n
        np.copyto(j, k, where=distance < s)
        np.copyto(j, i, where=closer)
        np.copyto(i, k, where=closer)
        np.minimum(s, np.maximum(distance, n), out=s)
        np.minimum(n, distance, out=n)
    return nearest, second, first_id, second_id


def _boxes(x: Field, y: Field, half_w: Field, half_h: Field, window: Window) -> NDArray[np.int64]:
    """Pixel boxes (x0, x1, y0, y1) around places in microns, cut to the window."""
    edges = np.stack([x - half_w, x + half_w, y - half_h, y + half_h], -1) / window.mpp
    edges = np.floor(edges).astype(np.int64) + np.array([0, 1, 0, 1])
    edges[:, :2] = np.clip(edges[:, :2], 0, window.w)
    edges[:, 2:] = np.clip(edges[:, 2:], 0, window.h)
    boxes: NDArray[np.int64] = edges
    return boxes


def _draw_cytoplasm(
    bodies: CellTable,
    first_id: NDArray[np.int32],
    nearest: Field,
    limit: Field,
    fine: Field,
    middle: Field,
    coarse: Field,
    style: TissueStyle,
    hematoxylin: Field,
    dab: Field,
    eosin: Field,
    neutral: Field,
) -> None:
    if len(bodies) == 0:
        return
    beyond = limit - np.sqrt(nearest)
    epithelial = (beyond > 0) & (first_id >= 0)
    full = np.append(bodies["kind"] != Tissue.FAT, False).astype(np.float32)
    tint = full * np.append(0.75 + 0.5 * hash_uniform(bodies["key"].astype(np.int64), np.int64(1), 3), 0)
    blush = np.append(bodies["blush"], 0).astype(np.float32)
    who = np.where(epithelial, first_id, len(bodies))
    edge = np.clip(beyond * 10, 0, 1)
    body = tint.astype(np.float32)[who] * edge
    # Vacuoles and organelles: cytoplasm is mottled rather than grainy.
    grain = np.clip(1 + 0.14 * fine + 0.2 * middle + 0.12 * coarse, 0.1, 2)
    ground = 1 - full[who] * edge
    # A cell displaces the stroma beneath it; fat leaves nothing but its wall.
    ground *= 1 - (epithelial & (full[who] == 0)).astype(np.float32)
    hematoxylin *= ground
    dab *= ground
    eosin *= ground
    neutral *= ground
    # Unstained protein scatters a little light of every colour.
    neutral += np.float32(0.16 * style.cytoplasm_stain) * body * grain
    hematoxylin += np.float32(style.cytoplasm_stain) * body * grain
    eosin += np.float32(0.3) * body * grain
    dab += blush[who] * edge * np.clip(1 + 0.16 * fine + 0.28 * middle + 0.16 * coarse, 0.05, 2.5)


@dataclass(frozen=True)
class _Membranes:
    dab: Field
    outline: Field
    fat: Field


def _stain_along(bodies: CellTable) -> Field:
    """DAB along each membrane, cells x angles: stained arcs that add up to the cell's completeness."""
    count = len(bodies)
    angle = np.arange(_BINS, dtype=np.float32) * np.float32(2 * np.pi / _BINS)
    key = bodies["key"].astype(np.int64)
    wave = np.zeros((count, _BINS), np.float32)
    level = np.zeros((count, _BINS), np.float32)
    for k in range(1, 7):
        phase = np.float32(2 * np.pi) * hash_uniform(key, np.int64(k), 11)
        size = hash_uniform(key, np.int64(k), 12) / np.float32(np.sqrt(k))
        wave += size[:, None] * np.cos(k * angle[None, :] + phase[:, None])
        if k > 1:
            level += size[:, None] * np.sin(k * angle[None, :] - phase[:, None])
    ranks = np.argsort(np.argsort(-wave, axis=1, kind="stable"), axis=1, kind="stable")
    stained = ranks < np.round(bodies["completeness"] * _BINS)[:, None]
    level = np.clip(1 + 0.42 * level, 0.45, 1.45)
    stain: Field = np.where(stained, level, 0) * bodies["intensity"][:, None]
    return stain


def _membranes(
    bodies: CellTable,
    nearest: Field,
    second: Field,
    first_id: NDArray[np.int32],
    second_id: NDArray[np.int32],
    limit: Field,
    x_um: Field,
    y_um: Field,
    style: TissueStyle,
) -> _Membranes:
    """DAB and outlines of all membranes of the region."""
    shape = nearest.shape
    planes = [np.zeros(shape, np.float32) for _ in range(3)]
    if len(bodies) == 0:
        return _Membranes(*planes)
    d1 = np.sqrt(nearest)
    d2 = np.sqrt(second)
    close = np.flatnonzero(((d2 - d1 < 0.62) | (d1 > limit - 0.45)) & (d1 < limit + 0.05))
    if close.size == 0:
        return _Membranes(*planes)
    near, far = first_id.ravel()[close], second_id.ravel()[close]
    x, y = x_um.ravel()[close], y_um.ravel()[close]
    d1, d2 = d1.ravel()[close], d2.ravel()[close]
    one, other = _polar(bodies, near, x, y), _polar(bodies, np.maximum(far, 0), x, y)
    slope = np.hypot(one[0] - other[0], one[1] - other[1])
    shared = np.where(far >= 0, (d2 - d1) / np.maximum(slope, 0.02), np.float32(50))
    # The limit falls towards the outside of a nest as the distance grows, which narrows the rim.
    room = limit.ravel()[close] - d1
    free = room / (np.hypot(one[0], one[1]) + np.float32(0.07))
    stain = _stain_along(bodies)
    width = bodies["membrane_um"]
    own, theirs = stain[near, one[2]], np.where(far >= 0, stain[np.maximum(far, 0), other[2]], 0)
    fat = bodies["kind"] == Tissue.FAT
    half_life = np.float32(np.log(2))
    mean_width = 0.5 * (width[near] + width[np.maximum(far, 0)])
    line = np.exp(-half_life * (shared / mean_width) ** 2)
    rim = np.exp(-half_life * ((free - 0.4 * width[near]) / width[near]) ** 2)
    inside = np.clip(room * 20 + 0.8, 0, 1)
    # Some of the dye spreads into the cytoplasm beside the membrane.
    spread = np.exp(-half_life * (shared / (3.2 * mean_width)) ** 2)
    between = 0.5 * (own + theirs) * (0.86 * line + 0.14 * spread)
    # Only the columnar cells have an apex; the free side of others stains like the rest.
    along = one[3]
    apex = np.where((bodies["shape"][near] == COLUMNAR) & (along > 0.6), np.float32(style.apical), 1)
    outer = 0.65 * own * rim * apex
    dab = np.maximum(between * inside, outer * inside)
    outline = np.maximum(line, 0.6 * rim) * inside
    is_fat = fat[near]
    wall = np.exp(-half_life * (np.minimum(shared, np.maximum(free, 0)) / 0.7) ** 2) * is_fat
    planes[0].ravel()[close] = np.where(is_fat, 0, dab)
    planes[1].ravel()[close] = np.where(is_fat, 0, outline)
    planes[2].ravel()[close] = wall * np.clip(room * 12 + 1, 0, 1)
    return _Membranes(*planes)


def _polar(
    bodies: CellTable, who: NDArray[np.int32], x: Field, y: Field
) -> tuple[Field, Field, NDArray[np.int64], Field]:
    """Gradient of the scaled distance to a cell, angular bin seen from it and place along its axis."""
    cos, sin = np.cos(bodies["angle"]), np.sin(bodies["angle"])
    long, short = bodies["long_um"], bodies["short_um"]
    cx, sx, cy, sy = (cos / long)[who], (sin / long)[who], (-sin / short)[who], (cos / short)[who]
    dx, dy = x - bodies["x_um"][who], y - bodies["y_um"][who]
    u, v = dx * cx + dy * sx, dx * cy + dy * sy
    angle = np.arctan2(v, u)
    bins = ((angle * np.float32(_BINS / (2 * np.pi))).astype(np.int64)) % _BINS
    columnar = (bodies["shape"] == COLUMNAR)[who]
    uu, vv = u * u, v * v
    square = np.where(columnar, np.sqrt(uu * uu + vv * vv), uu + vv) + np.float32(1e-6)
    norm = np.sqrt(square)
    pu = np.where(columnar, u * uu / square, u) / norm
    pv = np.where(columnar, v * vv / square, v) / norm
    return pu * cx + pv * cy, pu * sx + pv * sy, bins, u


def _draw_loose_matter(
    field: _FieldOf,
    layout: Layout,
    fine: Field,
    middle: Field,
    coarse: Field,
    hematoxylin: Field,
    dab: Field,
    eosin: Field,
    neutral: Field,
) -> None:
    """Necrotic debris and the secretion in lumens."""
    if layout.necrosis.any():
        dead = field(layout.necrosis) * np.float32(1 / 255)
        grain = dead * np.clip(0.8 + 0.5 * coarse + 0.4 * middle + 0.2 * fine, 0, 3)
        hematoxylin += np.float32(0.06) * grain
        dab += np.float32(0.05) * grain
        eosin += np.float32(0.4) * grain
    if layout.secretion.any():
        fluid = field(layout.secretion) * np.float32(1 / 255)
        strands = fluid * np.clip(0.25 + 0.5 * coarse + 0.35 * middle + 0.3 * fine, 0, 2)
        hematoxylin += np.float32(0.035) * strands
        neutral += np.float32(0.01) * strands
        eosin += np.float32(0.25) * strands
        dab += np.float32(0.01) * strands


def _draw_nuclei(
    window: Window,
    here: CellTable,
    x_um: Field,
    y_um: Field,
    fine: Field,
    middle: Field,
    style: TissueStyle,
    hematoxylin: Field,
    dab: Field,
    eosin: Field,
    neutral: Field,
) -> None:
    """Nuclei with rim, chromatin and nucleoli, and red blood cells, which are drawn like them."""
    nuclei = here[here["nucleus_long_um"] > 0]
    if len(nuclei) == 0:
        return
    shape = x_um.shape
    scaled, who, spots = np.full(shape, _FAR), np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
    cos, sin = np.cos(nuclei["nucleus_angle"]), np.sin(nuclei["nucleus_angle"])
    long, short = nuclei["nucleus_long_um"], nuclei["nucleus_short_um"]
    reach = 1.35
    boxes = _boxes(
        nuclei["nucleus_x_um"],
        nuclei["nucleus_y_um"],
        np.hypot(long * cos, short * sin) * reach + 1.5,
        np.hypot(long * sin, short * cos) * reach + 1.5,
        window,
    )
    factors = np.stack([cos / long, sin / long, -sin / short, cos / short], -1)
    key = nuclei["key"].astype(np.int64)
    place = np.stack([hash_uniform(key, np.int64(k), 21) for k in range(8)], -1) - np.float32(0.5)
    for k in np.flatnonzero((boxes[:, 1] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 2])):
        x0, x1, y0, y1 = boxes[k]
        box = np.s_[y0:y1, x0:x1]
        dx, dy = x_um[box] - nuclei["nucleus_x_um"][k], y_um[box] - nuclei["nucleus_y_um"][k]
        cx, sx, cy, sy = factors[k]
        u = dx * cx
        u += dy * sx
        v = dx * cy
        v += dy * sy
        # An egg rather than an ellipse: one end is blunter than the other.
        distance = u * u
        v *= 1 + np.float32(0.5) * place[k, 7] * u
        distance += v * v
        near = scaled[box]
        np.copyto(who[box], k, where=distance < near)
        np.minimum(near, distance, out=near)
        for n in range(int(nuclei["nucleoli"][k])):
            nx, ny = 0.9 * long[k] * place[k, 2 * n], 0.9 * short[k] * place[k, 2 * n + 1]
            radius = 0.55 + 0.5 * (place[k, 6] + 0.5) - 0.12 * n
            px = nuclei["nucleus_x_um"][k] + nx * cos[k] - ny * sin[k]
            py = nuclei["nucleus_y_um"][k] + nx * sin[k] + ny * cos[k]
            _add_spot(spots, float(px), float(py), float(radius), window)
    inside = np.flatnonzero((scaled < 1.7) & (who >= 0))
    if inside.size == 0:
        return
    who_in = who.ravel()[inside]
    size = np.sqrt(long * short)[who_in]
    edge = (1 - np.sqrt(scaled.ravel()[inside])) * size
    blur = nuclei["nucleus_blur_um"][who_in]
    alpha = np.clip(0.5 + edge / (2 * blur), 0, 1)
    dense = nuclei["chromatin"][who_in]
    rim = np.exp(-(((edge - 0.45) / (0.3 + 0.5 * blur)) ** 2))
    texture = (0.15 - 0.06 * dense) * middle.ravel()[inside] + 0.14 * fine.ravel()[inside]
    clumps = window.noise(0.9, 13).ravel()[inside]
    texture += 0.17 * clumps + 0.26 * np.maximum(clumps - 0.9, 0)
    amount = 0.56 + 0.56 * dense + (0.62 - 0.3 * dense) * rim + texture * (0.35 / np.maximum(blur, 0.35))
    amount += 1.4 * spots.ravel()[inside] * (0.35 / np.maximum(blur, 0.35))
    amount = alpha * np.clip(amount, 0.12, 3) * nuclei["nucleus_stain"][who_in] * np.float32(style.nuclear_stain)
    blood = nuclei["kind"][who_in] == Tissue.BLOOD
    below = 1 - np.float32(0.75) * alpha
    flat_h, flat_e = hematoxylin.ravel(), eosin.ravel()
    flat_d, flat_n = dab.ravel(), neutral.ravel()
    flat_h[inside] = flat_h[inside] * below + np.where(blood, 0, amount)
    flat_e[inside] = flat_e[inside] * below + np.where(blood, 0.75 * alpha, 0.12 * alpha)
    flat_d[inside] = flat_d[inside] * (1 - np.float32(0.6) * alpha) + np.where(blood, 0.05 * alpha, 0)
    # Red cells refract: a dark edge around a clear yellowish middle.
    flat_n[inside] += np.where(blood, alpha * (0.05 + 0.28 * rim), 0)


def _add_spot(plane: Field, x: float, y: float, radius: float, window: Window) -> None:
    """Add a soft round spot, places and radius in microns, window coordinates."""
    reach = 2.2 * radius
    x0, x1 = max(0, int((x - reach) / window.mpp)), min(window.w, int((x + reach) / window.mpp) + 2)
    y0, y1 = max(0, int((y - reach) / window.mpp)), min(window.h, int((y + reach) / window.mpp) + 2)
    if x1 <= x0 or y1 <= y0:
        return
    dx = (np.arange(x0, x1, dtype=np.float32) + np.float32(0.5)) * np.float32(window.mpp) - np.float32(x)
    dy = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5)) * np.float32(window.mpp) - np.float32(y)
    scale = np.float32(-1.4 / radius**2)
    plane[y0:y1, x0:x1] += np.exp(dy * dy * scale)[:, None] * np.exp(dx * dx * scale)[None, :]


def _specks(window: Window, style: TissueStyle) -> Field:
    """Unspecific brown grains, scattered over the slide by a hash of a coarse lattice."""
    plane = np.zeros((window.h, window.w), np.float32)
    step_um = 40.0
    step = step_um / window.mpp
    i = np.arange(int(window.y // step) - 1, int((window.y + window.h) // step) + 2, dtype=np.int64)[:, None]
    j = np.arange(int(window.x // step) - 1, int((window.x + window.w) // step) + 2, dtype=np.int64)[None, :]
    seed = window.seed * 131 + 50
    hit = hash_uniform(j, i, seed) < style.specks_per_mm2 * (step_um / 1000) ** 2
    for row, column in np.argwhere(hit):
        at_i, at_j = i[row], j[0, column : column + 1]
        fx, fy, size, dark = (float(hash_uniform(at_j, at_i, seed + n)[0]) for n in range(1, 5))
        x = (float(at_j[0]) + fx) * step_um - window.x * window.mpp
        y = (float(at_i[0]) + fy) * step_um - window.y * window.mpp
        _add_spot(plane, x, y, 0.4 + 1.6 * size**3, window)
        if dark > 0.5:
            _add_spot(plane, x + 1.1, y + 0.6, 0.4 + 0.8 * size, window)
    return np.float32(0.45) * plane
