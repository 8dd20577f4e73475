"""The architecture of a slide on a coarse grid: outline, tumour, ducts, stroma, fat, necrosis, folds, tears.

The layout is drawn once for the whole slide. Its pitch is about 4 um and grows on very large slides, so that
its memory stays bounded; everything finer than that comes from the cells and from noise at level 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_her2.phantom.composition import PhantomSpec
from wsi_her2.phantom.noise import Field, gaussian_field

Mask = NDArray[np.bool_]

_PITCH_UM = 4.0
_MAX_LAYOUT_PX = 8e6


class Tissue(IntEnum):
    """Kinds of tissue that a cell can belong to; only `INVASIVE` counts in the percentages."""

    INVASIVE = 1
    IN_SITU = 2
    NORMAL_DUCT = 3
    MYOEPITHELIUM = 4
    STROMA = 5
    LYMPHOID = 6
    FAT = 7
    VESSEL = 8
    BLOOD = 9
    NECROSIS = 10
    CONTROL = 11


@dataclass(frozen=True)
class Compartment:
    """A region of epithelium whose cells are arranged in one way.

    Attributes
    ----------
    kind
        Tissue kind of its cells.
    mask
        Where it lies, on the layout grid, lumens included.
    lumen
        Where it is hollow, on the layout grid.
    wall_um
        Height of the epithelium of a hollow structure; 0 where cells fill the whole mask.
    rows
        Rows of cells in that wall.
    """

    kind: Tissue
    mask: Mask
    lumen: Mask
    wall_um: float
    rows: int


@dataclass(frozen=True)
class Layout:
    """Smooth fields of the slide on a coarse grid, from which any region can be drawn.

    Attributes
    ----------
    pitch_px
        Level-0 pixels per grid point.
    pitch_um
        Microns per grid point.
    depth_um
        ``float16``; distance to the edge of the tissue, positive inside.
    stroma, epithelium, necrosis, loose, fat, secretion, thickness
        ``uint8`` weights, 0 to 255. `thickness` is 128 for a single section; folds lie above, tears at 0.
    fibre_cos, fibre_sin
        ``int8``; cosine and sine of twice the fibre angle, times 127.
    """

    pitch_px: int
    pitch_um: float
    depth_um: NDArray[np.float16]
    stroma: NDArray[np.uint8]
    epithelium: NDArray[np.uint8]
    necrosis: NDArray[np.uint8]
    loose: NDArray[np.uint8]
    fat: NDArray[np.uint8]
    secretion: NDArray[np.uint8]
    thickness: NDArray[np.uint8]
    fibre_cos: NDArray[np.int8]
    fibre_sin: NDArray[np.int8]


@dataclass(frozen=True)
class Architecture:
    """A layout with the regions that cells are placed into."""

    layout: Layout
    tissue: Mask
    compartments: tuple[Compartment, ...]
    cords: tuple[NDArray[np.float32], ...]
    cord_mask: Mask
    fat: Mask
    vessels: tuple[tuple[float, float, float], ...]
    controls: tuple[tuple[float, float, float], ...]
    lymphoid: Field


def draw_architecture(spec: PhantomSpec, rng: np.random.Generator, *, filled: bool = False) -> Architecture:
    """Draw the layout of a slide.

    Parameters
    ----------
    spec
        The slide asked for.
    rng
        The generator of the slide's architecture.
    filled
        Let the tissue fill the whole field, as in a patch cut out of a slide.

    Returns
    -------
    Architecture
        The layout and the regions in which cells lie.
    """
    pitch_px, shape = _grid(spec)
    pitch = pitch_px * spec.mpp
    controls = _control_spots(spec) if spec.control_tissue and not filled else ()
    depth = _outline_depth(spec, rng, shape, pitch, filled)
    tissue = depth > 0
    tear, fold = _tears_and_folds(spec, rng, shape, pitch, tissue)
    normal, normal_mask = _lobules(spec, rng, shape, pitch, tissue)
    in_situ, in_situ_mask = _in_situ_ducts(spec, rng, shape, pitch, tissue & ~_grow(normal_mask, 25, pitch))
    reserved = _grow(normal_mask | in_situ_mask, 14, pitch)
    fat = _fat(spec, rng, shape, pitch, tissue & ~reserved)
    room = tissue & ~reserved & ~fat & (depth > 6)
    tumour, cords = _tumour(spec, rng, pitch, room, int(tissue.sum()))
    epithelial = normal_mask | in_situ_mask
    hollow = np.zeros(shape, bool)
    for part in tumour:
        epithelial |= part.mask
    for part in (*tumour, *in_situ, *normal):
        hollow |= part.lumen
    vessels = _vessels(rng, pitch, tissue & ~_grow(epithelial, 16, pitch) & ~fat)
    necrosis = _necrosis(spec, rng, pitch, tumour, in_situ)
    lymphoid = gaussian_field(rng, shape, 90 / pitch)
    outside = depth_inside(~epithelial, pitch)
    cos2, sin2 = _fibres(rng, shape, pitch, outside)
    loose = 0.5 + 0.28 * gaussian_field(rng, shape, 120 / pitch) + 0.1 * gaussian_field(rng, shape, 25 / pitch)
    cord_mask = _drawn(cords, shape, pitch)
    stroma = tissue & ~epithelial & ~fat & ~tear
    vessel_mask = np.zeros(shape, np.uint8)
    for x, y, radius in vessels:
        centre = (round(x / pitch), round(y / pitch))
        cv2.circle(vessel_mask, centre, max(1, round(radius / pitch)), 1, -1)
    # Tumour often retracts from the stroma in fixation and leaves a white cleft along its edge.
    retraction = (outside < 5) & (outside > 0) & (gaussian_field(rng, shape, 70 / pitch) > 1.1)
    stroma &= ~retraction & (vessel_mask == 0)
    secretion = hollow & (gaussian_field(rng, shape, 60 / pitch) > 0.3)
    thickness = np.where(tear, 0.0, np.where(fold, 230.0, 128.0)).astype(np.float32)
    layout = Layout(
        pitch_px=pitch_px,
        pitch_um=pitch,
        depth_um=np.clip(_with_controls(depth, controls, pitch), -500, 500).astype(np.float16),
        stroma=_weight(stroma, 0.6),
        epithelium=_weight((epithelial | cord_mask) & ~hollow & ~tear, 0.5),
        necrosis=_weight(necrosis, 1.2),
        loose=(np.clip(loose, 0, 1) * 255).astype(np.uint8),
        fat=_weight(fat & ~tear, 0.7),
        secretion=_weight(secretion, 0.7),
        thickness=cv2.GaussianBlur(thickness, (0, 0), 0.6).astype(np.uint8),
        fibre_cos=np.round(cos2 * 127).astype(np.int8),
        fibre_sin=np.round(sin2 * 127).astype(np.int8),
    )
    return Architecture(
        layout=layout,
        tissue=tissue & ~tear & _within(spec, pitch_px, shape),
        compartments=tuple(
            Compartment(part.kind, part.mask & ~necrosis & ~tear, part.lumen, part.wall_um, part.rows)
            for part in (*tumour, *in_situ, *normal)
        ),
        cords=cords,
        cord_mask=cord_mask & ~tear,
        fat=fat & ~tear,
        vessels=vessels,
        controls=controls,
        lymphoid=lymphoid,
    )


def _grid(spec: PhantomSpec) -> tuple[int, tuple[int, int]]:
    """Level-0 pixels per grid point, and rows and columns of the grid."""
    pitch_px = max(1, round(_PITCH_UM / spec.mpp))
    while (spec.width_px / pitch_px) * (spec.height_px / pitch_px) > _MAX_LAYOUT_PX:
        pitch_px += 1
    return pitch_px, (-(-spec.height_px // pitch_px) + 1, -(-spec.width_px // pitch_px) + 1)


def _within(spec: PhantomSpec, pitch_px: int, shape: tuple[int, int]) -> Mask:
    """Grid points on the slide; the grid reaches a little beyond it."""
    rows = (np.arange(shape[0]) + 0.5) * pitch_px < spec.height_px
    columns = (np.arange(shape[1]) + 0.5) * pitch_px < spec.width_px
    inside: Mask = rows[:, None] & columns[None, :]
    return inside


def depth_inside(mask: Mask, pitch: float) -> Field:
    """Distance of each point of a mask to its outside, in microns; half a grid step is taken off.

    Parameters
    ----------
    mask
        ``bool``; on the layout grid.
    pitch
        Microns between its points.

    Returns
    -------
    numpy.ndarray
        ``float32``; a million grid steps where the mask has no outside.
    """
    distance: Field = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    # Where there is no outside at all the transform returns the largest float.
    return np.clip(distance - np.float32(0.5), 0, 1e6) * np.float32(pitch)


def _grow(mask: Mask, by_um: float, pitch: float) -> Mask:
    if not mask.any():
        return mask
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) * pitch < by_um


def _weight(mask: Mask, sigma_px: float) -> NDArray[np.uint8]:
    blurred = cv2.GaussianBlur(mask.astype(np.float32) * 255, (0, 0), sigma_px)
    return np.round(blurred).astype(np.uint8)


def _control_spots(spec: PhantomSpec) -> tuple[tuple[float, float, float], ...]:
    """Centres and radii in microns of the spots of 3+, 1+ and 0 cells, in a strip at the left."""
    radius = 1000 * min(0.09 * spec.width_mm, 0.13 * spec.height_mm)
    return tuple((1.2 * radius, 1000 * spec.height_mm * part, radius) for part in (0.2, 0.5, 0.8))


def _with_controls(depth: Field, controls: tuple[tuple[float, float, float], ...], pitch: float) -> Field:
    """Control spots lie on the glass like tissue, though they are not counted as tissue."""
    y, x = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]].astype(np.float32) * np.float32(pitch)
    for cx, cy, radius in controls:
        depth = np.maximum(depth, np.float32(radius + 12) - np.hypot(x - cx, y - cy))
    return depth


def _outline_depth(
    spec: PhantomSpec, rng: np.random.Generator, shape: tuple[int, int], pitch: float, filled: bool
) -> Field:
    """Signed distance to the outline of the tissue in microns, positive inside."""
    rows, columns = shape
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) * np.float32(pitch)
    width, height = spec.width_mm * 1000, spec.height_mm * 1000
    left = 0.2 * width if spec.control_tissue and not filled else 0.0
    cx, cy = (width + left) / 2, height / 2
    rough = 5 * gaussian_field(rng, shape, 60 / pitch) + 2.5 * gaussian_field(rng, shape, 12 / pitch)
    if filled:
        # One patch in a few shows the edge of the tissue: a straight cut through the field.
        angle = rng.uniform(0, 2 * np.pi)
        away = rng.uniform(0.1, 0.5) if rng.random() < 0.12 else 10.0
        depth = away * max(width, height) - (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle)
    elif spec.outline == "core":
        radius = 0.46 * min(width - left, height)
        squeeze, angle = rng.uniform(0.93, 1.0), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        depth = radius - np.sqrt(u**2 + (v / squeeze) ** 2)
    elif spec.outline == "biopsy":
        depth = np.full(shape, -1e9, np.float32)
        count = max(1, int((height - 100) / 1400))
        for k in range(count):
            half = min(480.0, 0.36 * height / count)
            middle = height * (k + 0.5) / count
            middle = middle + 0.1 * height / count * np.sin(x / width * rng.uniform(2, 5) + rng.uniform(0, 6))
            ends = np.minimum(x - left - rng.uniform(0.02, 0.1) * width, width * rng.uniform(0.9, 0.98) - x)
            # The needle's cylinder breaks across, at a slant and not along a straight line.
            breaks = np.abs(gaussian_field(rng, (1, columns), 250 / pitch)[0]) * 400 - 8
            slanted = x + rng.uniform(-0.5, 0.5) * (y - middle) + 4 * rough
            broken = breaks[np.clip(slanted / pitch, 0, columns - 1).astype(int)]
            piece = np.minimum(np.minimum(half - np.abs(y - middle), ends), broken)
            depth = np.maximum(depth, piece)
    else:
        blob = gaussian_field(rng, shape, 0.12 * min(width, height) / pitch)
        u, v = (x - cx) / (0.46 * (width - left)), (y - cy) / (0.46 * height)
        inside = 1 - (np.abs(u) ** 3 + np.abs(v) ** 3) ** (1 / 3)
        depth = inside * 0.46 * min(width - left, height) + 0.03 * min(width, height) * blob
    signed = (depth + rough) > 0
    result = depth_inside(signed, pitch) - depth_inside(~signed, pitch)
    # Pieces too small to be tissue would only be specks at the edge.
    return cv2.GaussianBlur(result, (0, 0), 0.7)


def _tears_and_folds(
    spec: PhantomSpec, rng: np.random.Generator, shape: tuple[int, int], pitch: float, tissue: Mask
) -> tuple[Mask, Mask]:
    tear, fold = np.zeros(shape, bool), np.zeros(shape, bool)
    for name, target, width_um in (("tear", tear, 28.0), ("fold", fold, 34.0)):
        if name not in spec.artefacts:
            continue
        line = gaussian_field(rng, shape, 0.14 * max(shape))
        where = gaussian_field(rng, shape, 0.1 * max(shape)) > 0.2
        target |= _near_line(line, width_um / 2 / pitch) & where & tissue
    return tear, fold


def _blob(rng: np.random.Generator, x: float, y: float, radius: float, rough: float) -> NDArray[np.int32]:
    """A closed outline around a point, in grid units with four fractional bits."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    r = np.ones_like(angle)
    for k in range(1, 6):
        r += rough / k * rng.standard_normal() * np.cos(k * angle + rng.uniform(0, 6.3))
    r = radius * np.clip(r, 0.45, 1.7)
    points = np.stack([x + r * np.cos(angle), y + r * np.sin(angle)], -1)
    return np.round(points * 16).astype(np.int32)


