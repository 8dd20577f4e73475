"""Contracts of the command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import demo
from pipelines.cli import main
from tests.pipelines.conftest import cli_command, rows

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_help_answers_in_under_half_a_second_of_cpu() -> None:
    subprocess.run(cli_command("--help"), check=True, capture_output=True)  # compiles what was never compiled
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(cli_command("--help"), check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 0.5


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['wsi-her2', '--help']\n"
        "from pipelines.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'dask', 'zarr', 'cv2', 'pandas'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    "command",
    [
        "score",
        "demo",
        "info",
        "tissue",
        "report",
        "view",
        "doctor",
        "phantom",
        "train",
        "models list",
        "models show",
    ],
)
def test_every_command_explains_itself(cli: Cli, command: str) -> None:
    shown = cli(*command.split(), "--help")
    assert shown.returncode == 0
    assert "Usage" in shown.stdout


def test_score_prints_results_on_stdout_and_progress_on_stderr(cli: Cli, ihc_slide: Path, tmp_path: Path) -> None:
    scored = cli("score", ihc_slide, "-o", tmp_path / "out", "--workers", 1, "--json")
    assert scored.returncode == 0, scored.stderr
    (row,) = json.loads(scored.stdout)
    assert row["her2_score"] == rows(tmp_path / "out")["stained"]["her2_score"]
    assert "[1/1] stained" in scored.stderr


def test_the_exit_code_is_1_when_a_slide_could_not_be_scored(cli: Cli, ihc_slide: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"nothing")
    scored = cli("score", ihc_slide, broken, "-o", tmp_path / "out", "--workers", 1)
    assert scored.returncode == 1
    assert rows(tmp_path / "out")["stained"]["status"] == "scored"
    assert "broken: failed" in scored.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["score", "EMPTY", "-o", "OUT"], "no slides"),
        (["score", "absent.svs", "-o", "OUT"], "no such file"),
        (["score", "SLIDE", "-o", "OUT", "--model", "absent"], "models list"),
        (["score", "SLIDE", "-o", "OUT", "--modality", "he"], "--model"),
        (["score", "SLIDE", "-o", "OUT", "--config", "absent"], "preset"),
        (["score", "SLIDE", "-o", "OUT", "--mpp", "-3"], "mpp"),
        (["score", "SLIDE", "-o", "OUT", "--cells", "some"], "--cells"),
        (["score", "FOLDER", "-o", "FOLDER/out"], "inside the input"),
        (["score", "SLIDE", "-o", "SLIDE/out"], "cannot be written"),
        (["info", "absent.svs"], "no such file"),
        (["tissue", "SLIDE", "-o", "SLIDE/mask.png"], "cannot be written"),
        (["report", "EMPTY"], "no results"),
        (["models", "show", "absent"], "models list"),
        (["score"], "Missing argument"),
        (["score", "SLIDE"], "output"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_to_do(
    cli: Cli, ihc_slide: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "SLIDE": ihc_slide,
        "FOLDER": ihc_slide.parent,
        "EMPTY": tmp_path / "empty",
        "OUT": tmp_path / "out",
    }
    given = []
    for argument in arguments:
        head, slash, rest = argument.partition("/")
        given.append(f"{places.get(head, head)}{slash}{rest}")
    shown = cli(*given, env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"})
    assert shown.returncode == 2
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr
    assert shown.stdout == ""
    assert not (ihc_slide.parent / "out").exists()


def test_info_names_the_backend_the_scale_and_where_it_came_from(cli: Cli, ihc_slide: Path) -> None:
    described = json.loads(cli("info", ihc_slide, "--json").stdout)
    assert described["backend"] == "tiled-jpeg"
    assert described["mpp"] == pytest.approx(0.5, rel=1e-3)
    assert described["mpp_source"] == "tiff-tags"
    assert described["levels"]


def test_info_of_a_slide_without_scale_says_how_to_give_it(cli: Cli, data_dir: Path) -> None:
    shown = cli("info", data_dir / "slides/he_aperio_tcga_no_mpp.svs")
    assert shown.returncode == 0
    assert "--mpp" in shown.stdout


def test_tissue_writes_the_mask_over_the_overview(cli: Cli, ihc_slide: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new folder" / "mask.png"
    described = json.loads(cli("tissue", ihc_slide, "-o", picture, "--json").stdout)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 0.18 < described["tissue_mm2"] < 0.26  # a disc of 0.512 mm holds 0.206


def test_models_show_says_what_the_classifier_was_trained_on(cli: Cli) -> None:
    described = json.loads(cli("models", "show", "membrane", "--json").stdout)
    assert described["trained_on"]
    assert described["validated"] is False


def test_doctor_tries_the_backends_and_names_what_is_missing(cli: Cli) -> None:
    shown = cli("doctor", "--json")
    findings = {finding["subject"]: finding for finding in json.loads(shown.stdout)}
    assert shown.returncode == 0, shown.stdout
    assert findings["slide round trip"]["state"] == "ok"
    assert findings["codecs"]["state"] == "ok"
    for finding in findings.values():
        if finding["state"] == "missing":
            assert "pip install" in finding["detail"]


def check_demo(folder: Path, said: str) -> None:
    """Every slide is called but the one that must be refused, in their true order, and the report is named."""
    assert "index.html" in said
    found = rows(folder / "results")
    statuses = {slide_id: row["status"] for slide_id, row in found.items()}
    assert statuses.pop("h_and_e") == "not_assessable"
    assert set(statuses.values()) == {"scored"}
    assert len(statuses) == 5
    ranked = [float(found[f"score_{grade}"]["h_score"]) for grade in ("0", "1plus", "2plus", "3plus")]
    assert ranked == sorted(ranked)
    assert "truth 3+" in said


def test_the_demo_scores_its_slides_and_says_where_the_report_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With slides of a sixth of the pixels; `test_the_demo_as_it_is` has all of them."""
    small = {"width_mm": 0.9, "height_mm": 0.9, "mpp": 0.5}
    monkeypatch.setattr(demo, "SLIDES", {name: replace(spec, **small) for name, spec in demo.SLIDES.items()})
    monkeypatch.setattr(demo, "available_cores", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["wsi-her2", "demo", "-o", str(tmp_path / "demo")])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    assert end.value.code == 0, shown.err
    check_demo(tmp_path / "demo", shown.out)


