"""What lies on the glass and what the scanner gets wrong: pen, dust, bubbles, coverslip edge, blur."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wsi_her2.phantom.composition import PhantomSpec
from wsi_her2.phantom.drawing import Window
from wsi_her2.phantom.noise import Field

# Transmission per channel of common marker inks on glass.
_INKS = {
    "blue": (0.18, 0.24, 0.62),
    "green": (0.15, 0.50, 0.32),
    "red": (0.78, 0.16, 0.20),
    "black": (0.13, 0.13, 0.15),
}
# What lies on the glass is out of focus, so it is drawn on a coarser grid.
_COARSE_PX = 4


@dataclass(frozen=True)
class Stroke:
    """A line on the glass; points and width in microns, transmission per channel."""

    points_um: tuple[tuple[float, float], ...]
    width_um: float
    ink: tuple[float, float, float]
    blur_um: float


@dataclass(frozen=True)
class Ring:
    """A bubble or grain: centre, radius and edge width in microns, transmission of edge and middle."""

    x_um: float
    y_um: float
    radius_um: float
    edge_um: float
    edge: float
    middle: float


@dataclass(frozen=True)
class BlurZone:
    """A region out of focus: centre, radius and greatest additional defocus, all in microns."""

    x_um: float
    y_um: float
    radius_um: float
    blur_um: float


@dataclass(frozen=True)
class Artefacts:
    """Everything on one slide that is not tissue."""

    strokes: tuple[Stroke, ...] = ()
    rings: tuple[Ring, ...] = ()
    blurs: tuple[BlurZone, ...] = ()


def draw_artefacts(spec: PhantomSpec, rng: np.random.Generator) -> Artefacts:
    """Place the artefacts that a slide was asked to have.

    Parameters
    ----------
    spec
        The slide asked for; folds, tears and dried edges are part of its tissue and not drawn here.
    rng
        The generator of the slide's artefacts.

    Returns
    -------
    Artefacts
        Positions in microns from the corner of the slide.
    """
    width, height = spec.width_mm * 1000, spec.height_mm * 1000
    small = min(width, height)
    strokes: list[Stroke] = []
    rings: list[Ring] = []
    blurs: list[BlurZone] = []
    if "pen" in spec.artefacts:
        ink = _INKS[str(rng.choice(list(_INKS)))]
        angle = np.linspace(rng.uniform(0, 6.3), rng.uniform(7, 11), 40)
        radius = small * rng.uniform(0.2, 0.42) * (1 + 0.05 * rng.standard_normal(40).cumsum() / 4)
        cx, cy = width * rng.uniform(0.3, 0.7), height * rng.uniform(0.3, 0.7)
        points = zip(cx + radius * np.cos(angle), cy + radius * np.sin(angle), strict=True)
        strokes.append(
            Stroke(
                tuple((float(x), float(y)) for x, y in points),
                float(np.clip(0.06 * small, 60, 700)),
                ink,
                14.0,
            )
        )
    if "coverslip" in spec.artefacts:
        x = width * float(rng.choice([0.04, 0.96]))
        tilt = width * rng.uniform(-0.02, 0.02)
        strokes.append(Stroke(((x - tilt, -50.0), (x + tilt, height + 50)), 14.0, (0.45, 0.46, 0.48), 3.0))
    if "dust" in spec.artefacts:
        for _ in range(max(4, int(3 * width * height / 1e6))):
            x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
            if rng.random() < 0.4:
                heading = np.cumsum(rng.normal(0, 0.35, 30))
                walk = np.cumsum(7 * np.stack([np.cos(heading), np.sin(heading)], -1), axis=0) + np.array([x, y])
                strokes.append(
                    Stroke(
                        tuple((float(a), float(b)) for a, b in walk),
                        float(rng.uniform(2, 5)),
                        (0.45,) * 3,
                        1.5,
                    )
                )
            else:
                radius_um = float(rng.lognormal(np.log(6), 0.5))
                rings.append(Ring(x, y, radius_um, 0.5 * radius_um, 0.4, 0.55))
    if "bubbles" in spec.artefacts:
        for _ in range(int(rng.integers(2, 6))):
            x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
            rings.append(Ring(x, y, small * float(rng.uniform(0.02, 0.08)), 9.0, 0.3, 1.03))
    if "blur" in spec.artefacts:
        for _ in range(int(rng.integers(1, 4))):
            x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
            blurs.append(BlurZone(x, y, small * float(rng.uniform(0.12, 0.3)), float(rng.uniform(0.7, 1.6))))
    return Artefacts(tuple(strokes), tuple(rings), tuple(blurs))


def overlay(artefacts: Artefacts, window: Window) -> Field | None:
    """Share of light that passes what lies on the glass.

    Parameters
    ----------
    artefacts
        Those of the slide.
    window
        The region.

    Returns
    -------
    numpy.ndarray or None
        ``float32``, ``h x w x 3``; None where nothing lies on the glass.
    """
    strokes = [stroke for stroke in artefacts.strokes if _touches(stroke, window)]
    rings = [r for r in artefacts.rings if _near(r.x_um, r.y_um, r.radius_um + r.edge_um * 3, window)]
    if not strokes and not rings:
        return None
    light = np.ones((window.h, window.w, 3), np.float32)
    for stroke in strokes:
        light *= _stroke(stroke, window)
    for ring in rings:
        light *= _ring(ring, window)[..., None]
    return light


def defocus(artefacts: Artefacts, window: Window) -> Field | None:
    """Additional defocus of a region in microns, ``float32`` ``h x w``, or None where it is in focus."""
    zones = [zone for zone in artefacts.blurs if _near(zone.x_um, zone.y_um, zone.radius_um * 1.5, window)]
    if not zones:
        return None
    amount = np.zeros((window.h, window.w), np.float32)
    for zone in zones:
        distance = _distance(zone.x_um, zone.y_um, window) / np.float32(zone.radius_um)
        amount += np.float32(zone.blur_um) * np.exp(-(np.minimum(distance, 3) ** 4))
    return amount


def _near(x_um: float, y_um: float, reach_um: float, window: Window) -> bool:
    x, y, reach = x_um / window.mpp, y_um / window.mpp, reach_um / window.mpp
    return (
        window.x - reach < x < window.x + window.w + reach and window.y - reach < y < window.y + window.h + reach
    )


def _touches(stroke: Stroke, window: Window) -> bool:
    points = np.array(stroke.points_um) / window.mpp
    reach = (stroke.width_um + 3 * stroke.blur_um) / window.mpp
    low, high = points.min(0) - reach, points.max(0) + reach
    return bool(
        low[0] < window.x + window.w and high[0] > window.x and low[1] < window.y + window.h and high[1] > window.y
    )


def _distance(x_um: float, y_um: float, window: Window) -> Field:
    dx = (np.arange(window.w, dtype=np.float32) + np.float32(window.x - x_um / window.mpp))[None, :]
    dy = (np.arange(window.h, dtype=np.float32) + np.float32(window.y - y_um / window.mpp))[:, None]
    distance: Field = np.sqrt(dx * dx + dy * dy) * np.float32(window.mpp)
    return distance


def _stroke(stroke: Stroke, window: Window) -> Field:
    margin = int(4 * stroke.blur_um / window.mpp / _COARSE_PX) + 4
    rows, columns = window.h // _COARSE_PX + 2 * margin + 1, window.w // _COARSE_PX + 2 * margin + 1
    plane: Field = np.zeros((rows, columns), np.float32)
    points = (np.array(stroke.points_um) / window.mpp - (window.x, window.y)) / _COARSE_PX + margin
    thickness = max(1, round(stroke.width_um / window.mpp / _COARSE_PX))
    cv2.polylines(plane, [np.round(points * 16).astype(np.int32)], False, 1.0, thickness, shift=4)
    plane = cv2.GaussianBlur(plane, (0, 0), max(0.7, stroke.blur_um / window.mpp / _COARSE_PX))
    big = cv2.resize(plane, (columns * _COARSE_PX, rows * _COARSE_PX), interpolation=cv2.INTER_LINEAR)
    start = margin * _COARSE_PX
    cover = big[start : start + window.h, start : start + window.w, None]
    # Ink lies unevenly: streaks and thin places let more light through.
    uneven = np.clip(1 + 0.12 * window.noise(60, 95), 0.6, 1.4)[..., None]
    ink = np.array(stroke.ink, np.float32)
    light: Field = np.exp(cover * uneven * np.log(ink))
    return light


def _ring(ring: Ring, window: Window) -> Field:
    distance = _distance(ring.x_um, ring.y_um, window) - np.float32(ring.radius_um)
    edge = np.exp(-((distance / np.float32(ring.edge_um)) ** 2))
    middle = np.clip(0.5 - distance / np.float32(2 * ring.edge_um), 0, 1)
    light: Field = (1 + (ring.middle - 1) * middle) * (1 + (ring.edge - 1) * edge)
    return light.astype(np.float32)
