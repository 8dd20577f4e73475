"""Membrane measures answer to thin DAB structures, to loops that close, and to nothing else."""

import cv2
import numpy as np
import pytest

from wsi_her2.models.membrane.measures import (
    MEASURES,
    MembraneScale,
    enclosed_share,
    measure_patches,
    ridge_strength,
)
from wsi_her2.slides.density import HEMATOXYLIN_DAB

SIDE = 128
MPP = 0.5


def patch_of(dab, hematoxylin=0.0):
    """A patch (uint8 H x W x 3, white point at 255) of given DAB and hematoxylin density."""
    first, second, _ = HEMATOXYLIN_DAB.matrix()
    density = np.asarray(dab)[..., None] * second + np.asarray(hematoxylin)[..., None] * first
    return np.clip(np.rint(255 * 10.0**-density), 0, 255).astype(np.uint8)


def drawn(draw, density, blur=0.7):
    """A DAB density map on which `draw` has drawn in white at eight times the size."""
    canvas = np.zeros((SIDE * 8, SIDE * 8), np.float32)
    draw(canvas)
    return cv2.GaussianBlur(cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA), (0, 0), blur) * density


def lines(width_um, spacing_um=20):
    """Parallel slanted lines."""

    def draw(canvas):
        for start in range(-SIDE, 2 * SIDE, round(spacing_um / MPP)):
            cv2.line(canvas, (start * 8, 0), (start * 8 + SIDE * 2, SIDE * 8), 1.0, round(width_um / MPP * 8))

    return draw


