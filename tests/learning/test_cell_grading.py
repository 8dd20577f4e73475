"""The network for cells is fitted on cells as a run sees them, drawn once, each with its true class."""

import numpy as np
import pytest

from wsi_her2.cells.grading import load_grader
from wsi_her2.learning.cell_views import CellSlides, drawn_views, match_cells
from wsi_her2.learning.settings import GradingFit

SLIDES = CellSlides(count=4, looks=("random",), seed=5, side_mm=0.3)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("views")


@pytest.fixture(scope="module")
def fields(home):
    return drawn_views(SLIDES, home, workers=2)


def test_cells_are_paired_nearest_first_and_each_once():
    true = np.array([[0.0, 0.0], [10.0, 0.0], [100.0, 0.0]])
    found = np.array([[4.0, 0.0], [1.0, 0.0], [60.0, 0.0], [9.0, 0.0]])
    assert match_cells(found, true, 12.0).tolist() == [-1, 0, -1, 1]
    assert match_cells(found[:1], true, 12.0).tolist() == [0]
    assert match_cells(np.zeros((0, 2)), true, 5.0).tolist() == []
    assert match_cells(found, np.zeros((0, 2)), 5.0).tolist() == [-1] * 4


def test_of_four_slides_one_does_not_stain_and_fields_hold_what_the_network_is_shown(fields):
    assert {field.slide for field in fields} <= set(range(SLIDES.count))
    classes = {number: [field.classes for field in fields if field.slide == number] for number in range(4)}
    assert set(np.concatenate(classes[0]).tolist()) == {-1, 0}
    assert set(np.concatenate([each for of in classes.values() for each in of]).tolist()) > {-1, 0, 1}
    for field in fields:
        count = len(field.classes)
        assert len(field.rings) == len(field.centre) == len(field.tumour) == count
        assert [share.shape for share in field.neighbours] == [(count, count)] * 3
        assert (field.tumour[field.classes >= 0] == 1).all()
        assert (field.classes >= 0).sum() >= 5


@pytest.mark.slow
def test_what_was_drawn_is_not_drawn_again_and_is_the_same_with_one_worker(fields, home, tmp_path):
    files = sorted(home.rglob("*.npz"))
    before = [path.stat().st_mtime_ns for path in files]
    again = drawn_views(SLIDES, home, workers=1)
    assert [path.stat().st_mtime_ns for path in files] == before
    alone = drawn_views(SLIDES, tmp_path, workers=1)
    for one in (again, alone):
        assert len(one) == len(fields)
        for mine, theirs in zip(one, fields, strict=True):
            np.testing.assert_array_equal(mine.rings, theirs.rings)
            np.testing.assert_array_equal(mine.classes, theirs.classes)


def test_a_fit_learns_and_is_the_same_each_time(fields):
    # Other tests run beside, and threads that wait for each other take a hundred times as long.
    pytest.importorskip("torch").set_num_threads(1)
    from wsi_her2.learning.cell_grading import fit_grading, measure_grading

    settings = GradingFit(width=8, epochs=30, learning_rate=1e-2)
    losses = []
    fitted = fit_grading(fields, settings, lambda _, loss: losses.append(loss))
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])
    measured = measure_grading(fitted, fields)
    assert measured.confusion[0][0] > 0.8
    # Of what is taken for a nucleus 0.55 is of the tumour.
    assert measured.tumour > 0.6
    np.testing.assert_allclose(np.sum(measured.confusion, axis=1)[0], 1, atol=1e-3)
    assert measure_grading(fit_grading(fields, settings), fields) == measured


@pytest.mark.slow
def test_train_writes_a_network_that_says_on_what_it_was_fitted(tmp_path):
    pytest.importorskip("torch")
    from pipelines.training.train import train

    config = tmp_path / "few.yaml"
    config.write_text(
        "kind: cells\nlooks: [random]\nslides: 4\nheld_out_slides: 4\nside_mm: 0.3\n"
        "seed: 5\nfit: {width: 8, epochs: 1}\n"
    )
    card = train(config, tmp_path / "out" / "grader.onnx", workers=2)
    grader = load_grader(tmp_path / "out" / "grader.onnx")
    assert grader.card["trained_on"] == card["trained_on"]
    assert "4 digital phantoms" in card["trained_on"]
    assert "no tissue of patients" in card["trained_on"]
    assert len(card["confusion"]) == 4