@pytest.mark.slow
def test_the_demo_as_it_is(tmp_path: Path) -> None:
    shown = subprocess.run(cli_command("demo", "-o", tmp_path), capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    check_demo(tmp_path, shown.stdout)


def test_phantom_draws_slides_with_their_truth_and_table_of_cells(cli: Cli, tmp_path: Path) -> None:
    import pandas as pd

    size = ("--width-mm", 0.4, "--height-mm", 0.4, "--workers", 1)
    shown = cli("phantom", "-o", tmp_path, "--fractions", "0.5,0.2,0.2,0.1", *size, "--seed", 4, "--json")
    (slide,) = json.loads(shown.stdout)
    assert slide["score"] == "2+"
    truth = json.loads(Path(slide["slide"]).with_suffix(".truth.json").read_text())
    cells = pd.read_parquet(Path(slide["slide"]).with_suffix(".cells.parquet"))
    counted = cells[cells["counts"]]
    assert len(counted) == truth["tumour_cells"] == slide["tumour_cells"]
    assert slide["percentages"]["1+"] == pytest.approx(20, abs=100 / len(counted))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fractions", "0.5,0.5"], "four numbers"),
        (["--fractions", "1,0,0,0", "--score", "0"], "not both"),
        (["--score", "4+"], "4+"),
        (["--look", "nikon"], "nikon"),
        (["--cells", "xlsx"], "xlsx"),
        (["--artefact", "coffee"], "coffee"),
    ],
)
def test_phantom_refuses_what_cannot_be_drawn(cli: Cli, tmp_path: Path, arguments: list[str], said: str) -> None:
    shown = cli("phantom", "-o", tmp_path / "out", *arguments)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.slow
def test_train_fits_a_scorer_that_score_takes_and_that_says_what_it_was_fitted_on(
    cli: Cli, ihc_slide: Path, tmp_path: Path
) -> None:
    config = tmp_path / "small.yaml"
    config.write_text("kind: membrane\nname: small\nlooks: [aperio]\npatches_per_look: 200\nseed: 1\n")
    trained = cli("train", config, "-o", tmp_path / "small.json", "--workers", 1, "--json")
    assert trained.returncode == 0, trained.stderr
    assert "phantoms" in json.loads(trained.stdout)["trained_on"]
    scored = cli(
        "score", ihc_slide, "-o", tmp_path / "out", "--workers", 1, "--model", tmp_path / "small.json", "--json"
    )
    (row,) = json.loads(scored.stdout)
    assert row["model"] == "small"


def test_train_names_a_wrong_setting(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("kind: membrane\nname: x\nlooks: [nikon]\npatches_per_look: 240\nseed: 1\n")
    shown = cli("train", config, "-o", tmp_path / "x.json")
    assert shown.returncode == 2
    assert "looks" in shown.stderr


def test_version_is_printed(cli: Cli) -> None:
    assert cli("--version").stdout.strip()
