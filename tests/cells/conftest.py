"""Cells drawn from their geometry: nuclei of hematoxylin, membranes of DAB, microns throughout."""

from __future__ import annotations

import cv2
import numpy as np

from wsi_her2.slides.density import HEMATOXYLIN_DAB

FINER = 8
NUCLEUS_UM = 3.6
MEMBRANE_UM = 6.0
CYTOPLASM = 0.07
"""Hematoxylin density of the ground between nuclei of epithelium."""


def discs(side, centres, radius_px, density=0.5):
    """Hematoxylin density (float32 side x side) of round nuclei; whole numbers are centres of pixels."""
    canvas = np.zeros((side * FINER, side * FINER), np.float32)
    for x, y in centres:
        cv2.circle(canvas, _fine((x, y)), round(radius_px * FINER), 1.0, -1)
    return _scanned(canvas, side) * np.float32(density)


def arcs(side, centres, radius_px, width_px, density, span=(0.0, 360.0)):
    """DAB density (float32 side x side) of membranes around centres, from one angle to another (degrees)."""
    canvas = np.zeros((side * FINER, side * FINER), np.float32)
    radius = round(radius_px * FINER)
    for x, y in centres:
        cv2.ellipse(canvas, _fine((x, y)), (radius, radius), 0, *span, 1.0, round(width_px * FINER))
    return _scanned(canvas, side) * np.float32(density)


def picture(hematoxylin, dab):
    """RGB (uint8 H x W x 3, white point at 255) of given densities."""
    first, second, _ = HEMATOXYLIN_DAB.matrix()
    density = np.asarray(hematoxylin)[..., None] * first + np.asarray(dab)[..., None] * second
    return np.clip(np.rint(255 * 10.0**-density), 0, 255).astype(np.uint8)


def lattice(side, step):
    """Centres on a square lattice, away from the border (float64 N x 2)."""
    along = np.arange(step, side - step / 2, step)
    return np.array([(x, y) for y in along for x in along], np.float64)


def tissue(dab_density, mpp=0.25, side=512, span=(0.0, 360.0), ground=0.0):
    """A field of cells 24 um apart, each with a membrane of that density, on an even ground: picture, centres."""
    centres = lattice(side, 24 / mpp)
    nuclei = discs(side, centres, NUCLEUS_UM / mpp) + np.float32(ground)
    return picture(nuclei, arcs(side, centres, MEMBRANE_UM / mpp, 1.5 / mpp, dab_density, span)), centres


def crowded(dab_density, mpp=0.25, side=512):
    """A field of cells 13 um apart whose membranes touch, as in a nest of tumour: picture, centres."""
    centres = lattice(side, 13 / mpp)
    nuclei = discs(side, centres, 3.2 / mpp) + np.float32(CYTOPLASM)
    return picture(nuclei, arcs(side, centres, 6.5 / mpp, 1.0 / mpp, dab_density)), centres


def nearest(found, centres):
    """Distance of each centre to the nearest found place, pixels."""
    return np.linalg.norm(found[:, None] - centres[None], axis=2).min(axis=0)


def _fine(centre):
    x, y = centre
    return round((x + 0.5) * FINER - 0.5), round((y + 0.5) * FINER - 0.5)


def _scanned(canvas, side):
    return cv2.GaussianBlur(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA), (0, 0), 0.7)