def _place(rng: np.random.Generator, free: Mask) -> tuple[int, int] | None:
    """A random grid point of the mask, or None where it is empty."""
    for _ in range(200):
        y, x = int(rng.integers(free.shape[0])), int(rng.integers(free.shape[1]))
        if free[y, x]:
            return x, y
    return None


def _in_situ_ducts(
    spec: PhantomSpec, rng: np.random.Generator, shape: tuple[int, int], pitch: float, free: Mask
) -> tuple[list[Compartment], Mask]:
    """Ducts filled with tumour: solid, cribriform or with central necrosis."""
    wanted = spec.in_situ_share * float(free.sum())
    everything = np.zeros(shape, bool)
    lumen = np.zeros(shape, np.uint8)
    largest = 0.2 * min(shape) * pitch
    for _ in range(4000):
        if everything.sum() >= wanted:
            break
        place = _place(rng, free)
        if place is None:
            break
        radius = min(largest, float(np.clip(rng.lognormal(np.log(95), 0.45), 45, 260)))
        duct = np.zeros(shape, np.uint8)
        cv2.fillPoly(duct, [_blob(rng, place[0], place[1], radius / pitch, 0.12)], 1, shift=4)
        inside = duct.astype(bool)
        if (inside & (~free | _grow_local(everything, inside))).any():
            continue
        everything |= inside
        if rng.random() < 0.45:
            for _ in range(int(radius**2 / 1100)):
                angle, r = rng.uniform(0, 6.3), radius * 0.72 * np.sqrt(rng.random())
                hole = _blob(
                    rng,
                    place[0] + r * np.cos(angle) / pitch,
                    place[1] + r * np.sin(angle) / pitch,
                    rng.uniform(7, 16) / pitch,
                    0.1,
                )
                cv2.fillPoly(lumen, [hole], 1, shift=4)
    hollow = lumen.astype(bool) & everything
    return [Compartment(Tissue.IN_SITU, everything, hollow, 0.0, 0)], everything


