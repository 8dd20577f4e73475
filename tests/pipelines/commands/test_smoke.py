"""Every command with every option that is promised runs, as a program of its own, in a folder of its own.

`WSI_HER2_PROGRAM` names the program, so that an installed wheel can be tried (`make wheel-test`); without it
this source is. Nothing of the package is imported here.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

INSTALLED = os.environ.get("WSI_HER2_PROGRAM")
PROGRAM = [INSTALLED] if INSTALLED else [sys.executable, "-m", "pipelines.cli"]
DASK = [str(Path(INSTALLED).with_name("dask"))] if INSTALLED else [sys.executable, "-m", "dask"]

PROMISED = {
    "demo": "-o",
    "score": "-o --model --modality --mpp --roi --workers --scheduler --runtime --precision --store-patches "
    "--no-store-patches --lab --sampling --cells --watch --fresh --fail-fast --config --json",
    "info": "--json",
    "tissue": "-o",
    "report": "--pdf",
    "view": "--host --port --token --slides --reviewer --no-browser",
    "export": "-o --reviewer --consensus --probabilities",
    "evaluate": "-o --json",
    "calibrate": "--controls --results --truth -o",
    "train": "-o",
    "models list": "--json",
    "models show": "--json",
    "models cards": "-o",
    "models export": "-o --format",
    "models import-keras": "-o --trained-on --mpp",
    "phantom": "-o --json",
    "doctor": "--json",
}

Completed = subprocess.CompletedProcess[str]


def environment() -> dict[str, str]:
    """That of the tests; an installed program must not find this source by it."""
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    if INSTALLED:
        env.pop("PYTHONPATH", None)
    return env


def run(folder: Path, *arguments: object, code: int | None = 0) -> Completed:
    """Run the program in a folder; `code` is the exit code it must have, None for any."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert code is None or done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "slides.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small digital slide, its regions and a laboratory profile."""
    folder = tmp_path_factory.mktemp("smoke")
    size = ("--width-mm", 0.5, "--height-mm", 0.5, "--mpp", 0.5)
    drawn = run(folder, "phantom", "-o", "slides", "--score", "3+", *size, "--seed", 4, "--json")
    (slide,) = json.loads(drawn.stdout)
    (folder / slide["slide"]).rename(folder / "slides" / "case.tif")
    truth = folder / slide["slide"].replace(".tif", ".truth.json")
    truth.rename(folder / "slides" / "case.truth.json")
    corners = [[0, 0], [2000, 0], [2000, 2000], [0, 2000], [0, 0]]
    region = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners]}, "properties": {}}
    (folder / "regions").mkdir()
    (folder / "regions" / "case.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [region]})
    )
    shown = json.loads(run(folder, "models", "show", "membrane", "--json").stdout)
    profile = {
        "name": "smoke",
        "hematoxylin": [0.65, 0.7, 0.29],
        "dab": [0.27, 0.57, 0.78],
        "dab_gain": 1.0,
        "white": [240, 240, 240],
        "classifier": "membrane",
        "classifier_sha256": shown["sha256"],
    }
    (folder / "profile.json").write_text(json.dumps(profile))
    return folder


@pytest.fixture(scope="module")
def scored(place: Path) -> Path:
    """The folder of a run with nearly every option."""
    options = "--model membrane --modality ihc --mpp 0.5 --roi regions --workers 1 --runtime auto --precision fp32"
    options += (
        " --lab profile.json --store-patches --sampling full --cells all --fresh --fail-fast --config default"
    )
    done = run(place, "score", "slides", "-o", "out", *options.split(), "--json")
    (row,) = json.loads(done.stdout)
    assert row["status"] == "scored"
    assert row["calibration"] == "lab:smoke"
    return place / "out"


@pytest.mark.parametrize(("command", "options"), PROMISED.items(), ids=list(PROMISED))
def test_a_promised_command_has_its_options(tmp_path: Path, command: str, options: str) -> None:
    shown = run(tmp_path, *command.split(), "--help").stdout
    for option in options.split():
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", shown), option


def test_the_program_has_a_version(tmp_path: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", run(tmp_path, "--version").stdout.strip())


def test_score_leaves_every_file_that_is_promised(scored: Path) -> None:
    assert {"slides.csv", "run.json", "index.html", "ledger.csv", "case"} <= {
        path.name for path in scored.iterdir()
    }
    promised = (
        "result.json patches.zarr patches.csv heatmap.png tissue.png overlay.geojson report.html cells.parquet"
    )
    assert set(promised.split()) <= {path.name for path in (scored / "case").iterdir()}
    assert (scored / "case" / "patches.zarr" / "pixels").is_dir()
    assert "Research use only" in (scored / "case" / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_score_with_a_network_in_int8_on_a_sample(place: Path, tmp_path: Path) -> None:
    options = "--model pruneff4-phantoms --runtime onnx --precision int8 --no-store-patches --sampling adaptive"
    run(
        place,
        "score",
        "slides",
        "-o",
        tmp_path / "out",
        *options.split(),
        "--cells",
        "none",
        "--workers",
        1,
        code=None,
    )
    (row,) = table(tmp_path / "out")
    assert row["status"] in ("scored", "not_assessable"), row["reason"]
    assert row["model"] == "pruneff4-phantoms"


def test_info_and_tissue(place: Path, tmp_path: Path) -> None:
    described = json.loads(run(place, "info", "slides/case.tif", "--json").stdout)
    assert described["mpp"] == pytest.approx(0.5, rel=0.01)
    assert "0.5" in run(place, "info", "slides/case.tif").stdout
    run(place, "tissue", "slides/case.tif", "-o", tmp_path / "mask.png")
    assert (tmp_path / "mask.png").read_bytes().startswith(b"\x89PNG")


def test_report_and_evaluate(scored: Path, tmp_path: Path) -> None:
    page = (scored / "case" / "report.html").read_bytes()
    (scored / "case" / "report.html").unlink()
    run(scored.parent, "report", "out")
    assert (scored / "case" / "report.html").read_bytes() == page
    figures = json.loads(run(scored.parent, "evaluate", "out", "slides", "-o", tmp_path, "--json").stdout)
    assert figures
    assert (tmp_path / "evaluation.html").is_file()


@pytest.mark.parametrize(("what", "made"), [("ome-tiff", "made/case.ome.tif"), ("qupath", "made")])
def test_export(scored: Path, tmp_path: Path, what: str, made: str) -> None:
    said = run(scored.parent, "export", "out", what, "-o", tmp_path / "made").stdout
    assert str(tmp_path) in said
    assert (tmp_path / made).exists()


@pytest.mark.parametrize("what", ["reviews", "truth", "regions"])
def test_export_of_what_nobody_has_said_writes_nothing(scored: Path, tmp_path: Path, what: str) -> None:
    said = run(scored.parent, "export", "out", what, "-o", tmp_path / "made", code=2).stderr
    assert "no reviews yet" in said or "nobody has drawn" in said
    assert not (tmp_path / "made").exists()


def test_view_serves_the_run_until_it_is_told_to_end(scored: Path, tmp_path: Path) -> None:
    viewing = ("view", str(scored), "--no-browser", "--reviewer", "smoke")
    with started(tmp_path, *PROGRAM, *viewing) as process:
        wait_for(tmp_path / "log", "http://127.0.0.1:")
        address = re.search(r"http://127\.0\.0\.1:\d+/", (tmp_path / "log").read_text("utf-8"))
        assert address is not None
        with urllib.request.urlopen(f"{address[0]}api/run", timeout=60) as answer:
            assert [slide["slide_id"] for slide in json.load(answer)["slides"]] == ["case"]
        process.terminate()
        assert process.wait(120) == 0, (tmp_path / "log").read_text("utf-8")


def test_models_are_listed_and_shown(place: Path) -> None:
    names = [row["name"] for row in json.loads(run(place, "models", "list", "--json").stdout)]
    assert names[0] == "membrane"
    assert json.loads(run(place, "models", "show", names[-1], "--json").stdout)["name"] == names[-1]


@pytest.mark.slow
def test_models_have_cards_and_are_exported(tmp_path: Path) -> None:
    names = [row["name"] for row in json.loads(run(tmp_path, "models", "list", "--json").stdout)]
    run(tmp_path, "models", "cards", "-o", "cards.md")
    assert (tmp_path / "cards.md").read_text("utf-8").count("\n## ") == len(names)
    run(tmp_path, "models", "export", names[-1], "-o", "network.onnx", "--format", "onnx")
    assert (tmp_path / "network.onnx").stat().st_size > 100_000


def test_import_keras_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"no HDF5")
    refused = run(
        tmp_path, "models", "import-keras", "model.h5", "-o", "b", "--trained-on", "x", "--mpp", 0.5, code=2
    )
    assert "model.h5" in refused.stderr or "pip install" in refused.stderr


def test_presets_are_found_by_name_in_any_folder(tmp_path: Path) -> None:
    """A preset of another kind is refused for its kind, so it was found."""
    refused = run(tmp_path, "train", "study", "-o", "out", code=2)
    assert "kind is 'study'" in refused.stderr


def test_doctor_finds_nothing_broken(tmp_path: Path) -> None:
    findings = json.loads(run(tmp_path, "doctor", "--json").stdout)
    assert {finding["state"] for finding in findings} <= {"ok", "missing"}


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    shown = run(tmp_path, "demo", "-o", "demo", code=None)
    assert "Report:" in shown.stdout, shown.stderr
    assert (tmp_path / "demo" / "results" / "index.html").is_file()


@pytest.mark.slow
def test_calibrate(place: Path, scored: Path, tmp_path: Path) -> None:
    for score in ("0", "3+"):
        drawn = ("--width-mm", 0.5, "--height-mm", 0.5, "--mpp", 0.5, "--seed", 9)
        run(tmp_path, "phantom", "-o", Path("controls", score), "--score", score, *drawn)
    run(tmp_path, "calibrate", "--controls", "controls", "-o", "lab.json", "--json")
    assert json.loads((tmp_path / "lab.json").read_text("utf-8"))["classifier"] == "membrane"
    with (tmp_path / "truth.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["slide_id", "her2_score"], ["case", "3+"]])
    fitted = run(tmp_path, "calibrate", "--results", scored, "--truth", "truth.csv", "-o", "c.yaml", code=None)
    assert (tmp_path / "c.yaml").is_file() or "slides" in fitted.stderr


@pytest.mark.slow
def test_train_fits_the_membrane_scorer(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "kind: membrane\nname: small\nlooks: [random]\npatches_per_look: 200\nseed: 1\n"
    )
    run(tmp_path, "train", "small.yaml", "-o", "small.json", "--workers", 1)
    assert json.loads(run(tmp_path, "models", "show", "small.json", "--json").stdout)["name"] == "small"


@contextlib.contextmanager
def started(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that goes on until the block ends; its children end with it."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
        try:
            yield process
        finally:
            family = (
                [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
            )
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()


def wait_for(what: Path, holds: str = "", seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what.is_file() and holds in what.read_text("utf-8"):
            return
        time.sleep(0.2)
    pytest.fail(f"{what} does not hold {holds!r} after {seconds} s")


@pytest.mark.slow
def test_score_on_a_scheduler_that_was_started_by_hand(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    scheduler = (*DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    with started(tmp_path, *scheduler, "--scheduler-file", str(file)):
        wait_for(file)
        with started(
            tmp_path, *DASK, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"
        ):
            run(place, "score", "slides", "-o", tmp_path / "out", "--scheduler", file, "--cells", "none")
    assert table(tmp_path / "out")[0]["status"] == "scored"


@pytest.mark.slow
def test_score_watches_until_it_is_told_to_end(place: Path, tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text("compute: {settle_s: 0}\n")
    watching = ("score", str(place / "slides"), "-o", "out", "--watch", "--config", "quick.yaml", "--workers", "1")
    with started(tmp_path, *PROGRAM, *watching) as process:
        wait_for(tmp_path / "out" / "slides.csv", "scored")
        process.terminate()
        assert process.wait(120) in (0, 130), (tmp_path / "log").read_text("utf-8")
