"""`evaluate`: whatever form the truth has, slides meet it, and what does not is named."""

import csv
import json

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from wsi_her2.reports.slide_table import SLIDE_COLUMNS

WARWICK = (
    "CaseNo,HeR2 SCORE,PERCENTAGE CELLS WITH COMPLETE MEMBRANE STAINING IRRESPECTIVE OF INTENSITY\n"
    "1,3,90\n12,2+,40\n77,0,0\n"
)


def write_run(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "slides.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, SLIDE_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def row(slide, score, confidence="0.9", **more):
    return {"slide_id": slide, "status": "scored", "her2_score": score, "confidence": confidence, **more}


@pytest.fixture
def run(tmp_path):
    return write_run(
        tmp_path / "run",
        [
            row("1_HER2", "3+", pct_complete_membrane="84.0"),
            row("0012_HER2", "1+"),
            {"slide_id": "<b>x</b>", "status": "not_assessable", "reason": "=too little tissue"},
        ],
    )


def evaluate(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_a_table_with_warwicks_columns_meets_slides_by_their_case_number(run, tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text(WARWICK)
    done = evaluate(run, truth, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["slides"], found["assessed"]) == (2, 2)
    assert found["figures"]["accuracy"][0] == 0.5
    assert found["figures"]["complete_membrane_error"][0] == 6
    assert found["without_truth"] == ["<b>x</b>"]
    assert found["without_result"] == ["77"]
    rows = list(csv.DictReader((run / "evaluation" / "evaluation.csv").open()))
    assert [(r["slide_id"], r["truth"], r["call"], r["right"]) for r in rows] == [
        ("1_HER2", "3+", "3+", "true"),
        ("0012_HER2", "2+", "1+", "false"),
    ]
    page = (run / "evaluation" / "evaluation.html").read_text()
    assert "0012_HER2" in page
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page


def test_a_table_of_slides_and_a_folder_of_digital_slides_are_truths_too(run, tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("slide_id;her2_score;patient\n1_HER2;3+;a\n<b>x</b>;0;b\n0012_HER2;unclear;c\n")
    found = json.loads(evaluate(run, table, "--json").stdout)
    assert (found["slides"], found["assessed"]) == (2, 1)
    assert found["figures"]["assessed_share"][0] == 0.5
    assert any("unclear" in note for note in found["notes"])
    folder = tmp_path / "slides"
    folder.mkdir()
    truth = {"score": "3+", "percentages": {"0": 0, "1+": 0, "2+": 10, "3+": 90}, "pct_complete_membrane": 100}
    (folder / "1_HER2.truth.json").write_text(json.dumps(truth))
    done = evaluate(run / "slides.csv", folder, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "complete_membrane_error" in done.stdout
    assert (tmp_path / "out" / "evaluation.json").is_file()


def test_points_come_from_a_table_of_the_users(run, tmp_path):
    truth, points = tmp_path / "truth.csv", tmp_path / "points.csv"
    truth.write_text(WARWICK)
    points.write_text("15,10,5,0\n10,15,10,5\n5,10,15,10\n0,5,10,15\n")
    found = json.loads(evaluate(run, truth, "--points", points, "--json").stdout)
    assert found["figures"]["points_per_slide"][0] == 12.5
    points.write_text("1,2\n")
    refused = evaluate(run, truth, "--points", points)
    assert refused.exit_code == 2


@pytest.mark.parametrize("case", ["no run", "no truth", "another truth", "no table of results"])
def test_what_cannot_be_compared_is_an_error_that_says_why(run, tmp_path, case):
    truth = tmp_path / "truth.csv"
    truth.write_text("slide_id,her2_score\nelsewhere,2+\n")
    results = run
    if case == "no run":
        results = tmp_path / "nowhere"
    elif case == "no truth":
        truth = tmp_path / "missing.csv"
    elif case == "no table of results":
        results = truth
        truth.write_text("a,b\n1,2\n")
    done = evaluate(results, truth)
    assert done.exit_code == 2
    assert not (run / "evaluation").exists()
    if case == "another truth":
        assert "elsewhere" in done.output
        assert "1_HER2" in done.output


def test_calibrate_writes_a_configuration_that_score_takes(tmp_path):
    import numpy as np

    from pipelines.configuration import load_config
    from wsi_her2.scoring.rule import SCORES, Thresholds, scores_of

    rng = np.random.default_rng(0)
    true = rng.dirichlet((0.5, 0.5, 0.5, 0.3), 40) * 100
    found = true * (1, 1, 1, 3)
    found = 100 * found / found.sum(axis=1, keepdims=True)
    called = scores_of(found, Thresholds())
    rows = [
        row(f"s{i}", SCORES[called[i]], **{f"pct_{k}": f"{found[i, k]:.2f}" for k in range(4)}) for i in range(40)
    ]
    run = write_run(tmp_path / "run", rows)
    truth = tmp_path / "truth.csv"
    truth.write_text(
        "slide_id,her2_score\n"
        + "".join(f"s{i},{SCORES[k]}\n" for i, k in enumerate(scores_of(true, Thresholds())))
    )
    config = tmp_path / "ours.yaml"
    done = CliRunner().invoke(app, ["calibrate", "--results", str(run), "--truth", str(truth), "-o", str(config)])
    assert done.exit_code == 0, done.output
    assert "held-out folds" in done.stdout
    settings = load_config(config)
    assert settings.thresholds.positive_over_pct > 12
    assert settings.confidence.temperature > 0


@pytest.mark.parametrize("arguments", [[], ["--controls", "a", "--results", "b"], ["--results", "b"]])
def test_calibrate_says_what_to_name(arguments):
    done = CliRunner().invoke(app, ["calibrate", *arguments])
    assert done.exit_code == 2
    assert "--truth" in done.output
