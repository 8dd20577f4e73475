"""The cells of a slide: where they lie, how large they are, and how much HER2 their membranes carry.

All cells of a slide stand in one table, drawn before any pixel, so the truth is a property of the table and
each region of the slide draws the rows that reach into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_her2.phantom.composition import PhantomSpec
from wsi_her2.phantom.noise import Field, gaussian_field
from wsi_her2.phantom.tissue import Architecture, Compartment, Tissue, contours_at, depth_inside

Mask = NDArray[np.bool_]
CellTable = NDArray[np.void]

# Body shapes: a nucleus alone, a rounded cell, a columnar cell with flat ends.
BARE, ROUND, COLUMNAR = 0, 1, 2

# A membrane counts as completely stained from this share of its circumference on.
COMPLETE_FROM = 0.9

CELL_DTYPE = np.dtype(
    [
        ("x_um", "f4"),
        ("y_um", "f4"),
        ("kind", "u1"),
        ("shape", "u1"),
        # Half axes of the body and the angle of the first one, x towards y.
        ("long_um", "f4"),
        ("short_um", "f4"),
        ("angle", "f4"),
        ("nucleus_x_um", "f4"),
        ("nucleus_y_um", "f4"),
        ("nucleus_long_um", "f4"),
        ("nucleus_short_um", "f4"),
        ("nucleus_angle", "f4"),
        # Hematoxylin relative to the slide's; chromatin from 0, pale and empty, to 1, dense; edge blur.
        ("nucleus_stain", "f4"),
        ("chromatin", "f4"),
        ("nucleus_blur_um", "f4"),
        ("nucleoli", "u1"),
        # HER2 class 0 to 3, or -1 for cells that have none.
        ("her2", "i1"),
        ("intensity", "f4"),
        ("completeness", "f4"),
        ("membrane_um", "f4"),
        ("blush", "f4"),
        ("key", "u4"),
    ]
)


@dataclass(frozen=True)
class CellStyle:
    """Traits that the cells of one tumour share.

    Attributes
    ----------
    spacing_um
        Distance of neighbouring cells of solid nests.
    column_um
        Width of columnar cells.
    nucleus_share
        Radius of the nucleus as a share of the cell's diameter.
    pleomorphism
        Spread (log) of nuclear size.
    chromatin
        Mean density of the chromatin, 0 vesicular to 1 dense.
    nucleoli
        Mean number of visible nucleoli.
    fibroblasts_per_mm2, lymphocytes_per_mm2
        Density of stromal nuclei.
    blush
        Mean DAB density of the cytoplasm, whatever the class.
    membrane_gain
        Factor on the DAB of every membrane of the slide.
    """

    spacing_um: float
    column_um: float
    nucleus_share: float
    pleomorphism: float
    chromatin: float
    nucleoli: float
    fibroblasts_per_mm2: float
    lymphocytes_per_mm2: float
    blush: float
    membrane_gain: float


def draw_style(rng: np.random.Generator) -> CellStyle:
    """Draw the traits of one tumour within the ranges met in breast cancer.

    Parameters
    ----------
    rng
        The generator of the slide's cells.

    Returns
    -------
    CellStyle
        Cells of 9.5 to 14 um, nuclear radii of 0.26 to 0.34 of the cell's diameter.
    """
    # A quarter of the slides shows a marked brown haze of the cytoplasm, whatever the class.
    blush = float(rng.uniform(0.04, 0.14)) if rng.random() < 0.25 else float(rng.uniform(0.0, 0.022))
    return CellStyle(
        spacing_um=float(rng.uniform(9.5, 14.0)),
        column_um=float(rng.uniform(6.4, 9.6)),
        nucleus_share=float(rng.uniform(0.26, 0.34)),
        pleomorphism=float(rng.uniform(0.08, 0.24)),
        chromatin=float(rng.uniform(0.15, 0.75)),
        nucleoli=float(rng.uniform(0.3, 1.6)),
        fibroblasts_per_mm2=float(rng.uniform(1000, 2600)),
        lymphocytes_per_mm2=float(np.clip(rng.lognormal(np.log(500), 0.9), 60, 3500)),
        blush=blush,
        membrane_gain=float(np.clip(rng.lognormal(0.0, 0.2), 0.6, 1.5)),
    )


def place_cells(
    spec: PhantomSpec, architecture: Architecture, style: CellStyle, rng: np.random.Generator
) -> CellTable:
    """Fill the tissue with cells and give the epithelial ones a HER2 class.

    Parameters
    ----------
    spec
        The slide asked for.
    architecture
        Its layout and compartments.
    style
        Traits of the tumour.
    rng
        The generator of the slide's cells.

    Returns
    -------
    numpy.ndarray
        Structured, of `CELL_DTYPE`, one row per cell.
    """
    parts: list[CellTable] = []
    tilt = 1.2 * gaussian_field(rng, architecture.tissue.shape, 45 / architecture.layout.pitch_um)
    for compartment in architecture.compartments:
        parts.extend(_epithelium(compartment, architecture, style, tilt, rng))
    for line in architecture.cords:
        parts.append(_along(line, 0.0, 11.5, 6.6, Tissue.INVASIVE, architecture, style, rng, cord=True))
    parts.append(_fat_cells(architecture, rng))
    parts.append(_stroma_cells(architecture, style, rng))
    parts.append(_vessel_cells(architecture, rng))
    parts.append(_debris(architecture, rng))
    parts.extend(_controls(architecture, rng))
    cells = np.concatenate([part for part in parts if len(part)] or [_blank(0, Tissue.STROMA)])
    cells["key"] = rng.integers(0, 2**32, len(cells), dtype=np.uint32)
    inside = (
        (cells["x_um"] >= 0)
        & (cells["y_um"] >= 0)
        & (cells["x_um"] < spec.width_px * spec.mpp)
        & (cells["y_um"] < spec.height_px * spec.mpp)
    )
    cells = cells[inside]
    _assign_her2(spec, architecture, cells, style, rng)
    return cells


def largest_remainder(total: int, shares: Sequence[float]) -> NDArray[np.int64]:
    """Split a whole number into parts as close to the given shares as whole numbers can be.

    Parameters
    ----------
    total
        The number to split.
    shares
        Shares adding up to 1.

    Returns
    -------
    numpy.ndarray
        ``int64``, one part per share; each is within 1 of ``total * share``.
    """
    exact = np.asarray(shares, np.float64) * total
    parts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - parts), kind="stable")
    parts[order[: total - int(parts.sum())]] += 1
    return parts


def _blank(count: int, kind: Tissue) -> CellTable:
    cells = np.zeros(count, CELL_DTYPE)
    cells["kind"] = int(kind)
    cells["her2"] = -1
    cells["nucleus_stain"] = 1
    cells["nucleus_blur_um"] = 0.3
    return cells


def _sample(field: NDArray[Any], x_um: Field, y_um: Field, pitch: float) -> NDArray[Any]:
    """Values of a layout field at places in microns."""
    i = np.clip((y_um / pitch).astype(np.int64), 0, field.shape[0] - 1)
    j = np.clip((x_um / pitch).astype(np.int64), 0, field.shape[1] - 1)
    return field[i, j]


def _nuclei(cells: CellTable, style: CellStyle, rng: np.random.Generator, share: float = 1.0) -> None:
    """Give epithelial cells a nucleus that fits their body."""
    count = len(cells)
    size = np.exp(style.pleomorphism * rng.standard_normal(count))
    # Bodies are drawn a little larger than their share of the tissue, so that they meet.
    round_radius = 2 * style.nucleus_share * np.sqrt(cells["long_um"] * cells["short_um"]) / 1.28
    columnar = cells["shape"] == COLUMNAR
    short = np.where(columnar, cells["short_um"] * rng.uniform(0.52, 0.76, count), round_radius * size)
    stretch = np.where(columnar, rng.uniform(1.35, 2.6, count), 1 + np.abs(0.22 * rng.standard_normal(count)))
    short = short * share / np.where(columnar, 1.0, np.sqrt(stretch))
    long = short * stretch
    # A nucleus stays within its cell, and a very large one would reach over the neighbours.
    cells["nucleus_long_um"] = np.clip(long, 2.2, np.minimum(0.86 * cells["long_um"], 7.5))
    cells["nucleus_short_um"] = np.clip(short, 1.8, np.minimum(0.86 * cells["short_um"], 5.2))
    cells["nucleus_angle"] = cells["angle"] + np.where(columnar, 0.08, 0.7) * rng.standard_normal(count)
    slack = np.maximum(cells["long_um"] - cells["nucleus_long_um"], 0)
    along = np.where(columnar, np.clip(0.45 * rng.standard_normal(count) - 0.15, -0.85, 0.85), 0.0) * slack
    side = 0.08 * cells["short_um"]
    cells["nucleus_x_um"] = cells["x_um"] + along * np.cos(cells["angle"]) + side * rng.standard_normal(count)
    cells["nucleus_y_um"] = cells["y_um"] + along * np.sin(cells["angle"]) + side * rng.standard_normal(count)
    cells["nucleus_stain"] = np.exp(0.22 * rng.standard_normal(count))
    cells["chromatin"] = np.clip(style.chromatin + 0.2 * rng.standard_normal(count), 0, 1)
    cells["nucleoli"] = np.minimum(rng.poisson(style.nucleoli, count), 3)
    # A section of 4 um holds nuclei above and below the focal plane.
    cells["nucleus_blur_um"] = rng.choice([0.22, 0.35, 0.6, 1.0], count, p=[0.4, 0.3, 0.2, 0.1])
    # Nuclei that the section only grazes are pale, dying ones small and dark.
    grazed = rng.random(count) < 0.10
    cells["nucleus_stain"][grazed] *= 0.45
    dying = rng.random(count) < 0.02
    cells["nucleus_stain"][dying] *= 2.0
    cells["chromatin"][dying] = 1
    cells["nucleus_long_um"][dying] *= 0.75
    cells["nucleus_short_um"][dying] *= 0.6


def _epithelium(
    part: Compartment, architecture: Architecture, style: CellStyle, tilt: Field, rng: np.random.Generator
) -> list[CellTable]:
    pitch = architecture.layout.pitch_um
    found: list[CellTable] = []
    if not part.mask.any():
        return found
    depth = cv2.GaussianBlur(depth_inside(part.mask, pitch), (0, 0), 1.0)
    covered = np.zeros(part.mask.shape, np.uint8)
    normal = part.kind == Tissue.NORMAL_DUCT
    if part.wall_um:
        height = part.wall_um / part.rows
        spacing = 7.5 if normal else style.column_um * (1.0 if part.rows == 1 else 1.15)
        for row in range(part.rows):
            for line in contours_at(depth, height * (row + 0.5)):
                found.append(_along(line, height, spacing, 0.0, part.kind, architecture, style, rng, depth))
        for row_cells in found:
            for x, y in zip(row_cells["x_um"] / pitch - 0.5, row_cells["y_um"] / pitch - 0.5, strict=True):
                cv2.circle(covered, (round(float(x)), round(float(y))), max(1, round(8.5 / pitch)), 1, -1)
    spacing = style.spacing_um * (1.05 if part.kind == Tissue.IN_SITU else 1.0)
    free = part.mask & ~part.lumen & (covered == 0)
    if not normal:
        free &= depth > 0.25 * spacing
        found.append(_lattice(free, spacing, part.kind, pitch, tilt, style, rng))
    if part.kind in (Tissue.IN_SITU, Tissue.NORMAL_DUCT):
        for line in contours_at(depth, 0.8):
            flat = _along(line, 3.0, 13.0, 0.0, Tissue.MYOEPITHELIUM, architecture, style, rng)
            flat["shape"] = BARE
            flat["nucleus_angle"] = flat["angle"] + np.pi / 2
            flat["nucleus_long_um"] = rng.uniform(2.8, 4.8, len(flat))
            flat["nucleus_short_um"] = rng.uniform(1.1, 1.7, len(flat))
            flat["nucleus_x_um"], flat["nucleus_y_um"] = flat["x_um"], flat["y_um"]
            found.append(flat)
    return found


def _along(
    line: Field,
    height_um: float,
    spacing_um: float,
    radius_um: float,
    kind: Tissue,
    architecture: Architecture,
    style: CellStyle,
    rng: np.random.Generator,
    depth: Field | None = None,
    *,
    cord: bool = False,
) -> CellTable:
    """Cells side by side along a line: columnar across it, or a single file of round ones."""
    pitch = architecture.layout.pitch_um
    steps = np.hypot(*np.diff(line, axis=0).T) * pitch
    arc = np.concatenate([[0.0], np.cumsum(steps)])
    count = int(arc[-1] / spacing_um)
    if count < 2:
        return _blank(0, kind)
    gaps = np.exp(0.2 * rng.standard_normal(count))
    at = np.cumsum(gaps) - gaps / 2
    at *= arc[-1] / (at[-1] + gaps[-1] / 2)
    x = np.interp(at, arc, line[:, 0])
    y = np.interp(at, arc, line[:, 1])
    ahead, behind = np.minimum(at + 4, arc[-1]), np.maximum(at - 4, 0)
    tx = np.interp(ahead, arc, line[:, 0]) - np.interp(behind, arc, line[:, 0])
    ty = np.interp(ahead, arc, line[:, 1]) - np.interp(behind, arc, line[:, 1])
    cells = _blank(count, kind)
    width = gaps * arc[-1] / gaps.sum()
    if cord:
        cells["shape"] = ROUND
        cells["angle"] = np.arctan2(ty, tx)
        cells["long_um"] = width * 0.58
        cells["short_um"] = radius_um * np.exp(0.12 * rng.standard_normal(count))
    else:
        cells["shape"] = COLUMNAR
        angle = np.arctan2(tx, -ty)
        if depth is not None:
            # The first axis points to the lumen, so that nuclei lean to the base and apices can differ.
            i, j = np.round(y).astype(int), np.round(x).astype(int)
            di, dj = (
                np.round(y + 1.5 * np.sin(angle)).astype(int),
                np.round(x + 1.5 * np.cos(angle)).astype(int),
            )
            rows, columns = depth.shape
            inner = depth[np.clip(di, 0, rows - 1), np.clip(dj, 0, columns - 1)]
            angle = np.where(
                inner < depth[np.clip(i, 0, rows - 1), np.clip(j, 0, columns - 1)], angle + np.pi, angle
            )
        cells["angle"] = angle + 0.08 * rng.standard_normal(count)
        cells["long_um"] = 0.56 * height_um * np.exp(0.1 * rng.standard_normal(count))
        cells["short_um"] = width * 0.6
    cells["x_um"] = (x + 0.5) * pitch + 0.35 * rng.standard_normal(count)
    cells["y_um"] = (y + 0.5) * pitch + 0.35 * rng.standard_normal(count)
    _nuclei(cells, style, rng)
    return cells


def _lattice(
    free: Mask,
    spacing_um: float,
    kind: Tissue,
    pitch: float,
    tilt: Field,
    style: CellStyle,
    rng: np.random.Generator,
) -> CellTable:
    """Crowded polygonal cells: a jittered hexagonal lattice, kept where the mask is free."""
    rows, columns = free.shape
    step = spacing_um * np.sqrt(3) / 2
    i, j = np.mgrid[0 : int(rows * pitch / step) + 2, 0 : int(columns * pitch / spacing_um) + 2]
    x = ((j + 0.5 * (i % 2)) * spacing_um).ravel()
    y = (i * step).ravel()
    keep = _sample(_grown(free), x, y, pitch).astype(bool)
    x, y = x[keep], y[keep]
    x = x + 0.19 * spacing_um * rng.standard_normal(len(x))
    y = y + 0.19 * spacing_um * rng.standard_normal(len(y))
    keep = _sample(free, x, y, pitch).astype(bool) & (x >= 0) & (y >= 0)
    x, y = x[keep], y[keep]
    cells = _blank(len(x), kind)
    cells["x_um"], cells["y_um"] = x, y
    cells["shape"] = ROUND
    radius = 0.64 * spacing_um * np.exp(0.1 * rng.standard_normal(len(x)))
    stretch = np.exp(np.abs(0.32 * rng.standard_normal(len(x))))
    cells["long_um"], cells["short_um"] = radius * np.sqrt(stretch), radius / np.sqrt(stretch)
    cells["angle"] = _sample(tilt, x, y, pitch) + 0.35 * rng.standard_normal(len(x))
    _nuclei(cells, style, rng)
    return cells


def _grown(mask: Mask) -> Mask:
    return cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)


def _fat_cells(architecture: Architecture, rng: np.random.Generator) -> CellTable:
    pitch = architecture.layout.pitch_um
    if not architecture.fat.any():
        return _blank(0, Tissue.FAT)
    rows, columns = architecture.fat.shape
    spacing = 62.0
    i, j = np.mgrid[0 : int(rows * pitch / spacing * 1.16) + 2, 0 : int(columns * pitch / spacing) + 2]
    x = ((j + 0.5 * (i % 2)) * spacing).ravel() + 9 * rng.standard_normal(i.size)
    y = (i * spacing * 0.866).ravel() + 9 * rng.standard_normal(i.size)
    keep = _sample(architecture.fat, x, y, pitch).astype(bool) & (x >= 0) & (y >= 0)
    cells = _blank(int(keep.sum()), Tissue.FAT)
    cells["x_um"], cells["y_um"] = x[keep], y[keep]
    cells["shape"] = ROUND
    cells["long_um"] = rng.uniform(36, 50, len(cells))
    cells["short_um"] = rng.uniform(34, 44, len(cells))
    cells["angle"] = rng.uniform(0, np.pi, len(cells))
    return cells


def _scatter(weight: Field, per_mm2: float, pitch: float, rng: np.random.Generator) -> tuple[Field, Field]:
    """Random places in microns with a density of `per_mm2` where the weight is 1."""
    expected = float(weight.sum()) * (pitch / 1000) ** 2 * per_mm2
    if expected <= 0:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    cumulative = np.cumsum(weight.ravel(), dtype=np.float64)
    chosen = np.searchsorted(cumulative, rng.random(rng.poisson(expected)) * cumulative[-1])
    i, j = np.divmod(np.minimum(chosen, weight.size - 1), weight.shape[1])
    x = (j + rng.random(len(j))) * pitch
    y = (i + rng.random(len(i))) * pitch
    return x.astype(np.float32), y.astype(np.float32)


def _stroma_cells(architecture: Architecture, style: CellStyle, rng: np.random.Generator) -> CellTable:
    """Spindle nuclei along the fibres, and lymphocytes in clusters."""
    layout = architecture.layout
    pitch = layout.pitch_um
    weight = (layout.stroma > 200).astype(np.float32)
    x, y = _scatter(weight, style.fibroblasts_per_mm2, pitch, rng)
    spindle = _blank(len(x), Tissue.STROMA)
    twice = np.arctan2(_sample(layout.fibre_sin, x, y, pitch), _sample(layout.fibre_cos, x, y, pitch))
    spindle["nucleus_angle"] = twice / 2 + 0.2 * rng.standard_normal(len(x))
    plump = rng.random(len(x)) < 0.3
    spindle["nucleus_long_um"] = np.where(plump, rng.uniform(3, 6, len(x)), rng.uniform(4.5, 9.5, len(x)))
    spindle["nucleus_short_um"] = np.where(plump, rng.uniform(1.8, 3, len(x)), rng.uniform(0.9, 1.9, len(x)))
    spindle["nucleus_stain"] = 0.8 * np.exp(0.3 * rng.standard_normal(len(x)))
    spindle["chromatin"] = rng.uniform(0.3, 1, len(x))
    crowd = weight * np.clip(np.exp(1.3 * architecture.lymphoid - 0.85), 0.02, 12)
    lx, ly = _scatter(crowd.astype(np.float32), style.lymphocytes_per_mm2, pitch, rng)
    # A few wander into the epithelium.
    ex, ey = _scatter((layout.epithelium > 200).astype(np.float32), 40, pitch, rng)
    lx, ly = np.concatenate([lx, ex]), np.concatenate([ly, ey])
    lymph = _blank(len(lx), Tissue.LYMPHOID)
    radius = rng.uniform(2.3, 3.4, len(lx)) * np.where(rng.random(len(lx)) < 0.15, 1.3, 1)
    stretch = 1 + np.abs(0.16 * rng.standard_normal(len(lx)))
    lymph["nucleus_long_um"], lymph["nucleus_short_um"] = radius * stretch, radius / stretch
    lymph["nucleus_angle"] = rng.uniform(0, np.pi, len(lx))
    lymph["nucleus_stain"] = 1.35 * np.exp(0.25 * rng.standard_normal(len(lx)))
    lymph["chromatin"] = rng.uniform(0.55, 1, len(lx))
    for cells, px, py in ((spindle, x, y), (lymph, lx, ly)):
        cells["x_um"], cells["y_um"] = px, py
        cells["nucleus_x_um"], cells["nucleus_y_um"] = px, py
        cells["nucleus_blur_um"] = rng.choice([0.25, 0.5, 0.9], len(px), p=[0.5, 0.3, 0.2])
    return np.concatenate([spindle, lymph])


def _vessel_cells(architecture: Architecture, rng: np.random.Generator) -> CellTable:
    """Flat nuclei around each vessel, and red cells inside it."""
    parts = [_blank(0, Tissue.VESSEL)]
    for x, y, radius in architecture.vessels:
        around = _blank(max(1, int(radius / 4)), Tissue.VESSEL)
        angle = rng.uniform(0, 2 * np.pi, len(around))
        around["x_um"], around["y_um"] = x + radius * np.cos(angle), y + radius * np.sin(angle)
        around["nucleus_angle"] = angle + np.pi / 2
        around["nucleus_long_um"] = rng.uniform(2.8, 5, len(around))
        around["nucleus_short_um"] = rng.uniform(1, 1.6, len(around))
        around["chromatin"] = 0.8
        inside = _blank(int(rng.uniform(0, 0.7) * (radius / 3.4) ** 2), Tissue.BLOOD)
        angle, r = rng.uniform(0, 2 * np.pi, len(inside)), radius * 0.85 * np.sqrt(rng.random(len(inside)))
        inside["x_um"], inside["y_um"] = x + r * np.cos(angle), y + r * np.sin(angle)
        inside["nucleus_angle"] = rng.uniform(0, np.pi, len(inside))
        inside["nucleus_long_um"] = rng.uniform(2.6, 3.4, len(inside))
        inside["nucleus_short_um"] = rng.uniform(1.3, 3.0, len(inside))
        parts.extend((around, inside))
    cells = np.concatenate(parts)
    cells["nucleus_x_um"], cells["nucleus_y_um"] = cells["x_um"], cells["y_um"]
    return cells


def _debris(architecture: Architecture, rng: np.random.Generator) -> CellTable:
    """Fragments of dead nuclei in necrosis."""
    layout = architecture.layout
    weight = layout.necrosis.astype(np.float32) / 255
    x, y = _scatter(weight, 4200, layout.pitch_um, rng)
    cells = _blank(len(x), Tissue.NECROSIS)
    cells["x_um"], cells["y_um"] = x, y
    cells["nucleus_x_um"], cells["nucleus_y_um"] = x, y
    cells["nucleus_long_um"] = rng.uniform(0.7, 2.6, len(x))
    cells["nucleus_short_um"] = cells["nucleus_long_um"] * rng.uniform(0.5, 1, len(x))
    cells["nucleus_angle"] = rng.uniform(0, np.pi, len(x))
    cells["nucleus_stain"] = 1.1 * np.exp(0.4 * rng.standard_normal(len(x)))
    cells["chromatin"] = 1
    return cells


def _controls(architecture: Architecture, rng: np.random.Generator) -> list[CellTable]:
    """Pellets of cultured cells of known class: loose, round, all alike."""
    pitch = architecture.layout.pitch_um
    style = CellStyle(14.0, 9.0, 0.31, 0.1, 0.4, 1.0, 0, 0, 0.02, 1.0)
    found = []
    flat = np.zeros(architecture.tissue.shape, np.float32)
    for (x, y, radius), her2 in zip(architecture.controls, (3, 1, 0), strict=False):
        disc = np.zeros(architecture.tissue.shape, np.uint8)
        cv2.circle(disc, (round(x / pitch), round(y / pitch)), round(radius / pitch), 1, -1)
        cells = _lattice(disc.astype(bool), 17.0, Tissue.CONTROL, pitch, flat, style, rng)
        cells = cells[rng.random(len(cells)) < 0.8]
        cells["long_um"], cells["short_um"] = 7.6, 7.2
        cells["her2"] = her2
        found.append(cells)
    return found


def _assign_her2(
    spec: PhantomSpec,
    architecture: Architecture,
    cells: CellTable,
    style: CellStyle,
    rng: np.random.Generator,
) -> None:
    """Give every epithelial cell its class and the membrane that goes with it."""
    pitch = architecture.layout.pitch_um
    shape = architecture.tissue.shape
    broad = gaussian_field(rng, shape, 90 / pitch) * 0.8 + gaussian_field(rng, shape, 25 / pitch) * 0.6
    regional = _sample(broad, cells["x_um"], cells["y_um"], pitch).astype(np.float64)
    latent = np.sqrt(spec.clustering) * regional + np.sqrt(1 - spec.clustering) * rng.standard_normal(len(cells))
    invasive = np.flatnonzero(cells["kind"] == Tissue.INVASIVE)
    order = invasive[np.argsort(latent[invasive], kind="stable")]
    counts = largest_remainder(len(invasive), spec.fractions)
    cells["her2"][order] = np.repeat(np.arange(4), counts)
    # In-situ ducts differ from each other and often carry more HER2 than the invasive tumour.
    in_situ = np.flatnonzero(cells["kind"] == Tissue.IN_SITU)
    level = latent[in_situ] + 0.6 * spec.fractions[3] + 0.5 * spec.fractions[2]
    cells["her2"][in_situ] = np.digitize(level, [0.0, 0.6, 1.1])
    normal = np.flatnonzero(cells["kind"] == Tissue.NORMAL_DUCT)
    cells["her2"][normal] = (rng.random(len(normal)) < 0.06).astype(np.int8)
    _draw_membranes(cells, style, regional, rng)


def _draw_membranes(
    cells: CellTable, style: CellStyle, regional: NDArray[np.float64], rng: np.random.Generator
) -> None:
    """Intensity, completeness and thickness of each membrane, within the bounds of its class."""
    count = len(cells)
    her2 = cells["her2"]
    u, v, w = rng.random(count), rng.random(count), rng.random(count)
    # Peak density (log10) of a line shared by two cells of the class, before the slide's gain.
    faint = np.where(u < 0.8, 0.0, 0.02 * w)
    intensity = np.select(
        [her2 == 3, her2 == 2, her2 == 1], [0.56 + 0.40 * u**1.5, 0.22 + 0.22 * u, 0.07 + 0.09 * u], faint
    )
    completeness = np.select(
        [her2 == 3, her2 == 2, her2 == 1],
        [0.95 + 0.05 * v, COMPLETE_FROM + 0.1 * v, 0.15 + 0.5 * v],
        np.where(u < 0.8, 0.0, 0.12 * v),
    )
    width = np.select([her2 == 3, her2 == 2, her2 == 1], [0.44 + 0.36 * w, 0.36 + 0.22 * w, 0.34 + 0.14 * w], 0.34)
    # Staining drifts over the slide, but not so far that a class would leave its bounds.
    drift = np.clip(1 + 0.12 * regional, 0.8, 1.25)
    cells["intensity"] = np.where(her2 >= 0, intensity * drift * style.membrane_gain, 0)
    cells["completeness"] = np.where(her2 >= 0, completeness, 0)
    cells["membrane_um"] = width
    haze = style.blush * np.exp(0.35 * rng.standard_normal(count)) * np.clip(1 + 0.4 * regional, 0.3, 2)
    # Cells that make more HER2 hold more of it inside as well.
    own = np.select([her2 == 3, her2 == 2, her2 == 1], [0.11, 0.04, 0.015], 0.0) * rng.uniform(0.2, 1.8, count)
    cells["blush"] = np.where(her2 >= 0, haze + own, 0)
