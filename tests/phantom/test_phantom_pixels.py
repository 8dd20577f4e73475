"""What is drawn can be measured: DAB on the membranes follows the class in the truth."""

import numpy as np
import pytest

from wsi_her2.phantom import PhantomSpec, make_phantom
from wsi_her2.phantom.tissue import Tissue


def ring_dab(phantom, cells, region):
    """DAB density around each cell, measured from the pixels as a scorer would: a ring about the nucleus."""
    x0, y0, size = region
    mpp = phantom.spec.mpp
    pixels = phantom.read(x0, y0, size, size).astype(float)
    density = -np.log10(np.clip(pixels, 1, None) / phantom.look.white)
    vectors = phantom.look.absorption[[0, 1, 3]]
    dab = (density @ np.linalg.inv(vectors))[..., 1]
    half = int(20 / mpp)
    found = []
    for cell in cells:
        row, column = int(cell["y_um"] / mpp) - y0, int(cell["x_um"] / mpp) - x0
        box = np.s_[max(0, row - half) : row + half, max(0, column - half) : column + half]
        yy, xx = np.mgrid[box[0].start : min(box[0].stop, size), box[1].start : min(box[1].stop, size)]
        dx, dy = (xx + x0) * mpp - cell["x_um"], (yy + y0) * mpp - cell["y_um"]
        scaled = np.hypot(
            (dx * np.cos(cell["angle"]) + dy * np.sin(cell["angle"])) / cell["long_um"],
            (dy * np.cos(cell["angle"]) - dx * np.sin(cell["angle"])) / cell["short_um"],
        )
        ring = dab[box][(scaled > 0.6) & (scaled < 1.05)]
        found.append(np.percentile(ring, 75))
    return np.array(found)


@pytest.mark.parametrize("look", ["oesophagus_tma", "nanozoomer", "aperio", "bluish"])
def test_membrane_dab_rises_with_the_class(look):
    spec = PhantomSpec(
        score=None,
        class_fractions=(0.25, 0.25, 0.25, 0.25),
        clustering=1.0,
        width_mm=0.3,
        height_mm=0.3,
        seed=4,
        look=look,
        pattern="solid",
        tumour_share=0.7,
    )
    phantom = make_phantom(spec, filled=True)
    cells = phantom.cells[phantom.cells["kind"] == Tissue.INVASIVE]
    low, high = 20, spec.width_px * spec.mpp - 20
    inside = np.logical_and.reduce([(cells[n] > low) & (cells[n] < high) for n in ("x_um", "y_um")])
    cells = cells[inside]
    dab = ring_dab(phantom, cells, (0, 0, spec.width_px))
    medians = [np.median(dab[cells["her2"] == k]) for k in range(4)]
    assert medians[0] < medians[1] < medians[2] < medians[3]
    assert medians[3] > medians[2] + 0.1
    # A shared membrane blurs neighbours into each other, yet the order holds cell by cell in most pairs.
    assert np.corrcoef(dab, cells["her2"])[0, 1] > 0.7


def test_a_complete_membrane_closes_around_the_cell():
    spec = PhantomSpec(
        score="3+",
        class_fractions=(0.0, 0.0, 0.0, 1.0),
        width_mm=0.2,
        height_mm=0.2,
        seed=6,
        look="oesophagus_tma",
        pattern="solid",
        tumour_share=0.8,
    )
    phantom = make_phantom(spec, filled=True)
    _, planes = phantom.draw(0, 0, spec.width_px, spec.height_px)
    cells = phantom.cells[phantom.cells["kind"] == Tissue.INVASIVE]
    middle = cells[(abs(cells["x_um"] - 100) < 60) & (abs(cells["y_um"] - 100) < 60)]
    closed = []
    for cell in middle:
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        peaks = []
        for a in angle:
            r = np.linspace(2.5, 10, 40)
            x = ((cell["x_um"] + r * np.cos(a)) / spec.mpp).astype(int).clip(0, spec.width_px - 1)
            y = ((cell["y_um"] + r * np.sin(a)) / spec.mpp).astype(int).clip(0, spec.height_px - 1)
            peaks.append(planes.dab[y, x].max())
        closed.append((np.array(peaks) > 0.2).mean())
    assert len(closed) > 20
    assert np.median(closed) > 0.9


def test_look_names_change_the_colours_and_not_the_cells():
    base = PhantomSpec(score="2+", width_mm=0.3, height_mm=0.3, mpp=0.5, seed=1, look="aperio")
    other = PhantomSpec(score="2+", width_mm=0.3, height_mm=0.3, mpp=0.5, seed=1, look="nanozoomer")
    one, two = make_phantom(base), make_phantom(other)
    assert np.array_equal(one.cells, two.cells)
    assert np.abs(one.read(0, 0, 64, 64).astype(int) - two.read(0, 0, 64, 64)).mean() > 10


@pytest.mark.parametrize("artefact", ["pen", "dust", "bubbles", "coverslip", "blur", "fold", "tear", "edge"])
def test_every_artefact_shows(artefact):
    spec = PhantomSpec(score="2+", width_mm=0.8, height_mm=0.8, mpp=1.0, seed=9, look="aperio")
    plain = make_phantom(spec).read(0, 0, 800, 800).astype(int)
    marked = make_phantom(PhantomSpec(**(spec.__dict__ | {"artefacts": (artefact,)}))).read(0, 0, 800, 800)
    assert (np.abs(marked - plain).max(-1) > 8).mean() > 0.0005
