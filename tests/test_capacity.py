"""`benchmarks/capacity.py`: what many slides need follows from what a run measured, by arithmetic alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.results import write_result
from wsi_her2.scoring.result import ModelInfo, SlideResult

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "capacity.py"


def put(run: Path, slide_id: str, patches: int, status: str = "scored") -> None:
    """A slide of 4 patches to the mm2: 10 s and 0.01 s a patch; 1000 bytes a patch in its file."""
    (run / slide_id).mkdir(parents=True)
    slide = run.parent / f"{slide_id}.tif"
    slide.write_bytes(bytes(1000 * patches))
    timings = {"prepare": 4.0, "finish": 6.0, "blocks": 0.01 * patches}
    model = ModelInfo("membrane", "ab", ("0", "1+"), 128, 0.5)
    measured = {"n_patches": patches, "tissue_mm2": patches / 4, "timings_s": timings}
    write_result(run / slide_id, SlideResult(slide_id, str(slide), status, "", "ihc", model, "1", **measured))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    put(folder, "small", 1000)
    put(folder, "large", 4000)
    put(folder, "refused", 9, status="not_assessable")
    times = {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:01:00+00:00", "workers": 2}
    (folder / "run.json").write_text(json.dumps(times))
    return folder


def capacity(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def rows(page: str) -> dict[str, list[str]]:
    cells = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| [\d,]+ \|", line)]
    return {row[0]: row[1:] for row in cells}


def test_figures_follow_from_the_run(run: Path, tmp_path: Path) -> None:
    done = capacity(run, "--busy", 1, "--cores", 10, "--days", 1, "--table", tmp_path / "scale.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scale.md").read_text() == done.stdout[:-1]
    # 2500 patches on average: 35 s and 2.5 MB a slide.
    found = rows(done.stdout)
    assert found["1,000"][:6] == ["9.72", "0.0405", "1", "0.0405", "2.50 GB", "0.00571"]
    assert found["10,000,000"][:4] == ["97,200", "405", "406", "0.998"]
    assert found["10,000,000"][4] == "25.0 TB"
    assert [row[-1] for row in found.values()] == ["1", "10", "1,000"]


def test_other_slides_are_asked_about_on_the_line_through_those_that_were_measured(run: Path) -> None:
    done = capacity(run, "--busy", 0.5, "--tissue-mm2", 2500)
    # 10,000 patches: 110 s at half the time, 10 MB.
    assert rows(done.stdout)["1,000"][0] == "61.1"
    assert rows(done.stdout)["1,000"][4] == "10.0 GB"
    assert rows(capacity(run, "--slide-gb", 2).stdout)["1,000"][4] == "2.00 TB"


def test_workers_are_as_busy_as_they_were_unless_the_run_reused_results(run: Path) -> None:
    # 20 + 50 s of slides, and 10.09 s of one that was refused, in twice 60 s.
    assert "on slides 67 % of the time" in capacity(run).stdout
    put(run, "earlier", 4000)
    shown = capacity(run).stdout
    assert "on slides 100 % of the time" in shown
    assert "not known from the runs" in shown


def test_slides_of_one_size_say_nothing_about_others(run: Path, tmp_path: Path) -> None:
    put(tmp_path / "alike" / "out", "one", 1000)
    (tmp_path / "alike" / "out" / "run.json").write_text("{}")
    assert capacity(tmp_path / "alike" / "out", "--tissue-mm2", 300).returncode == 0
    refused = capacity(tmp_path / "alike" / "out", "--tissue-mm2", 1000)
    assert refused.returncode == 2
    assert "give a run over slides of that size" in refused.stderr


def test_what_is_missing_is_said(run: Path, tmp_path: Path) -> None:
    assert "no scored slide" in capacity(tmp_path / "nothing").stderr
    for slide in tmp_path.glob("*.tif"):
        slide.unlink()
    assert "--slide-gb" in capacity(run).stderr
    (run / "run.json").unlink()
    assert "run.json cannot be read" in capacity(run, "--slide-gb", 1).stderr
