"""What reviewers signed and drew leaves the run in forms that the other commands take."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.commands.runs import RunExport
from pipelines.configuration import load_config
from pipelines.exports.export import EXPORTS
from pipelines.results import read_result, write_result
from pipelines.review.exports import REVIEW_COLUMNS, signed_scores, write_reviews_csv, write_truth
from pipelines.review.journal import JOURNAL_FILE, Journal, Review, new_review
from pipelines.run.score import score
from tests.pipelines.agreement.test_evaluate import row, write_run
from tests.pipelines.conftest import ihc_pixels, rows, write_slide
from wsi_her2.reports.slide_table import unguarded
from wsi_her2.scoring.rule import SCORES, Thresholds, scores_of
from wsi_her2.slides.regions import read_regions


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def sign(run: Path, slide_id: str, score: str | None, reviewer: str = "A", **more: object) -> Review:
    """Sign a score; None for unsure."""
    verdict = "unsure" if score is None else "overrule"
    given = {"slide_id": slide_id, "reviewer": reviewer, "verdict": verdict, "score": score, **more}
    return Journal(run / JOURNAL_FILE).add_review(new_review(**given))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def drawn(*squares: tuple[str, int, int, int]) -> dict[str, object]:
    features = []
    for name, x, y, side in squares:
        ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"name": name}, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", [row("a", "3+"), row("b", "1+"), row("c", "2+"), row("=d", "0")])


def test_the_command_offers_every_kind_of_export() -> None:
    assert [kind.value for kind in RunExport] == list(EXPORTS)


def test_every_review_is_in_the_table_oldest_first_and_none_is_a_formula(run: Path, tmp_path: Path) -> None:
    comment = '=HYPERLINK("http://x")\n+1; "quoted", ä'
    sign(run, "=d", "1+", reviewer="@A", called="0", reason="border case", comment=comment, fingerprint="f")
    sign(run, "a", None, reviewer="B")
    sign(run, "=d", "2+", reviewer="B", called="0", rescored="1+")
    done = command("export", run, "reviews", "-o", tmp_path / "new" / "reviews.csv")
    assert done.exit_code == 0, done.output
    assert "3 reviews" in done.stdout
    found = table(tmp_path / "new" / "reviews.csv")
    assert tuple(found[0]) == REVIEW_COLUMNS
    assert [review["number"] for review in found] == ["1", "2", "3"]
    assert unguarded(found[0]["comment"]) == comment
    assert [found[0][name] for name in ("slide_id", "reviewer", "score")] == ["'=d", "'@A", "1+"]
    assert [found[2][name] for name in ("called", "rescored", "verdict", "regions")] == ["0", "1+", "overrule", ""]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for review in found for cell in review.values())
    again = command("export", run, "reviews", "-o", tmp_path / "b.csv", "--reviewer", "b")
    assert "2 reviews" in again.stdout


def test_reviews_of_an_earlier_result_are_told(run: Path) -> None:
    for fingerprint in ("old", "new"):
        sign(run, "a", "2+", fingerprint=fingerprint)
    sign(run, "gone", "2+")
    stream = io.StringIO()
    write_reviews_csv(stream, Journal(run / JOURNAL_FILE).reviews(), {"a": "new"})
    assert [review["of_current_result"] for review in csv.DictReader(io.StringIO(stream.getvalue()))] == [
        "false",
        "true",
        "",
    ]


def test_the_newest_review_of_a_slide_is_its_truth_and_what_has_none_is_named(run: Path, tmp_path: Path) -> None:
    sign(run, "a", "2+")
    sign(run, "a", "1+", reviewer="B")
    sign(run, "b", "1+")
    sign(run, "b", None)
    sign(run, "=d", "3+")
    Journal(run / JOURNAL_FILE).add_review(new_review(slide_id="c", reviewer="A", verdict="agree"))
    done = command("export", run, "truth", "-o", tmp_path / "truth.csv")
    assert done.exit_code == 0, done.output
    assert [(r["slide_id"], r["her2_score"], r["reviewer"]) for r in table(tmp_path / "truth.csv")] == [
        ("'=d", "3+", "A"),
        ("a", "1+", "B"),
    ]
    assert "signed as unsure: b" in done.stderr
    assert "no score: c" in done.stderr
    assert "2 slides" in done.stdout


def test_of_several_reviewers_one_counts_or_what_most_of_them_say(run: Path) -> None:
    for reviewer, scores in {"A": "2+ 2+ 1+ 1+", "B": "2+ 3+ 1+ ?", "C": "3+ 1+ ? 1+"}.items():
        for slide_id, signed in zip("abcd", scores.split(), strict=True):
            sign(run, slide_id, "0", reviewer)
            sign(
                run, slide_id, None if signed == "?" else signed, reviewer.lower() if slide_id == "a" else reviewer
            )
    reviews = Journal(run / JOURNAL_FILE).reviews()
    most = signed_scores(reviews, consensus=True)
    assert {slide: signed.score for slide, signed in most.scores.items()} == {"a": "2+", "c": "1+", "d": "1+"}
    assert most.divided == ["b"]
    assert most.scores["d"].reviewers == ("A", "C")
    newest = signed_scores(reviews)
    assert ({slide: signed.score for slide, signed in newest.scores.items()}, newest.unsure) == (
        {"a": "3+", "b": "1+", "d": "1+"},
        ["c"],
    )
    stream = io.StringIO()
    of_b = write_truth(stream, reviews, reviewer="b")
    assert {slide: signed.score for slide, signed in of_b.scores.items()} == {"a": "2+", "b": "3+", "c": "1+"}
    assert of_b.unsure == ["d"]
    assert len(stream.getvalue().splitlines()) == 4


def test_a_signed_truth_is_one_for_evaluate(run: Path, tmp_path: Path) -> None:
    for slide_id, signed in {"a": "3+", "b": "2+", "c": None, "=d": "0"}.items():
        sign(run, slide_id, signed)
    assert command("export", run, "truth", "-o", tmp_path / "truth.csv").exit_code == 0
    done = command("evaluate", run, tmp_path / "truth.csv", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["slides"], found["assessed"]) == (3, 3)
    assert found["figures"]["accuracy"][0] == pytest.approx(2 / 3, abs=1e-4)
    assert (found["without_truth"], found["without_result"], found["notes"]) == (["c"], [], [])


def test_a_signed_truth_is_one_for_calibrate(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    true = chance.dirichlet((0.5, 0.5, 0.5, 0.3), 40) * 100
    found = true * (1, 1, 1, 3)
    found = 100 * found / found.sum(axis=1, keepdims=True)
    called = scores_of(found, Thresholds())
    run = write_run(
        tmp_path / "run",
        [
            row(f"s{n}", SCORES[called[n]], **{f"pct_{k}": f"{found[n, k]:.2f}" for k in range(4)})
            for n in range(40)
        ],
    )
    for number, right in enumerate(scores_of(true, Thresholds())):
        call = SCORES[called[number]]
        verdict = "agree" if call == SCORES[right] else "overrule"
        given = {"slide_id": f"s{number}", "reviewer": "A", "verdict": verdict, "called": call}
        Journal(run / JOURNAL_FILE).add_review(new_review(**given, score=SCORES[right]))
    assert command("export", run, "truth", "-o", tmp_path / "truth.csv").exit_code == 0
    config = tmp_path / "ours.yaml"
    done = command("calibrate", "--results", run, "--truth", tmp_path / "truth.csv", "-o", config)
    assert done.exit_code == 0, done.output
    assert load_config(config).thresholds.positive_over_pct > 12


@pytest.mark.parametrize(
    ("what", "more", "words"),
    [
        ("reviews", (), "no reviews yet"),
        ("truth", ("--reviewer", "Nobody"), "no reviews yet"),
        ("regions", (), "nobody has drawn regions"),
    ],
)
def test_where_nothing_was_signed_or_drawn_the_error_says_so(
    run: Path, tmp_path: Path, what: str, more: tuple[str, ...], words: str
) -> None:
    done = command("export", run, what, "-o", tmp_path / "out", *more)
    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "out").exists()
    assert not (run / JOURNAL_FILE).exists()


def test_wrong_places_and_names_are_errors_that_say_why(run: Path, tmp_path: Path) -> None:
    sign(run, "a", None, reviewer="Dr. A")
    nowhere = command("export", tmp_path / "nowhere", "reviews", "-o", tmp_path / "x.csv")
    assert (nowhere.exit_code, "no such folder" in nowhere.stderr) == (2, True)
    folder = command("export", run, "reviews", "-o", tmp_path)
    assert (folder.exit_code, "cannot be written" in folder.stderr) == (2, True)
    another = command("export", run, "truth", "-o", tmp_path / "x.csv", "--reviewer", "B")
    assert (another.exit_code, "by Dr. A" in another.stderr) == (2, True)
    unsure = command("export", run, "truth", "-o", tmp_path / "x.csv")
    assert (unsure.exit_code, "which score is right" in unsure.stderr) == (2, True)
    assert command("export", run, "letters", "-o", tmp_path / "x.csv").exit_code == 2
    assert not (tmp_path / "x.csv").exists()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run over two equal slides, `one.tif` and `two.tif`, that lie in `slides` beside it."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "slides").mkdir()
    one = write_slide(folder / "slides" / "one.tif", ihc_pixels(gain=1.2))
    shutil.copy(one, folder / "slides" / "two.tif")
    quick = {"compute.workers": 2, "compute.processes": False, "cells.mode": "none", "gate.min_tumour_patches": 1}
    score([folder / "slides"], folder / "out", load_config(None, quick), console=Console(file=io.StringIO()))
    return folder / "out"


@pytest.fixture
def own_run(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "out"))


def test_the_command_that_is_printed_scores_within_the_drawn_regions(
    own_run: Path, tmp_path: Path, cli_of: Callable[[str], Result]
) -> None:
    journal = Journal(own_run / JOURNAL_FILE)
    journal.add_drawn("one", drawn(("exclude", 0, 0, 10)), "A")
    journal.add_drawn("one", drawn(("score", 128, 128, 700), ("exclude", 200, 200, 200)), "A")
    journal.add_drawn("two", drawn(("score", 128, 128, 700)), "B")
    journal.add_drawn("two", drawn(), "B")
    done = command("export", own_run, "regions", "-o", tmp_path / "drawn")
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["one.tif.geojson"]
    said = done.stdout.splitlines()[-1].removeprefix("Next: wsi-her2 ")
    again = cli_of(said.replace("NEW_FOLDER", shlex.quote(str(tmp_path / "again"))))
    assert again.exit_code in (0, 1), again.output
    result = read_result(tmp_path / "again" / "one")
    assert result is not None
    assert result.regions is not None
    assert (result.regions.included, result.regions.excluded) == ({"roi": 1}, {"ignore": 1})
    assert 0 < result.n_patches < int(rows(own_run)["one"]["n_patches"])


@pytest.fixture
def cli_of() -> Callable[[str], Result]:
    def run(line: str) -> Result:
        return command(*shlex.split(line), "--cells", "none", "--workers", "1")

    return run


def test_regions_that_restricted_the_run_go_on_to_hold(scored: Path, tmp_path: Path) -> None:
    slides, earlier = scored.parent / "slides", tmp_path / "earlier"
    earlier.mkdir()
    for name in ("one", "two"):
        content = drawn(("Tumor", 100, 100, 900), ("DCIS", 100, 100, 100))
        (earlier / f"{name}.geojson").write_text(json.dumps(content))
    quick = {"compute.workers": 2, "compute.processes": False, "cells.mode": "none", "regions.files": [earlier]}
    score([slides], tmp_path / "out", load_config(None, quick), console=Console(file=io.StringIO()))
    journal = Journal(tmp_path / "out" / JOURNAL_FILE)
    journal.add_drawn("one", drawn(("exclude", 300, 300, 50)), "A")
    journal.add_drawn("two", drawn(("score", 300, 300, 400)), "A")
    assert command("export", tmp_path / "out", "regions", "-o", tmp_path / "drawn").exit_code == 0
    found = {
        name: sorted((region.name, len(region.rings[0])) for region in read_regions(tmp_path / "drawn" / name))
        for name in ("one.tif.geojson", "two.tif.geojson")
    }
    assert found == {
        "one.tif.geojson": [("ignore", 5), ("ignore", 5), ("roi", 5)],
        "two.tif.geojson": [("ignore", 5), ("roi", 5)],
    }
    shutil.rmtree(earlier)
    lost = command("export", tmp_path / "out", "regions", "-o", tmp_path / "lost")
    assert lost.exit_code == 2
    assert "one is left out: it was scored within one.geojson" in lost.stderr
    assert not (tmp_path / "lost").exists()


def test_slides_of_one_name_are_left_out_and_other_regions_are_not_joined(own_run: Path, tmp_path: Path) -> None:
    journal = Journal(own_run / JOURNAL_FILE)
    for slide_id in ("one", "two", "gone"):
        journal.add_drawn(slide_id, drawn(("exclude", 0, 0, 100)), "A")
    result = read_result(own_run / "two")
    assert result is not None
    target = tmp_path / "drawn"
    assert "2 slides" in command("export", own_run, "regions", "-o", target).stdout
    write_result(own_run / "two", replace(result, path="elsewhere/one.tif"))
    done = command("export", own_run, "regions", "-o", tmp_path / "twice")
    assert done.exit_code == 2
    for slide_id in ("one", "two", "gone"):
        assert f"{slide_id} is left out" in done.stderr
    write_result(own_run / "two", result)
    journal.add_drawn("two", drawn(), "A")
    stale = command("export", own_run, "regions", "-o", target)
    assert stale.exit_code == 2
    assert "two.tif.geojson" in stale.stderr
    assert (target / "two.tif.geojson").exists(), "nothing is removed that somebody may have changed"


def test_names_are_those_that_the_runs_own_settings_know(own_run: Path, tmp_path: Path) -> None:
    Journal(own_run / JOURNAL_FILE).add_drawn("one", drawn(("exclude", 0, 0, 99), ("score", 9, 9, 99)), "A")
    described = json.loads((own_run / "run.json").read_text())
    described["config"]["regions"] |= {"include": ["Karzinom"], "exclude": ["Nicht"]}
    (own_run / "run.json").write_text(json.dumps(described))
    command("export", own_run, "regions", "-o", tmp_path / "drawn")
    names = [region.name for region in read_regions(tmp_path / "drawn" / "one.tif.geojson")]
    assert names == ["Nicht", "Karzinom"]
