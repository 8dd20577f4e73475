"""Whatever goes wrong costs its own slide, is tried again while it may pass, and is written down."""

from __future__ import annotations

import csv
import json
import os
import shutil
from importlib import resources
from pathlib import Path

import pytest

from pipelines.configuration import load_config
from pipelines.run.score import RunSummary
from pipelines.run.score import score as score_run
from pipelines.worker.steps import Steps
from tests.pipelines.conftest import rows
from tests.pipelines.scheduling import faulty_steps

FAULTS = ("crashes", "hangs", "killed", "refused", "unreachable", "changes", "rots", "endless")


def ledger(output: Path) -> list[dict[str, str]]:
    """The lines of the ledger."""
    with (output / "ledger.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def score(slides: list[Path], output: Path, **compute: object) -> RunSummary:
    settings = {"workers": 2, "attempts": 3, "retry_wait_s": 0.05, "step_limit_s": 10, **compute}
    config = load_config(None, {f"compute.{name}": value for name, value in settings.items()})
    steps = Steps(block=faulty_steps.block, finish=faulty_steps.finish)
    return score_run(slides, output, config, steps=steps)


def copies(slide: Path, folder: Path, *names: str) -> list[Path]:
    """Copies of a slide under names, all of one time of change."""
    folder.mkdir(exist_ok=True)
    made = []
    for name in names:
        made.append(folder / f"{name}.tif")
        shutil.copyfile(slide, made[-1])
        os.utime(made[-1], ns=(10**18, 10**18))
    return made


@pytest.fixture(scope="module")
def after_faults(ihc_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of one run over a slide for each fault, and two sound ones."""
    folder = tmp_path_factory.mktemp("faults")
    slides = copies(ihc_slide, folder / "slides", "a-sound", *FAULTS, "z-sound")
    score(slides, folder / "out")
    return folder / "out"


@pytest.mark.parametrize(
    ("slide_id", "cause", "said"),
    [
        ("crashes", "lasting", "SIGSEGV"),
        ("hangs", "lasting", "took more than 10 s"),
        ("unreachable", "passing", "did not answer"),
    ],
)
def test_a_fault_that_stays_costs_its_slide(after_faults: Path, slide_id: str, cause: str, said: str) -> None:
    row = rows(after_faults)[slide_id]
    assert row["status"] == "failed"
    assert said in row["reason"]
    result = json.loads((after_faults / slide_id / "result.json").read_text())
    assert result["cause"] == cause
    assert not (after_faults / ".partial").exists()


@pytest.mark.parametrize("slide_id", ["killed", "refused", "changes", "rots", "endless"])
def test_a_fault_that_passes_costs_nothing(after_faults: Path, slide_id: str) -> None:
    row, sound = rows(after_faults)[slide_id], rows(after_faults)["a-sound"]
    own = ("slide_id", "path", "seconds")
    assert row["reason"] == sound["reason"]
    assert {k: v for k, v in row.items() if k not in own} == {k: v for k, v in sound.items() if k not in own}
    for name in ("patches.csv", "heatmap.png", "overlay.geojson"):
        assert (after_faults / slide_id / name).read_bytes() == (after_faults / "a-sound" / name).read_bytes()


def test_no_fault_is_laid_at_another_slides_door(after_faults: Path) -> None:
    statuses = {slide_id: row["status"] for slide_id, row in rows(after_faults).items()}
    assert {slide_id for slide_id, status in statuses.items() if status != "scored"} == {
        *("crashes", "hangs", "unreachable")
    }


def test_the_ledger_says_what_was_tried(after_faults: Path) -> None:
    by_slide: dict[str, list[dict[str, str]]] = {}
    for line in ledger(after_faults):
        by_slide.setdefault(line["slide_id"], []).append(line)
    assert [line["state"] for line in by_slide["a-sound"]][:2] == ["waiting", "started"]
    assert {lines[-1]["state"] for lines in by_slide.values()} == {"scored", "failed"}
    assert by_slide["crashes"][-1]["cause"] == "lasting"
    refused = [line for line in by_slide["refused"] if (line["state"], line["step"]) == ("retried", "block")]
    assert refused
    assert {line["cause"] for line in refused} == {"passing"}
    assert any("Connection refused" in line["reason"] for line in refused)
    # A slide has several blocks, so the line before its last may tell of any of them.
    tried = {line["attempt"] for line in by_slide["unreachable"] if line["state"] == "retried"}
    assert tried == {"2", "3"}, "three attempts were allowed"
    changed = by_slide["changes"][-1]
    assert (changed["state"], changed["attempt"]) == ("scored", "2")
    assert all(line["worker"] for line in ledger(after_faults) if line["state"] in ("scored", "failed"))


def test_the_next_run_tries_again_what_may_pass_and_not_what_lasts(ihc_slide: Path, tmp_path: Path) -> None:
    slides = copies(ihc_slide, tmp_path / "slides", "crashes", "unreachable", "sound")
    output = tmp_path / "out"
    score(slides, output)
    before = len(ledger(output))
    score(slides, output)
    second = ledger(output)[before:]
    states = {line["slide_id"]: line["state"] for line in second}
    assert states == {"crashes": "reused", "sound": "reused", "unreachable": "failed"}
    assert {line["attempt"] for line in second if line["state"] == "retried"} == {"2", "3"}
    os.utime(slides[0], ns=(2 * 10**18, 2 * 10**18))
    before = len(ledger(output))
    score(slides[:1], output)
    assert ledger(output)[before:][-1]["state"] == "failed", "a file that has changed is worth another look"


@pytest.mark.slow
def test_a_slide_that_needs_too_much_memory_fails_alone(ihc_slide: Path, tmp_path: Path) -> None:
    slides = copies(ihc_slide, tmp_path / "slides", "swells", "sound")
    score(slides, tmp_path / "out", memory_limit="1GiB", attempts=2)
    found = rows(tmp_path / "out")
    assert found["sound"]["status"] == "scored"
    assert found["swells"]["status"] == "failed"
    assert "1.0 GiB" in found["swells"]["reason"]


def test_weights_that_change_between_two_runs_score_all_again(ihc_slide: Path, tmp_path: Path) -> None:
    shipped = resources.files("wsi_her2.models.membrane") / "coefficients.json"
    weights = tmp_path / "weights.json"
    described = json.loads(shipped.read_bytes())
    weights.write_text(json.dumps(described))
    config = load_config(None, {"compute.workers": 1, "compute.processes": False, "model": str(weights)})
    first = score_run([ihc_slide], tmp_path / "out", config).results[0]
    weights.write_text(json.dumps({**described, "card": {"note": "other weights"}}))
    second = score_run([ihc_slide], tmp_path / "out", config).results[0]
    assert [line["state"] for line in ledger(tmp_path / "out")].count("scored") == 2
    assert second.model.sha256 != first.model.sha256
    assert second.fingerprint != first.fingerprint