def _grow_local(mask: Mask, around: Mask) -> Mask:
    """The mask grown by a few grid points, for a cheap test of touching."""
    if not mask.any():
        return mask
    rows, columns = np.flatnonzero(around.any(1)), np.flatnonzero(around.any(0))
    grown = np.zeros_like(mask)
    if rows.size == 0:
        return grown
    box = np.s_[max(0, rows[0] - 8) : rows[-1] + 9, max(0, columns[0] - 8) : columns[-1] + 9]
    grown[box] = cv2.dilate(mask[box].astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool)
    return grown


def _lobules(
    spec: PhantomSpec, rng: np.random.Generator, shape: tuple[int, int], pitch: float, free: Mask
) -> tuple[list[Compartment], Mask]:
    """Normal ducts and lobules: clusters of small hollow acini."""
    wanted = spec.normal_share * float(free.sum())
    everything = np.zeros(shape, np.uint8)
    for _ in range(2000):
        if everything.sum() >= wanted:
            break
        place = _place(rng, free)
        if place is None:
            break
        single = rng.random() < 0.25
        count = 1 if single else int(rng.integers(5, 16))
        for _ in range(count):
            spread = 0.0 if single else 24.0 * np.sqrt(count)
            x = place[0] + rng.normal() * spread / pitch
            y = place[1] + rng.normal() * spread / pitch
            radius = rng.uniform(40, 75) if single else rng.uniform(17, 33)
            acinus = np.zeros(shape, np.uint8)
            cv2.fillPoly(acinus, [_blob(rng, x, y, radius / pitch, 0.1)], 1, shift=4)
            near = cv2.dilate(acinus, np.ones((5, 5), np.uint8)) if min(shape) > 8 else acinus
            if not acinus.any() or (near.astype(bool) & (everything.astype(bool) | ~free)).any():
                continue
            everything |= acinus
    mask = everything.astype(bool)
    return [Compartment(Tissue.NORMAL_DUCT, mask, depth_inside(mask, pitch) > 15, 15.0, 1)], mask


