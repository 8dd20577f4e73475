"""A run over slides behind URLs gives what it gives for the files, and writes no credentials down."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from pipelines.cluster import connect
from pipelines.configuration import RunConfig
from pipelines.fingerprint import slide_fingerprint
from pipelines.run.score import resolve_classifier, score
from pipelines.sources import check_output, find_regions, find_slides, name_slides
from pipelines.worker.preparing import prepare_slide
from pipelines.worker.scoring_blocks import score_block
from pipelines.worker.task import SlideTask
from tests.pipelines.conftest import differing_files, rows
from tests.range_server import RangeServer, serve
from wsi_her2.errors import ConfigurationError, OutputError, SlideUnreachable, UnsupportedSlide
from wsi_her2.slides.location import SlideUrl, locate
from wsi_her2.slides.store import PatchStore

pytest.importorskip("aiohttp")

SHOW_THE_PATH = {"result.json", "report.html", "slides.csv", "index.html"}


@pytest.fixture
def server(ihc_slide: Path) -> Iterator[RangeServer]:
    """Serves the stained slide as `/stained.tif`."""
    with serve(ihc_slide.parent) as serving:
        yield serving


@pytest.fixture
def task(server: RangeServer, config: RunConfig, tmp_path: Path) -> SlideTask:
    """The served slide as a worker gets it."""
    choice, classifier = resolve_classifier(config)
    return SlideTask("stained", SlideUrl(f"{server.url}/stained.tif"), tmp_path, config, choice, classifier.sha256)


def test_a_slide_over_http_is_scored_as_the_file_is(
    server: RangeServer, ihc_slide: Path, config: RunConfig, tmp_path: Path
) -> None:
    config = config.model_copy(update={"backend": "tiffslide"})
    score([ihc_slide], tmp_path / "here", config)
    summary = score([f"{server.url}/stained.tif?sig=1"], tmp_path / "there", config)
    assert summary.all_scored
    differing = differing_files(tmp_path / "here", tmp_path / "there")
    assert {Path(name).name for name in differing} <= SHOW_THE_PATH
    here, there = (json.loads((tmp_path / o / "stained" / "result.json").read_text()) for o in ("here", "there"))
    for result in (here, there):
        for name in ("path", "fingerprint", "timings_s"):
            result.pop(name)
    assert here == there
    assert rows(tmp_path / "there")["stained"]["path"] == f"{server.url}/stained.tif"


def test_a_second_run_reuses_the_result_although_the_url_is_signed_anew(
    server: RangeServer, config: RunConfig, tmp_path: Path
) -> None:
    score([f"{server.url}/stained.tif?sig=1"], tmp_path, config)
    server.spans.clear()
    summary = score([f"{server.url}/stained.tif?sig=2"], tmp_path, config)
    assert [result.slide_id for result in summary.results] == ["stained"]
    assert server.spans == []
    server.headers = {"ETag": '"another"'}
    score([f"{server.url}/stained.tif?sig=2"], tmp_path, config)
    assert server.spans != []


def test_no_credentials_are_written_or_said(
    server: RangeServer, cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    with_password = server.url.replace("http://", "http://me:SECRET@")
    broken = server.folder / "broken.svs"
    broken.write_bytes(b"II*\0" + bytes(5000))
    try:
        done = cli(
            "-v",
            "score",
            f"{with_password}/stained.tif?X-Signature=SECRET",
            f"{with_password}/broken.svs?X-Signature=SECRET",
            *("-o", tmp_path / "out", "--workers", 1, "--cells", "none"),
        )
        refused = cli("score", f"{with_password}/absent.svs?SECRET", "-o", tmp_path / "none")
        told = cli("info", f"{with_password}/stained.tif?SECRET")
    finally:
        broken.unlink()
    assert done.returncode == 1, done.stderr
    found = rows(tmp_path / "out")
    assert (found["stained"]["status"], found["broken"]["status"]) == ("scored", "failed")
    assert f"{server.url}/broken.svs: not a slide" in found["broken"]["reason"]
    assert refused.returncode == 2
    assert f"wsi-her2: {server.url}/absent.svs: no such file" in refused.stderr
    assert told.returncode == 0, told.stderr
    assert f"{server.url}/stained.tif" in told.stdout
    for process in (done, refused, told):
        assert "SECRET" not in process.stdout + process.stderr
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or b"SECRET" not in path.read_bytes(), path


def test_tissue_is_drawn_of_a_url(
    server: RangeServer, cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = cli("tissue", f"{server.url}/stained.tif", "-o", tmp_path / "mask.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mask.png").stat().st_size > 0


# A connection that is lost


def test_a_block_whose_connection_is_lost_fails_and_can_be_scored_later(
    server: RangeServer, task: SlideTask
) -> None:
    prepared = prepare_slide(task)
    server.break_down()
    for _ in range(2):
        with pytest.raises(SlideUnreachable, match="connection failed"):
            score_block(task, prepared.fingerprint, 0)
        assert not PatchStore.open(task.partial / "patches.zarr").done.any()
    server.repair()
    assert score_block(task, prepared.fingerprint, 0).n_patches > 0


def test_a_lost_connection_leaves_a_worker_process_as_what_it_is(server: RangeServer, task: SlideTask) -> None:
    compute = task.config.compute.model_copy(update={"workers": 1, "processes": True})
    task = replace(
        task, path=SlideUrl(f"{server.url}/stained.tif?sig=SECRET".replace("http://", "http://me:SECRET@"))
    )
    with connect(compute) as client:
        prepared = client.submit(prepare_slide, task, pure=False).result()
        server.break_down()
        error = client.submit(score_block, task, prepared.fingerprint, 0, pure=False).exception()
    assert isinstance(error, SlideUnreachable)
    assert error.__cause__ is not None
    assert "SECRET" not in f"{error}{error.__cause__}"


def test_a_run_whose_server_dies_fails_the_slide_and_counts_no_patch_as_unreadable(
    server: RangeServer, config: RunConfig, tmp_path: Path
) -> None:
    config = config.model_copy(update={"cells": config.cells.model_copy(update={"mode": "none"})})
    score([f"{server.url}/stained.tif"], tmp_path / "whole", config)
    answers = server.answers
    server.answers = 0
    server.fails = lambda number: "hang up" if number > answers // 2 else None
    summary = score([f"{server.url}/stained.tif"], tmp_path / "dies", config)
    assert [result.status for result in summary.results] == ["failed"]
    assert "connection failed" in summary.results[0].reason


# Finding and naming


def test_the_slides_below_a_url_are_found_and_named(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    for name in ("a.svs", "x/a.ndpi", "x/notes.txt"):
        fs.pipe(f"/found/{name}", b"")
    (tmp_path / "b.svs").touch()
    slides = find_slides([locate("memory://found/"), tmp_path, locate("memory://found/a.svs")])
    assert [str(slide) for slide in slides] == [
        "memory://found/a.svs",
        "memory://found/x/a.ndpi",
        str(tmp_path / "b.svs"),
    ]
    assert [source.slide_id for source in name_slides(slides)] == ["a", "a_2", "b"]
    with pytest.raises(ConfigurationError, match="no slides in memory://empty/"):
        find_slides([locate("memory://empty/")])
    fs.rm("/found", recursive=True)


def test_a_folder_over_http_is_refused(server: RangeServer) -> None:
    with pytest.raises(UnsupportedSlide, match="name each slide"):
        find_slides([locate(f"{server.url}/")])


def test_identifiers_are_decoded_and_safe() -> None:
    slides = [locate("https://host/a%20b%2525%3F.svs?sig=1"), locate("s3://bucket/Fall Ä.tif")]
    assert [source.slide_id for source in name_slides(slides)] == ["a b_25_", "Fall Ä"]


def test_urls_that_differ_only_in_what_is_not_recorded_keep_identifiers_of_their_own() -> None:
    slides = [locate(f"https://host/download?slide={number}") for number in range(3)]
    first = name_slides(slides)
    assert [source.slide_id for source in first] == ["download", "download_2", "download_3"]
    again = name_slides(slides, {source.slide_id: str(source.path) for source in first})
    assert [source.slide_id for source in again] == ["download", "download_2", "download_3"]


def test_regions_belong_to_a_url_by_its_name(tmp_path: Path) -> None:
    regions = tmp_path / "case 7.geojson"
    shutil.copyfile(__file__, regions)
    slides = [locate("https://host/case%207.svs?sig=1"), locate("s3://bucket/other.svs")]
    assert find_regions([regions], slides) == {slides[0]: regions}


def test_the_fingerprint_of_a_url_is_its_name_size_and_version(server: RangeServer, config: RunConfig) -> None:
    def fingerprint(query: str = "") -> str:
        return slide_fingerprint(SlideUrl(f"{server.url}/stained.tif{query}"), config, "a", "onnx")

    first = fingerprint()
    assert fingerprint("?sig=2") == first
    server.headers = {"ETag": '"2"'}
    assert fingerprint() != first


def test_results_are_not_written_to_a_url(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="to a disk, not to a URL"):
        check_output(Path("s3://bucket/results"), [])
    assert not Path("s3:").exists()