def rings(open_degrees=0.0, width_um=1.5, radius_um=6.0):
    """Cells side by side, each with a gap of so many degrees in its membrane."""

    def draw(canvas):
        radius, step = round(radius_um / MPP * 8), round(3.0 * radius_um / MPP * 8)
        for x in range(step, SIDE * 8 - step // 2, step):
            for y in range(step, SIDE * 8 - step // 2, step):
                arc = (30 + open_degrees / 2, 390 - open_degrees / 2)
                cv2.ellipse(canvas, (x, y), (radius, radius), 0, *arc, 1.0, round(width_um / MPP * 8))

    return draw


def measured(patch):
    return dict(zip(MEASURES, measure_patches(patch[None])[0].tolist(), strict=True))


# Ridges


def line_of(width, contrast=1.0):
    density = np.zeros((65, 65), np.float32)
    density[:, 32 - width // 2 : 32 - width // 2 + width] = contrast
    return density


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_a_line_as_wide_as_the_scale_responds_with_about_half_its_contrast(sigma):
    width = int(2 * sigma) + 1
    assert ridge_strength(line_of(width), (sigma,))[32, 32] == pytest.approx(0.5, abs=0.15)


def test_ridge_strength_grows_with_contrast_and_does_not_depend_on_direction():
    vertical = ridge_strength(line_of(3, 0.8), (1.0, 2.0))
    np.testing.assert_allclose(ridge_strength(line_of(3, 0.4), (1.0, 2.0)), vertical / 2, atol=1e-6)
    np.testing.assert_allclose(ridge_strength(line_of(3, 0.8).T, (1.0, 2.0)), vertical.T, atol=1e-6)
    slanted = cv2.warpAffine(
        np.pad(line_of(3, 0.8), 30, mode="edge"), cv2.getRotationMatrix2D((62, 62), 30, 1), (125, 125)
    )
    assert ridge_strength(slanted, (1.0, 2.0))[62, 62] == pytest.approx(vertical[32, 32], rel=0.15)


def test_broad_smears_flat_ground_and_pits_do_not_respond():
    y, x = np.mgrid[:129, :129] - 64.0
    smear = np.exp(-(x**2 + y**2) / (2 * 25.0**2)).astype(np.float32)
    assert ridge_strength(smear, (1.0, 2.0)).max() < 0.02
    assert ridge_strength(np.full((65, 65), 0.7, np.float32), (1.0, 2.0)).max() < 1e-5
    assert ridge_strength(1 - line_of(3), (1.0, 2.0))[32, 32] < 1e-5


def test_the_strongest_scale_counts():
    density = line_of(3)
    both = ridge_strength(density, (1.0, 2.0))
    each = [ridge_strength(density, (sigma,)) for sigma in (1.0, 2.0)]
    np.testing.assert_array_equal(both, np.maximum(*each))


def test_thin_lines_give_coverage_and_blush_of_the_same_mean_gives_none():
    thin = drawn(lines(1.5), 0.35)
    blush = np.full((SIDE, SIDE), thin.mean())
    assert measured(patch_of(thin))["coverage_faint"] > 0.05
    assert measured(patch_of(blush))["coverage_faint"] < 0.001
    assert measured(patch_of(thin))["ridge_p95"] > 5 * measured(patch_of(blush))["ridge_p95"]
    assert measured(patch_of(thin))["dab_mean"] == pytest.approx(measured(patch_of(blush))["dab_mean"], abs=0.01)


@pytest.mark.parametrize(
    ("density", "faint", "moderate", "intense"),
    [(0.0, 0, 0, 0), (0.1, 1, 0, 0), (0.28, 1, 1, 0), (0.9, 1, 1, 1)],
)
def test_coverage_counts_lines_of_its_strength(density, faint, moderate, intense):
    got = measured(patch_of(drawn(lines(1.5), density)))
    for name, expected in (("faint", faint), ("moderate", moderate), ("intense", intense)):
        assert (got[f"coverage_{name}"] > 0.02) == bool(expected), name


# Completeness and thickness


def test_closed_membranes_are_complete_and_open_ones_are_not():
    closed, half_open = (measured(patch_of(drawn(rings(gap), 0.4))) for gap in (0, 60))
    assert closed["completeness"] > 0.15
    assert half_open["completeness"] < 0.01
    assert half_open["coverage_faint"] > 0.6 * closed["coverage_faint"]


def test_completeness_grows_with_the_share_of_closed_cells():
    shares = []
    for broken in (0, 1, 2):
        canvas = np.zeros((SIDE, SIDE), bool)
        for index, (x, y) in enumerate(np.ndindex(3, 3)):
            ring = np.zeros((SIDE, SIDE), np.uint8)
            gap = 40 if index % 3 < broken else 0
            cv2.ellipse(ring, (20 + 40 * x, 20 + 40 * y), (12, 12), 0, gap, 360, 1, 2)
            canvas |= ring.astype(bool)
        shares.append(enclosed_share(canvas, (60, 1200)))
    assert shares[0] > shares[1] > shares[2] > 0
    assert shares[1] == pytest.approx(shares[0] * 2 / 3, rel=0.01)


def test_loops_that_are_no_cell_do_not_count():
    def loop(radius):
        ring = np.zeros((SIDE, SIDE), np.uint8)
        cv2.circle(ring, (64, 64), radius, 1, 2)
        return enclosed_share(ring.astype(bool), (60, 1200))

    assert loop(3) == 0
    assert loop(12) == pytest.approx(np.pi * 11**2 / SIDE**2, rel=0.1)
    assert loop(30) == 0


def test_a_loop_that_reaches_the_edge_of_the_patch_does_not_count():
    ring = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(ring, (5, 64), 12, 1, 2)
    assert enclosed_share(ring.astype(bool), (60, 1200)) == 0


@pytest.mark.parametrize("membrane", [np.zeros((20, 20), bool), np.ones((20, 20), bool)])
def test_no_membrane_and_nothing_but_membrane_enclose_nothing(membrane):
    assert enclosed_share(membrane, (1, 50)) == 0


@pytest.mark.parametrize("width_um", [1.5, 2.0, 3.0])
def test_thickness_is_the_width_of_the_lines(width_um):
    got = measured(patch_of(drawn(lines(width_um), 0.5)))
    assert got["thickness_um"] == pytest.approx(width_um, rel=0.3)


def test_thickness_orders_widths():
    got = [measured(patch_of(drawn(lines(w), 0.5)))["thickness_um"] for w in (1.0, 1.5, 2.0, 2.5, 3.0)]
    assert got == sorted(got)


# The rest


def test_nuclei_are_hematoxylin_and_no_membrane():
    nuclei = np.zeros((SIDE, SIDE), np.float32)
    for x, y in np.ndindex(4, 4):
        cv2.circle(nuclei, (16 + 32 * x, 16 + 32 * y), 7, 1.0, -1)
    nuclei = cv2.GaussianBlur(nuclei, (0, 0), 0.8) * 0.3
    got = measured(patch_of(np.zeros((SIDE, SIDE)), nuclei))
    assert got["nuclear_share"] == pytest.approx(16 * np.pi * 7**2 / SIDE**2, rel=0.35)
    assert got["dab_p99"] < 0.03
    assert got["coverage_faint"] < 0.005
    assert got["round_nuclear_share"] > 0.8 * got["nuclear_share"]
    assert got["nuclear_contrast"] > 3


def test_spindle_nuclei_are_not_round_and_run_along_a_fibre():
    spindles = np.zeros((SIDE, SIDE), np.float32)
    for y in range(10, SIDE, 14):
        for x in range(5, SIDE, 40):
            cv2.line(spindles, (x, y), (x + 24, y), 1.0, 1)
    round_ones = np.zeros((SIDE, SIDE), np.float32)
    for x, y in np.ndindex(4, 4):
        cv2.circle(round_ones, (16 + 32 * x, 16 + 32 * y), 7, 1.0, -1)
    along, around = (measured(patch_of(np.zeros((SIDE, SIDE)), 0.3 * nuclei)) for nuclei in (spindles, round_ones))
    assert along["round_nuclear_share"] < 0.2 * along["nuclear_share"]
    assert along["edge_isotropy"] < 0.3 < 0.5 < around["edge_isotropy"]


def test_glass_is_blank_and_carries_nothing():
    got = measured(np.full((SIDE, SIDE, 3), 255, np.uint8))
    assert got.pop("blank_share") == 1
    assert got.pop("ridge_ratio") >= 0
    assert all(value == pytest.approx(0, abs=1e-6) for value in got.values())


def test_black_is_measured_without_complaint():
    with np.errstate(all="raise"):
        assert np.isfinite(measure_patches(np.zeros((1, SIDE, SIDE, 3), np.uint8))).all()


def test_measures_are_one_float32_row_a_patch_and_rows_do_not_depend_on_the_batch(ihc_image):
    batch = np.stack([ihc_image[y : y + 128, x : x + 128] for x in (0, 200, 384) for y in (0, 300)])
    got = measure_patches(batch)
    assert (got.dtype, got.shape) == (np.float32, (6, len(MEASURES)))
    for row, patch in zip(got, batch, strict=True):
        np.testing.assert_array_equal(measure_patches(patch[None])[0], row)
    assert measure_patches(batch[:0]).shape == (0, len(MEASURES))


def test_ridges_are_the_same_to_the_bit_wherever_the_array_lies_in_memory():
    density = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    strengths = []
    for offset in range(0, 64, 4):
        room = np.empty(density.nbytes + 128, np.uint8)
        start = -room.ctypes.data % 64 + offset
        placed = room[start : start + density.nbytes].view(np.float32).reshape(density.shape)
        placed[:] = density
        strengths.append(ridge_strength(placed, (1.0, 2.0)))
    for strength in strengths[1:]:
        np.testing.assert_array_equal(strength, strengths[0])


def test_sizes_are_microns():
    density = drawn(rings(), 0.4)
    finer = cv2.resize(density, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_CUBIC)
    coarse, fine = (
        dict(
            zip(
                MEASURES, measure_patches(patch_of(np.maximum(d, 0))[None], MembraneScale(mpp=mpp))[0], strict=True
            )
        )
        for d, mpp in ((density, 0.5), (finer, 0.25))
    )
    for name in ("coverage_faint", "completeness", "ridge_p95"):
        assert fine[name] == pytest.approx(coarse[name], rel=0.25), name
