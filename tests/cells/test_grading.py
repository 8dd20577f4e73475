"""The network for cells runs without torch as it was fitted, and its margins say what any DAB scale would."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.cells.conftest import tissue
from wsi_her2.cells.field import CellCutoffs, grade_cells, view_cells
from wsi_her2.cells.grading import (
    BORDERS,
    CellGrader,
    CellViews,
    centre_inputs,
    judge_cells,
    load_grader,
    neighbour_shares,
    ring_inputs,
)
from wsi_her2.cells.rings import DIRECTIONS, Rings

MPP = 0.25
AT_ONE = CellCutoffs(1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def views():
    """Cells of a field, half of whose circumference stains, each cell by another strength."""
    seen = view_cells(tissue(0.2, span=(10.0, 190.0))[0], MPP)[1]
    factor = np.random.default_rng(2).uniform(0.1, 3, (len(seen.surround), 1, 1, 1)).astype(np.float32)
    return replace(seen, rings=replace(seen.rings, rays=seen.rings.rays * factor))


def turned(views, directions):
    rings = views.rings
    rolled = {name: np.roll(getattr(rings, name), directions, axis=1) for name in ("rays", "gaps", "reach_um")}
    return replace(views, rings=replace(rings, **rolled))


class Linear(CellGrader):
    """A grader whose log odds are known: they rise with the logarithm of DAB from a cell's own border on."""

    def __init__(self, borders):
        self.borders = np.asarray(borders, np.float32)

    def log_odds(self, views, scales=(1.0,)):
        return np.stack([self.odds_on(float(np.log(scale))) for scale in scales])

    def odds_on(self, log_scale):
        odds = 3 * (log_scale - np.log(self.borders))
        return np.concatenate([odds, np.full((len(odds), 1), log_scale + 1)], axis=1).astype(np.float32)


def views_of(count):
    """Views that only say how many cells there are."""
    rings = Rings(*(np.zeros((count, DIRECTIONS), np.float32) for _ in range(5)))
    return CellViews(np.zeros((count, 2)), rings, np.zeros((count, 7, 3), np.float32), np.ones(count, np.float32))


def test_it_runs_without_torch_as_it_was_fitted(views, tmp_path):
    torch = pytest.importorskip("torch")
    from wsi_her2.learning.cell_grading import GradingNetwork, write_grader

    torch.manual_seed(3)
    shown = ring_inputs(views.rings)
    centre = centre_inputs(views.profile, views.surround)
    network = GradingNetwork(shown.shape[2], centre.shape[1], 12).eval()
    write_grader(network, {"trained_on": "nothing"}, tmp_path / "grader.onnx")
    neighbours = torch.from_numpy(np.stack(neighbour_shares(views.xy_um, views.surround)))
    with torch.no_grad():
        expected = network(torch.from_numpy(shown), torch.from_numpy(centre), [neighbours]).numpy()
    grader = load_grader(tmp_path / "grader.onnx")
    assert grader.card == {"trained_on": "nothing"}
    np.testing.assert_allclose(grader.log_odds(views)[0], expected, atol=1e-4)
    np.testing.assert_allclose(grader.log_odds(views, (0.5, 1.0))[1], expected, atol=1e-4)
    assert np.ptp(expected, axis=0).min() > 1e-3, "else every network would agree"


def test_the_network_that_comes_along_says_on_what_it_was_fitted():
    card = load_grader().card
    assert "digital phantoms" in card["trained_on"]
    assert "no tissue of patients" in card["trained_on"]
    assert card["validated"] is False


@pytest.mark.parametrize("directions", [1, 5, 16])
def test_how_a_cell_is_turned_does_not_matter(views, directions):
    np.testing.assert_allclose(
        load_grader().log_odds(turned(views, directions)), load_grader().log_odds(views), atol=2e-4
    )


def test_a_factor_on_dab_is_that_much_more_dab(views):
    of_dab = np.array([1.5, 1.5, 1.0, 1.5, 1.5], np.float32)
    rings = replace(views.rings, rays=views.rings.rays * of_dab, gaps=1.5 * views.rings.gaps)
    denser = replace(views, rings=rings, profile=views.profile * np.array([1.0, 1.5, 1.0], np.float32))
    np.testing.assert_allclose(load_grader().log_odds(views, (1.5,)), load_grader().log_odds(denser), atol=1e-4)


