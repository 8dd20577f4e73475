"""Contracts of a whole run, on a real cluster."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipelines.configuration import RunConfig, load_config
from pipelines.exports.rebuild import rebuild_reports
from pipelines.run.score import score
from tests.pipelines.conftest import differing_files, ihc_pixels, rows, write_slide
from wsi_her2.errors import ConfigurationError, OutputError
from wsi_her2.reports.slide_table import SLIDE_COLUMNS

SLIDE_FILES = {
    "result.json",
    "patches.zarr",
    "patches.csv",
    "heatmap.png",
    "tissue.png",
    "overlay.geojson",
    "report.html",
    "cells.parquet",
}


@pytest.fixture(scope="module")
def scored(ihc_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run over one slide, with pixels kept."""
    output = tmp_path_factory.mktemp("run") / "out"
    config = load_config(None, {"compute.workers": 2, "compute.processes": False, "store_patches": True})
    score([ihc_slide], output, config)
    return output


def test_a_run_leaves_every_file_of_the_contract(scored: Path) -> None:
    assert {path.name for path in scored.iterdir()} == {
        *("slides.csv", "run.json", "index.html", "ledger.csv", ".claims", "stained")
    }
    assert {path.name for path in (scored / "stained").iterdir()} == SLIDE_FILES


def test_the_table_has_the_columns_of_the_contract(scored: Path) -> None:
    row = rows(scored)["stained"]
    assert tuple(row) == SLIDE_COLUMNS
    assert row["status"] == "scored"
    assert sum(float(row[f"pct_{grade}"]) for grade in range(4)) == pytest.approx(100, abs=0.03)
    assert row["mpp_source"] == "tiff-tags"
    assert float(row["mpp"]) == pytest.approx(0.5, rel=1e-3)
    assert row["calibration"] == "none"


def test_the_store_follows_its_schema_and_agrees_with_the_table_of_patches(scored: Path) -> None:
    store = zarr.open_group(scored / "stained" / "patches.zarr", mode="r", zarr_format=3)
    n = store["xy"].shape[0]
    assert store["xy"].dtype == np.int32
    assert store["xy"].shape == (n, 2)
    assert store["probabilities"].shape == (n, 5)
    assert store["pixels"].shape == (n, 128, 128, 3)
    assert store["pixels"].chunks[0] == store["probabilities"].chunks[0] == 64
    assert (store["done"][:] == 1).all()
    with (scored / "stained" / "patches.csv").open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    scored_rows = ~np.isnan(store["probabilities"][:]).any(axis=1)
    assert len(table) == scored_rows.sum() == int(rows(scored)["stained"]["n_patches"])
    assert [(int(r["x"]), int(r["y"])) for r in table] == [
        tuple(xy) for xy in store["xy"][:][scored_rows].tolist()
    ]
    classes = store.attrs["classes"]
    for row, probabilities in zip(table, store["probabilities"][:][scored_rows], strict=True):
        assert row["label"] == classes[int(probabilities.argmax())]


def test_kept_pixels_are_those_of_the_slide(scored: Path, ihc_slide: Path) -> None:
    import openslide

    store = zarr.open_group(scored / "stained" / "patches.zarr", mode="r", zarr_format=3)
    row = int(np.flatnonzero(~np.isnan(store["probabilities"][:, 0]))[7])
    x, y = (int(value) for value in store["xy"][row])
    with openslide.OpenSlide(ihc_slide) as slide:
        expected = np.asarray(slide.read_region((x, y), 0, (128, 128)).convert("RGB"))
    np.testing.assert_array_equal(store["pixels"][row], expected)


def test_run_json_names_the_version_the_model_and_the_command(scored: Path) -> None:
    run = json.loads((scored / "run.json").read_text())
    assert run["state"] == "finished"
    assert len(run["model"]["sha256"]) == 64
    assert {"version", "argv", "config", "machine", "scheduler", "started", "ended", "workers"} <= set(run)


def test_the_overlay_lies_on_level_0_pixels_inside_the_slide(scored: Path) -> None:
    overlay = json.loads((scored / "stained" / "overlay.geojson").read_text())
    assert overlay["type"] == "FeatureCollection"
    side = ihc_pixels().shape[0]
    tiles = [f for f in overlay["features"] if f["properties"].get("objectType") == "tile"]
    assert tiles
    for feature in tiles:
        for x, y in feature["geometry"]["coordinates"][0]:
            assert isinstance(x, int)
            assert 0 <= x <= side + 128
            assert 0 <= y <= side + 128


@pytest.mark.parametrize(("workers", "processes"), [(1, False), (1, True), (2, True)])
def test_outputs_do_not_depend_on_the_workers(
    scored: Path, ihc_slide: Path, tmp_path: Path, workers: int, processes: bool
) -> None:
    config = load_config(None, {"compute.workers": workers, "compute.processes": processes, "store_patches": True})
    score([ihc_slide], tmp_path / "out", config)
    assert differing_files(scored, tmp_path / "out") == []