def _fat(spec: PhantomSpec, rng: np.random.Generator, shape: tuple[int, int], pitch: float, free: Mask) -> Mask:
    field = gaussian_field(rng, shape, 130 / pitch) + 0.3 * gaussian_field(rng, shape, 30 / pitch)
    return _top_share(field, free, spec.fat_share * float(free.sum()))


def _top_share(field: Field, free: Mask, wanted_px: float) -> Mask:
    """The grid points of the mask where the field is highest, as many as wanted."""
    values = field[free]
    if wanted_px < 1 or values.size == 0:
        return np.zeros(free.shape, bool)
    rank = min(values.size - 1, int(wanted_px))
    threshold = np.partition(values, values.size - 1 - rank)[values.size - 1 - rank]
    top: Mask = (field > threshold) & free
    return top


def _tumour(
    spec: PhantomSpec, rng: np.random.Generator, pitch: float, room: Mask, tissue_px: int
) -> tuple[list[Compartment], tuple[NDArray[np.float32], ...]]:
    """Invasive tumour as glands, solid nests and cords, covering the share of the tissue asked for."""
    shape = room.shape
    # High epithelium is pseudostratified, one row of tall cells, or has two rows of lower ones.
    rows_draw = float(rng.random())
    wall = float(rng.uniform(20, 40))
    fields = {
        "glandular": gaussian_field(rng, shape, rng.uniform(26, 44) / pitch),
        "solid": gaussian_field(rng, shape, rng.uniform(17, 34) / pitch),
        "cords": gaussian_field(rng, shape, rng.uniform(13, 20) / pitch),
    }
    # A mass and its surroundings: the tumour is dense in some regions of the slide and thin in others.
    mass = gaussian_field(rng, shape, 350 / pitch)
    patterns = list(fields) if spec.pattern == "mixed" else [spec.pattern]
    zone = np.stack([gaussian_field(rng, shape, 280 / pitch) + 0.7 * rng.standard_normal() for _ in patterns])
    zone_of = np.argmax(zone, 0)
    zones = {name: room & (zone_of == k) for k, name in enumerate(patterns)}
    wanted = spec.tumour_share * tissue_px
    bias = np.float32(0.6) * mass
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    # Cords are single files and cover little; where they grow, nests of the same field thicken them.
    edges = gaussian_field(rng, shape, 12 / pitch) * np.float32(0.12)
    # Thin septa of stroma part the tumour into glands and nests however much of the field it fills.
    septa = {
        "glandular": _near_line(gaussian_field(rng, shape, rng.uniform(28, 48) / pitch), 7 / pitch),
        "solid": _near_line(gaussian_field(rng, shape, rng.uniform(40, 80) / pitch), 5 / pitch),
        "cords": np.zeros(shape, bool),
    }

    def parts(threshold: float, tight: bool) -> list[Compartment]:
        found = []
        for name, where in zones.items():
            mask = (fields[name] + bias + edges > threshold) & where & (~septa[name] | tight)
            if name == "cords":
                mask &= fields[name] + bias > threshold + 1.0
            mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel).astype(bool)
            hollow = np.zeros(shape, bool)
            if name == "glandular":
                depth = cv2.GaussianBlur(depth_inside(mask, pitch), (0, 0), 1.0)
                hollow = depth > (2.2 * wall if tight else wall)
            found.append(
                Compartment(
                    Tissue.INVASIVE,
                    mask,
                    hollow,
                    wall if name == "glandular" else 0.0,
                    1 if wall < 31 or rows_draw > 0.5 else 2,
                )
            )
        return found

    def cord_lines(threshold: float) -> tuple[NDArray[np.float32], ...]:
        if "cords" not in zones:
            return ()
        where = zones["cords"] & (bias > threshold - 0.9)
        return _contours(fields["cords"] > 0.1, where, 1.2)

    def covered(threshold: float, tight: bool) -> float:
        area = sum(float((part.mask & ~part.lumen).sum()) for part in parts(threshold, tight))
        return area + sum(len(line) for line in cord_lines(threshold)) * 11.0 / pitch

    # Very low thresholds open the lumens wider and cover less again, so the search comes from above. Where
    # glands with wide lumens and stroma between them cannot cover the share asked for, they are packed
    # tightly.
    steps = np.linspace(3.0, -3.0, 13)
    best = (-1.0, 0.0, False)
    for tight in (False, True):
        for k, step in enumerate(steps):
            area = covered(float(step), tight)
            best = max(best, (area, float(step), tight))
            if area < wanted:
                continue
            low, high = float(step), float(steps[max(k - 1, 0)])
            for _ in range(6):
                middle = (low + high) / 2
                low, high = (middle, high) if covered(middle, tight) > wanted else (low, middle)
            return parts(low, tight), cord_lines(low)
    return parts(best[1], best[2]), cord_lines(best[1])


