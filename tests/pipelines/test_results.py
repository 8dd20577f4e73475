from __future__ import annotations

import json
import logging
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.configuration import load_config
from pipelines.exports.rebuild import rebuild_reports
from pipelines.results import read_result, read_results, write_result
from pipelines.run.record import write_summaries
from pipelines.run.score import score
from pipelines.sources import folder_names, known_slides
from tests.pipelines.conftest import rows
from wsi_her2.scoring.result import SlideResult


@pytest.fixture(scope="module")
def scored(ihc_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run over one slide."""
    output = tmp_path_factory.mktemp("run") / "out"
    score([ihc_slide], output, load_config(None, {"compute.workers": 2, "compute.processes": False}))
    return output


@pytest.fixture(scope="module")
def result(scored: Path) -> SlideResult:
    found = read_result(scored / "stained")
    assert found is not None
    return found


def put(output: Path, result: SlideResult) -> SlideResult:
    (output / result.slide_id).mkdir(parents=True)
    write_result(output / result.slide_id, result)
    return result


def test_results_come_in_the_order_of_their_folders_and_only_from_folders(
    result: SlideResult, tmp_path: Path
) -> None:
    written = [put(tmp_path, replace(result, slide_id=slide_id)) for slide_id in ("b", "a", "B", "a 2")]
    (tmp_path / "evaluation").mkdir()
    (tmp_path / ".partial").mkdir()
    (tmp_path / "run.json").touch()
    assert list(read_results(tmp_path)) == sorted(written, key=lambda one: one.slide_id)
    assert list(known_slides(tmp_path)) == ["B", "a", "a 2", "b"]


def test_no_folder_holds_no_results(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for nothing in (tmp_path / "gone", tmp_path / "file"):
        assert folder_names(nothing) == []
        assert list(read_results(nothing)) == []
        assert known_slides(nothing) == {}


def test_a_name_that_is_not_unicode_does_not_lose_the_result(result: SlideResult, tmp_path: Path) -> None:
    odd = put(tmp_path, replace(result, path="/slides/caf\udce9.svs"))
    assert read_result(tmp_path / odd.slide_id) == odd
    assert known_slides(tmp_path) == {odd.slide_id: odd.path}
    write_summaries(tmp_path)
    assert list(rows(tmp_path)) == [odd.slide_id]


def test_a_damaged_result_is_left_out_and_said(
    result: SlideResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, replace(result, slide_id="good"))
    for name, content in (
        ("cut", b'{"slide_id": "c'),
        ("other", b'{"slide_id": "of another version"}'),
        ("bytes", b"\xff"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [found.slide_id for found in read_results(tmp_path)] == ["good"]
    assert "3 of the folders hold a result.json" in caplog.text


def test_one_damaged_store_leaves_the_other_slides_their_reports(
    scored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    for name in ("broken", "whole"):
        shutil.copytree(scored / "stained", output / name)
        content = json.loads((output / name / "result.json").read_text())
        (output / name / "result.json").write_text(json.dumps(content | {"slide_id": name}))
        (output / name / "tissue.png").unlink()
    shutil.rmtree(output / "broken" / "patches.zarr" / "tissue")
    (output / "broken" / "patches.zarr" / "zarr.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert rebuild_reports(output)[1] == 2
    assert "broken" in caplog.text
    assert (output / "whole" / "tissue.png").is_file()


def test_summaries_of_many_slides_keep_rows_and_not_results(result: SlideResult, tmp_path: Path) -> None:
    put(tmp_path, result)
    content = json.loads((tmp_path / result.slide_id / "result.json").read_text())

    def peak(slides: range) -> int:
        for number in slides:
            (tmp_path / f"s{number}").mkdir()
            text = json.dumps(content | {"slide_id": f"s{number}"}, indent=2)
            (tmp_path / f"s{number}" / "result.json").write_text(text)
        tracemalloc.start()
        write_summaries(tmp_path)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(range(500)), peak(range(500, 1500))
    # A result is ten thousand bytes in memory.
    assert (many - few) / 1000 < 4000
