"""What there is to review, and which file shows it."""

from __future__ import annotations

import os
import shutil
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from pipelines.results import read_result, write_result
from pipelines.review import run_folder
from pipelines.review.run_folder import ReviewRun, case_of
from tests.pipelines.review.conftest import Serve
from wsi_her2.errors import ConfigurationError, SlideNotFound, UnsupportedSlide
from wsi_her2.reports.slide_table import SlideRow
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.pyramid import write_pyramid


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the folder each time, not every other second."""
    monkeypatch.setattr(run_folder, "_LOOK_AGAIN_S", 0.0)


def result_of(folder: Path) -> SlideResult:
    result = read_result(folder)
    assert result is not None
    return result


def add(run: Path, slide_id: str, result: SlideResult, **changed: object) -> None:
    """A slide as a run puts it there: written beside, then renamed into place."""
    beside = run / ".partial" / slide_id
    beside.mkdir(parents=True)
    write_result(beside, replace(result, slide_id=slide_id, **changed))  # type: ignore[arg-type]
    if (run / slide_id).exists():
        shutil.rmtree(run / slide_id)
    beside.rename(run / slide_id)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12_HER2.ndpi", "12_HE.ndpi"),
        ("12_Her2.ndpi", "12_H&E.ndpi"),
        ("S21-1234-A1 HER2.svs", "S21-1234-A1 HE.svs"),
        ("s21-1234-a1.her-2.tiff", "S21-1234-A1_h&e (1).tiff"),
        ("HER2 12.svs", "HE 12.svs"),
        ("12_HER2_1.svs", "12_HE_2.svs"),
        ("12_IHC_HER2.svs", "12_HE - Copy.svs"),
        ("12_HER2neu.svs", "12_HE copy 2.svs"),
        ("12.svs", "12_HE.svs"),
        ("case 2_cerbB2.svs", "case 2_HE.svs"),
    ],
)
def test_names_that_differ_in_stain_and_copy_are_of_one_case(one: str, other: str) -> None:
    (case, stain), (same, another) = case_of(one), case_of(other)
    assert case == same
    assert stain in ("her2", "")
    assert another == "he"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12_HER2.ndpi", "13_HE.ndpi"),
        ("case 1.svs", "case 2.svs"),
        ("case 1.svs", "case.svs"),
        ("12_HER2_A1.svs", "12_HE_B1.svs"),
        ("12_HER2_2019.svs", "12_HE_2020.svs"),
        ("1_2_HER2.svs", "12_HER2.svs"),
        ("heart_1.svs", "art_1.svs"),
        ("theher2x.svs", "thex.svs"),
        ("HER2.svs", "HE.svs"),
    ],
)
def test_other_names_are_of_other_cases(one: str, other: str) -> None:
    assert case_of(one)[0] != case_of(other)[0]


@pytest.mark.parametrize(
    ("name", "case", "stain"),
    [
        ("12_HER2.ndpi", "12", "her2"),
        ("Über 3_HE.svs", "über 3", "he"),
        ("12_HE_HER2.svs", "12", ""),
        ("HER2.svs", "her2", "her2"),
        ("___.svs", "___", ""),
        ("", "", ""),
        ("12_HER2.ome.tiff", "12 ome", "her2"),
    ],
)
def test_a_name_tells_its_case_and_its_stain(name: str, case: str, stain: str) -> None:
    assert case_of(name) == (case, stain)


def test_the_section_in_another_stain_is_offered_as_a_companion(client: httpx.Client) -> None:
    (her2,) = client.get("/api/slides/12_HE").json()["companions"]
    (he,) = client.get("/api/slides/12_HER2").json()["companions"]
    assert (her2["slide_id"], her2["modality"], her2["score"]) == ("12_HER2", "her2", "2+")
    # It was refused by a classifier for IHC, but its name says what it is.
    assert (he["slide_id"], he["modality"], he["score"], he["status"]) == ("12_HE", "he", None, "not_assessable")
    assert client.get("/api/slides/7_HER2").json()["companions"] == []


def test_slides_stand_in_the_order_in_which_people_count(client: httpx.Client) -> None:
    names = [row["slide_id"] for row in client.get("/api/run").json()["slides"]]
    assert names == ["7_HER2", "12_HE", "12_HER2", "30_HER2"]
    around = {name: client.get(f"/api/slides/{name}").json() for name in names}
    assert [around[name]["previous"] for name in names] == [None, *names[:-1]]
    assert [around[name]["next"] for name in names] == [*names[1:], None]


def test_rows_are_those_of_the_table(review_run: Path) -> None:
    for row in ReviewRun(review_run).rows():
        assert row == SlideRow.of(result_of(review_run / row.slide_id))


def test_a_slide_that_a_run_finishes_meanwhile_is_noticed(run_copy: Path) -> None:
    run = ReviewRun(run_copy)
    result = run.result("7_HER2")
    add(run_copy, "8_HER2", result)
    assert "8_HER2" in [row.slide_id for row in run.rows()]
    assert run.result("8_HER2").slide_id == "8_HER2"
    # Scored again, it is another result, which must not stand beside what is kept of the earlier one.
    add(run_copy, "7_HER2", result, fingerprint="ab" * 32, reason="again")
    assert run.find("7_HER2").fingerprint == "ab" * 32
    assert run.result("7_HER2").reason == "again"
    shutil.rmtree(run_copy / "12_HE")
    assert "12_HE" not in [row.slide_id for row in run.rows()]
    with pytest.raises(SlideNotFound, match="12_HE"):
        run.result("12_HE")


def test_only_what_changed_is_read_again(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ReviewRun(run_copy)
    read: list[str] = []
    monkeypatch.setattr(
        run_folder, "read_result", lambda folder: (read.append(folder.name), read_result(folder))[1]
    )
    assert len(run.rows()) == 4
    assert read == []
    add(run_copy, "9_HER2", result_of(run_copy / "7_HER2"))
    assert len(run.rows()) == 5
    assert read == ["9_HER2"]


def test_a_folder_that_is_no_result_is_passed_over(run_copy: Path) -> None:
    (run_copy / "evaluation").mkdir()
    (run_copy / "torn").mkdir()
    (run_copy / "torn" / "result.json").write_text("{", encoding="utf-8")
    shutil.copytree(run_copy / "7_HER2", run_copy / "copy of 7_HER2")
    assert len(ReviewRun(run_copy).rows()) == 4


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_without_results_is_refused_with_what_to_do(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
    with pytest.raises(ConfigurationError, match="score -o"):
        ReviewRun(folder)


def test_links_that_lead_out_of_the_folder_are_not_followed(run_copy: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    for name in ("report.html", "patches.csv"):
        (run_copy / "7_HER2" / name).unlink()
        (run_copy / "7_HER2" / name).symlink_to(secret)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run_copy / "12_HER2", elsewhere)
    shutil.rmtree(run_copy / "12_HER2")
    (run_copy / "12_HER2").symlink_to(elsewhere)
    (run_copy / "index.html").unlink()
    (run_copy / "index.html").symlink_to(secret)
    store = run_copy / "7_HER2" / "patches.zarr"
    store.rename(tmp_path / "patches.zarr")
    store.symlink_to(tmp_path / "patches.zarr")
    run = ReviewRun(run_copy)
    assert run.file("7_HER2", "report.html") is None
    assert run.file("7_HER2", "patches.csv") is None
    assert run.file("7_HER2", "heatmap.png") is not None
    assert run.page("index.html") is None
    assert run.store("7_HER2") is None
    assert "12_HER2" not in [row.slide_id for row in run.rows()]


def test_only_files_of_a_short_list_are_given(run_copy: Path) -> None:
    (run_copy / "7_HER2" / "notes.txt").write_text("private", encoding="utf-8")
    run = ReviewRun(run_copy)
    for name in (
        "notes.txt",
        "cells.parquet",
        "../run.json",
        "/etc/passwd",
        "",
        ".",
        "result.json/..",
        "patches.zarr",
    ):
        assert run.file("7_HER2", name) is None


def test_a_slide_that_was_moved_is_found_by_its_name(run_copy: Path, tmp_path: Path) -> None:
    original = Path(result_of(run_copy / "7_HER2").path)
    moved = tmp_path / "archive" / "2024" / original.name
    moved.parent.mkdir(parents=True)
    gone = tmp_path / "gone"
    for row in ReviewRun(run_copy).rows():
        result = result_of(run_copy / row.slide_id)
        write_result(run_copy / row.slide_id, replace(result, path=str(gone / Path(result.path).name)))
    shutil.copy(original, moved)
    run = ReviewRun(run_copy)
    assert run.find("7_HER2").file is None
    assert "--slides" in run.find("7_HER2").why_not
    run = ReviewRun(run_copy, slides=tmp_path / "archive")
    assert run.find("7_HER2").file == moved
    assert run.find("12_HER2").file is None
    with run.slide("7_HER2") as slide:
        assert slide.dimensions == result_of(run_copy / "7_HER2").reader.dimensions  # type: ignore[union-attr]
    with pytest.raises(SlideNotFound, match="no longer there"):
        run.slide("12_HER2")
    with pytest.raises(ConfigurationError, match="--slides"):
        ReviewRun(run_copy, slides=tmp_path / "nowhere")


def test_a_share_may_come_and_go(run_copy: Path, tmp_path: Path, serve: Serve) -> None:
    result, share = result_of(run_copy / "7_HER2"), tmp_path / "share"
    write_result(run_copy / "7_HER2", replace(result, path=str(share / "7_HER2.tif")))
    client, tile = serve(run_copy), "/api/slides/7_HER2/tiles/9/0_0.jpg"
    assert client.get("/api/slides/7_HER2").json()["viewable"] is False
    assert client.get(tile).status_code == 404
    share.mkdir()
    shutil.copy(result.path, share / "7_HER2.tif")
    assert client.get("/api/slides/7_HER2").json()["viewable"] is True
    assert client.get(tile).status_code == 200
    viewable = {row["slide_id"]: row["viewable"] for row in client.get("/api/run").json()["slides"]}
    assert viewable["7_HER2"] is True
    shutil.rmtree(share)
    gone = client.get("/api/slides/7_HER2").json()
    assert gone["viewable"] is False
    assert "no longer there" in gone["why_not_viewable"]


def test_of_several_files_of_one_name_the_one_in_the_same_folders_is_taken_or_none(
    run_copy: Path, tmp_path: Path
) -> None:
    result = result_of(run_copy / "7_HER2")
    write_result(run_copy / "7_HER2", replace(result, path="/gone/batch 1/scans/7_HER2.tif"))
    for folder in ("batch 1/scans", "batch 2/scans", "batch 1/other"):
        place = tmp_path / "archive" / folder
        place.mkdir(parents=True)
        shutil.copy(result.path, place)
    run = ReviewRun(run_copy, slides=tmp_path / "archive")
    assert run.find("7_HER2").file == tmp_path / "archive" / "batch 1" / "scans" / "7_HER2.tif"
    write_result(run_copy / "7_HER2", replace(result, path="/gone/elsewhere/7_HER2.tif"))
    run = ReviewRun(run_copy, slides=tmp_path / "archive")
    assert run.find("7_HER2").file is None
    assert "3 files" in run.find("7_HER2").why_not


def test_a_path_of_windows_has_its_file_name(run_copy: Path) -> None:
    result = result_of(run_copy / "7_HER2")
    write_result(run_copy / "7_HER2", replace(result, path="D:\\Scans\\Case 7\\7_HER2.tif"))
    run = ReviewRun(run_copy, slides=Path(result.path).parent)
    assert run.find("7_HER2").name == "7_HER2.tif"
    assert run.find("7_HER2").file == Path(result.path)


def test_another_slide_of_the_same_name_is_not_shown_for_the_scored_one(run_copy: Path, tmp_path: Path) -> None:
    result = result_of(run_copy / "7_HER2")
    other = tmp_path / "7_HER2.tif"
    write_pyramid(other, 600, 600, lambda x, y, w, h: __import__("numpy").zeros((h, w, 3), "uint8"), mpp=0.4)
    write_result(run_copy / "7_HER2", replace(result, path=str(other)))
    with pytest.raises(UnsupportedSlide, match="not the slide that was scored"):
        ReviewRun(run_copy).slide("7_HER2")


def test_a_slide_is_read_on_the_scale_on_which_it_was_scored(run_copy: Path) -> None:
    result = result_of(run_copy / "7_HER2")
    assert result.reader is not None
    reader = replace(result.reader, mpp=0.31, mpp_source="user")
    write_result(run_copy / "7_HER2", replace(result, reader=reader))
    with ReviewRun(run_copy).slide("7_HER2") as slide:
        assert slide.mpp == 0.31


def test_a_slide_that_failed_is_listed_with_its_reason_and_never_opened(run_copy: Path, serve: Serve) -> None:
    result = result_of(run_copy / "7_HER2")
    add(
        run_copy,
        "7_HER2",
        result,
        status="failed",
        reason="the codec crashed",
        reader=None,
        call=None,
        cells=None,
        second_opinion=None,
        settings=None,
    )
    run = ReviewRun(run_copy)
    assert run.find("7_HER2").file is None
    assert "the codec crashed" in run.find("7_HER2").why_not
    with pytest.raises(SlideNotFound, match="crashed"):
        run.slide("7_HER2")
    client = serve(run_copy)
    described = client.get("/api/slides/7_HER2").json()
    assert described["viewable"] is False
    assert described["row"]["status"] == "failed"
    assert described["words"]["verdict"] == "Failed"
    assert (described["width"], described["max_level"], described["overview_box"]) == (None, None, None)
    refused = client.get("/api/slides/7_HER2/tiles/0/0_0.jpg")
    assert refused.status_code == 404
    assert "crashed" in refused.json()["error"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="a superuser may read everything")
def test_a_result_that_may_not_be_read_is_not_listed(run_copy: Path) -> None:
    (run_copy / "7_HER2" / "result.json").chmod(0)
    assert "7_HER2" not in [row.slide_id for row in ReviewRun(run_copy).rows()]


def test_a_slide_behind_a_url_is_listed_with_what_to_do(run_copy: Path) -> None:
    result = result_of(run_copy / "7_HER2")
    write_result(run_copy / "7_HER2", replace(result, path="https://slides.example/a/7_HER2.tif"))
    listed = ReviewRun(run_copy).find("7_HER2")
    assert listed.file is None
    assert "--slides" in listed.why_not
    assert ReviewRun(run_copy, slides=Path(result.path).parent).find("7_HER2").file == Path(result.path)


def test_thousands_of_slides_take_a_few_kilobytes_each(review_run: Path, tmp_path: Path) -> None:
    result, count = result_of(review_run / "7_HER2"), 500
    for number in range(count):
        (tmp_path / f"case_{number}").mkdir()
        write_result(tmp_path / f"case_{number}", replace(result, slide_id=f"case_{number}"))
    tracemalloc.start()
    try:
        run = ReviewRun(tmp_path)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 6000 * count
    # Nothing has changed: not a single result is read.
    began = time.perf_counter()
    assert len(run.listed()) == count
    assert time.perf_counter() - began < 0.5
    assert [row.slide_id for row in run.rows()[:3]] == ["case_0", "case_1", "case_2"]


@pytest.mark.parametrize("slide_id", ["case é (1)+", "a b", "=1+1", "日本 7", "x.y.z", "Patient, Case 7@home"])
def test_a_slide_may_have_any_name_that_a_folder_can_have(run_copy: Path, serve: Serve, slide_id: str) -> None:
    shutil.copytree(run_copy / "7_HER2", run_copy / slide_id)
    write_result(run_copy / slide_id, replace(result_of(run_copy / "7_HER2"), slide_id=slide_id))
    client, address = serve(run_copy), quote(slide_id, safe="")
    assert slide_id in [row["slide_id"] for row in client.get("/api/run").json()["slides"]]
    assert client.get(f"/api/slides/{address}").json()["row"]["slide_id"] == slide_id
    assert client.get(f"/api/slides/{address}/tiles/9/0_0.jpg").status_code == 200
    assert client.get(f"/report/{address}").status_code == 200