def _drawn(lines: tuple[NDArray[np.float32], ...], shape: tuple[int, int], pitch: float) -> Mask:
    """Cords as a mask, one cell wide."""
    plane = np.zeros(shape, np.uint8)
    points = [np.round(line * 16).astype(np.int32) for line in lines]
    cv2.polylines(plane, points, False, 1, max(1, round(9.0 / pitch)), shift=4)
    return plane.astype(bool)


def _near_line(field: Field, half_width_px: float) -> Mask:
    """The grid points within a distance of the zero line of a field."""
    slope = np.hypot(*np.gradient(field)) + 1e-6
    near: Mask = np.abs(field) / slope < half_width_px
    return near


def _contours(mask: Mask, where: Mask, smooth: float) -> tuple[NDArray[np.float32], ...]:
    """Smoothed outlines of a mask in grid units, cut to where they are wanted."""
    lines = []
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for contour in found:
        points = contour[:, 0, :].astype(np.float32)
        if len(points) < 8:
            continue
        keep = where[contour[:, 0, 1], contour[:, 0, 0]]
        radius = max(1, round(3 * smooth))
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / smooth) ** 2).astype(np.float32)
        weights /= weights.sum()
        wrapped = np.concatenate([points[-radius:], points, points[:radius]])
        points = np.stack([np.convolve(wrapped[:, k], weights, "valid") for k in (0, 1)], -1)
        # Runs of wanted points, each a line of its own.
        changes = np.flatnonzero(np.diff(keep.astype(np.int8))) + 1
        for run, kept in zip(np.split(points, changes), np.split(keep, changes), strict=True):
            if kept[0] and len(run) >= 6:
                lines.append(np.ascontiguousarray(run, dtype=np.float32))
    return tuple(lines)