def test_a_margin_is_how_much_weaker_dab_could_be():
    needed = np.array([[0.5, 0.9, 1.4], [0.8, 1.2, 2.9], [1.1, 1.3, 1.7]])
    margins, tumour = judge_cells(Linear(needed), views_of(3))
    np.testing.assert_allclose(margins, 1 / needed, rtol=1e-5)
    np.testing.assert_allclose(tumour, 1 / (1 + np.exp(-1)), atol=1e-5)


def test_far_below_a_border_there_is_no_margin_and_far_above_it_is_the_greatest_that_is_tried():
    margins = judge_cells(Linear([[0.01, 1.0, 100.0]]), views_of(1))[0][0]
    assert margins[0] == pytest.approx(np.exp(1.2), rel=1e-5)
    assert margins[1] == pytest.approx(1.0, rel=1e-5)
    assert margins[2] == 0.0


def test_no_cell_is_intense_without_being_complete_nor_complete_without_staining():
    margins, _ = judge_cells(Linear([[2.0, 0.5, 0.4], [0.5, 2.0, 0.4]]), views_of(2))
    np.testing.assert_allclose(margins, [[0.5, 0.5, 0.5], [2.0, 0.5, 0.5]], rtol=1e-5)
    assert grade_cells(margins, AT_ONE).tolist() == [0, 1]


def test_classes_on_a_scale_that_was_tried_are_those_of_the_network(views):
    margins, _ = judge_cells(load_grader(), views)
    for scale in np.exp([-0.6, 0.0, 0.6]).tolist():
        beyond = load_grader().log_odds(views, (scale,))[0, :, :3] > 0
        expected = np.logical_and.accumulate(beyond, axis=1).sum(axis=1)
        agree = grade_cells(margins, AT_ONE, scale) == expected
        # Of others the odds do not rise with DAB all the way.
        assert agree.mean() >= (1.0 if scale == 1 else 0.9)


def test_where_odds_fall_with_more_dab_the_border_nearest_to_the_dab_as_it_is_counts():
    class Waves(Linear):
        def odds_on(self, log_scale):
            step = round(log_scale / 0.6) + 2
            rising, falling = [1, -1, -1, 1, 1][step], [-1, 1, 1, -1, 1][step]
            return np.array([[falling, rising, -1.0, 0.0]], np.float32)

    margins = judge_cells(Waves([]), views_of(1))[0][0]
    assert margins == pytest.approx([np.exp(0.9), np.exp(-0.3), 0.0], rel=1e-5)


def test_neighbours_count_by_their_distance_and_stroma_does_not():
    xy_um = np.array([[0.0, 0.0], [9.0, 0.0], [30.0, 0.0], [9.0, 9.0]])
    surround = np.array([0.2, 0.2, 0.2, 0.01], np.float32)
    near, far, _ = neighbour_shares(xy_um, surround)
    for shares in (near, far):
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-4)
        assert (np.diag(shares) == 0).all()
        assert (shares[:, 3] == 0).all()
    assert near[0, 1] > 50 * near[0, 2]
    assert far[0, 1] < 3 * far[0, 2]


def test_a_cell_alone_has_no_neighbours_and_is_graded_all_the_same(views):
    rings = Rings(**{name: part[:1] for name, part in vars(views.rings).items()})
    alone = CellViews(views.xy_um[:1], rings, views.profile[:1], views.surround[:1])
    assert [shares.tolist() for shares in neighbour_shares(alone.xy_um, alone.surround)] == 3 * [[[0.0]]]
    assert all(np.isfinite(judged).all() for judged in judge_cells(load_grader(), alone))


def test_no_cells_have_no_margins():
    margins, tumour = judge_cells(load_grader(), views_of(0))
    assert margins.shape == (0, len(BORDERS))
    assert tumour.shape == (0,)


def test_what_it_says_does_not_depend_on_the_number_of_threads(views, tmp_path):
    """Sums that are split over threads differ in their last bits, and a run's results with them."""
    code = (
        "import sys, pickle, hashlib\n"
        "from wsi_her2.cells.grading import judge_cells, load_grader\n"
        "views = pickle.load(open(sys.argv[1], 'rb'))\n"
        "margins, tumour = judge_cells(load_grader(), views)\n"
        "print(hashlib.sha256(margins.tobytes() + tumour.tobytes()).hexdigest())\n"
    )
    kept = tmp_path / "views.pickle"
    kept.write_bytes(pickle.dumps(views))
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(kept)],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "4")
    }
    assert len(found) == 1