def test_an_equal_run_reuses_results_and_a_changed_one_does_not(
    scored: Path, ihc_slide: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(scored, output)
    stamp = (output / "stained" / "result.json").stat().st_mtime_ns
    config = load_config(None, {"compute.workers": 1, "compute.processes": False, "store_patches": True})
    score([ihc_slide], output, config)
    assert (output / "stained" / "result.json").stat().st_mtime_ns == stamp
    changed = config.model_copy(update={"store_patches": False})
    score([ihc_slide], output, changed)
    assert (output / "stained" / "result.json").stat().st_mtime_ns != stamp
    assert not (output / "stained" / "patches.zarr" / "pixels").exists()


def test_fresh_scores_again(scored: Path, ihc_slide: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(scored, output)
    stamp = (output / "stained" / "result.json").stat().st_mtime_ns
    config = load_config(None, {"compute.workers": 2, "compute.processes": False, "store_patches": True})
    score([ihc_slide], output, config, fresh=True)
    assert (output / "stained" / "result.json").stat().st_mtime_ns != stamp
    assert differing_files(scored, output) == []


def test_results_of_earlier_runs_stay_in_the_table(ihc_slide: Path, tmp_path: Path, config: RunConfig) -> None:
    other = tmp_path / "elsewhere" / "stained.tif"
    other.parent.mkdir()
    shutil.copyfile(ihc_slide, other)
    score([ihc_slide], tmp_path / "out", config)
    score([other], tmp_path / "out", config)
    assert {row["path"] for row in rows(tmp_path / "out").values()} == {str(ihc_slide), str(other)}


def test_reports_can_be_made_again_without_the_slide(scored: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(scored, output)
    for name in ("report.html", "heatmap.png", "tissue.png", "overlay.geojson"):
        (output / "stained" / name).unlink()
    (output / "index.html").unlink()
    result = json.loads((output / "stained" / "result.json").read_text())
    result["path"] = "/gone/stained.tif"
    (output / "stained" / "result.json").write_text(json.dumps(result))
    page, count = rebuild_reports(output)
    assert (page.name, count) == ("index.html", 1)
    for name in ("heatmap.png", "tissue.png", "overlay.geojson"):
        assert (output / "stained" / name).read_bytes() == (scored / "stained" / name).read_bytes()
    assert (output / "stained" / "report.html").exists()


def test_report_of_a_folder_without_results_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no results"):
        rebuild_reports(tmp_path)


def test_an_existing_scheduler_is_used_by_its_address(scored: Path, ihc_slide: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0") as cluster:
        config = load_config(None, {"compute.scheduler": cluster.scheduler_address, "store_patches": True})
        score([ihc_slide], tmp_path / "out", config)
    assert differing_files(scored, tmp_path / "out") == []


def test_a_scheduler_that_does_not_answer_is_named(ihc_slide: Path, tmp_path: Path) -> None:
    config = load_config(None, {"compute.scheduler": "tcp://127.0.0.1:9"})
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:9"):
        score([ihc_slide], tmp_path / "out", config)


def test_the_real_cores_are_called_and_ordered(data_dir: Path, tmp_path: Path, config: RunConfig) -> None:
    cores = sorted((data_dir / "slides").glob("ihc_core_score*.tif"))
    score(cores, tmp_path / "out", config)
    found = rows(tmp_path / "out")
    assert {row["status"] for row in found.values()} == {"scored"}
    calls = {name.removeprefix("ihc_core_score"): row["her2_score"] for name, row in found.items()}
    assert calls["3_a"] == "3+"
    # One core of score 0 lies at the border of 1+.
    assert calls["0_a"] == "0"
    assert 100 - float(found["ihc_core_score0_b"]["pct_0"]) < 15
    stained = [
        100 - float(found[f"ihc_core_score{core}"]["pct_0"]) for core in ("0_a", "0_b", "1_a", "2_a", "3_a")
    ]
    assert max(stained[:2]) < stained[2] < stained[3] < stained[4]
    ranked = [float(found[f"ihc_core_score{core}"]["h_score"]) for core in ("0_a", "0_b", "1_a", "2_a", "3_a")]
    assert max(ranked[:2]) < ranked[2] < ranked[3] < ranked[4]


def test_stronger_stain_is_never_scored_lower(tmp_path: Path, config: RunConfig) -> None:
    for gain in (0.25, 0.6, 1.0, 1.6):
        write_slide(tmp_path / f"gain_{gain:g}.tif", ihc_pixels(gain=gain))
    score(sorted(tmp_path.glob("*.tif")), tmp_path / "out", config)
    called = [row for row in rows(tmp_path / "out").values() if row["her2_score"]]
    assert len(called) >= 3
    # All dyes are stronger: more pale nuclei are found, which do not stain, so the H-score need not rise.
    for ranked in ([row["her2_score"] for row in called], [float(row["pct_3"]) for row in called]):
        assert ranked == sorted(ranked)


def test_fail_fast_stops_at_the_first_failure(ihc_slide: Path, tmp_path: Path) -> None:
    broken = tmp_path / "a_broken.svs"
    broken.write_bytes(b"not a slide")
    config = load_config(None, {"compute.workers": 1, "compute.processes": False, "compute.max_slides_open": 1})
    summary = score([broken, ihc_slide], tmp_path / "out", config, fail_fast=True)
    assert [result.status for result in summary.results] == ["failed"]


def test_nothing_can_be_written_says_so(ihc_slide: Path, tmp_path: Path, config: RunConfig) -> None:
    blocker = tmp_path / "out"
    blocker.write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        score([ihc_slide], blocker, config)