def contours_at(depth_um: Field, level_um: float, smooth: float = 1.4) -> tuple[NDArray[np.float32], ...]:
    """Lines at one depth below the surface of a structure.

    Parameters
    ----------
    depth_um
        ``float32``; distance to the surface on the layout grid.
    level_um
        The depth, in microns.
    smooth
        Standard deviation of the smoothing along the line, in grid steps.

    Returns
    -------
    tuple of numpy.ndarray
        ``float32`` arrays of N x 2 grid coordinates (x, y).
    """
    mask = depth_um > level_um
    border = np.zeros_like(mask)
    border[1:-1, 1:-1] = True
    return _contours(mask, border, smooth)


def _necrosis(
    spec: PhantomSpec,
    rng: np.random.Generator,
    pitch: float,
    tumour: list[Compartment],
    in_situ: list[Compartment],
) -> Mask:
    """Dead centres of solid nests, and of half of the large in-situ ducts (comedo)."""
    shape = tumour[0].mask.shape
    dead = np.zeros(shape, bool)
    solid = np.zeros(shape, bool)
    for part in tumour:
        solid |= part.mask & ~part.lumen
    depth = depth_inside(solid, pitch)
    field = gaussian_field(rng, shape, 80 / pitch) + depth / np.float32(40)
    dead |= _top_share(field, solid & (depth > 15), spec.necrosis_share * float(solid.sum()))
    comedo = gaussian_field(rng, shape, 200 / pitch) > 0
    for part in in_situ:
        dead |= (depth_inside(part.mask, pitch) > 62) & comedo
    return dead


def _vessels(rng: np.random.Generator, pitch: float, free: Mask) -> tuple[tuple[float, float, float], ...]:
    """Centres and radii in microns of capillaries and small vessels in the stroma."""
    area_mm2 = float(free.sum()) * (pitch / 1000) ** 2
    found = []
    for _ in range(rng.poisson(22 * area_mm2)):
        place = _place(rng, free)
        if place is not None:
            radius = float(np.clip(rng.lognormal(np.log(7), 0.5), 4, 26))
            found.append((place[0] * pitch, place[1] * pitch, radius))
    return tuple(found)


def _fibres(
    rng: np.random.Generator, shape: tuple[int, int], pitch: float, outside_um: Field
) -> tuple[Field, Field]:
    """Cosine and sine of twice the fibre angle: along the nests near them, free elsewhere."""
    free = np.pi * gaussian_field(rng, shape, 220 / pitch) * 0.6 + rng.uniform(0, np.pi)
    smooth = cv2.GaussianBlur(outside_um, (0, 0), 2.5)
    gy, gx = np.gradient(smooth)
    length = gx**2 + gy**2 + 1e-6
    # Twice the angle of the tangent, which is the normal turned by a right angle.
    near = np.exp(-outside_um / 35)
    cos2 = near * -(gx**2 - gy**2) / length + (1 - near) * np.cos(2 * free)
    sin2 = near * -(2 * gx * gy) / length + (1 - near) * np.sin(2 * free)
    cos2, sin2 = cv2.GaussianBlur(cos2, (0, 0), 2.0), cv2.GaussianBlur(sin2, (0, 0), 2.0)
    norm = np.sqrt(cos2**2 + sin2**2) + 1e-3
    return (cos2 / norm).astype(np.float32), (sin2 / norm).astype(np.float32)
