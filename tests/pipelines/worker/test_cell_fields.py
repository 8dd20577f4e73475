"""A run counts the cells of the tumour: where it was told to look, once, and whatever interrupts it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.cluster import connect
from pipelines.configuration import CellRunSettings, RunConfig, load_config
from pipelines.exports.rebuild import rebuild_reports
from pipelines.fingerprint import slide_fingerprint
from pipelines.run.score import resolve_classifier, score
from pipelines.scheduling.events import BlockDone, CellPartDone, CellsFound, SlideDone
from pipelines.scheduling.schedule import score_slides
from pipelines.scheduling.slide_queue import SlideQueue
from pipelines.slide_claims import Claims
from pipelines.worker.cell_fields import CELL_TABLE, choose_fields
from pipelines.worker.counting_cells import measure_cell_part, plan_cells
from pipelines.worker.preparing import prepare_slide
from pipelines.worker.scoring_blocks import score_block
from pipelines.worker.task import SlideTask
from tests.pipelines.conftest import differing_files, ihc_pixels, rows
from wsi_her2.slides.slide import open_slide
from wsi_her2.slides.store import PatchStore

Cli = Callable[..., subprocess.CompletedProcess[str]]

FIELDS = 20
SIDE, MPP = 128, 0.5
OF_CELLS = ("cells", "second_opinion", "review", "pct_complete_membrane")


def settings(**changed: object) -> RunConfig:
    """Two threads that count cells in about half of the patches of tumour, which makes two parts."""
    sample = {"cells.sample_mm2": FIELDS * (SIDE * MPP / 1000) ** 2, "cells.min_cells": 20}
    return load_config(None, {"compute.workers": 2, "compute.processes": False, **sample, **changed})


def result_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "stained" / "result.json").read_text(encoding="utf-8"))


def patches_of(output: Path) -> pd.DataFrame:
    return pd.read_csv(output / "stained" / "patches.csv")


@pytest.fixture(scope="module")
def counted(ihc_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run that counts cells in a sample of the tumour."""
    output = tmp_path_factory.mktemp("counted") / "out"
    score([ihc_slide], output, settings())
    return output


@pytest.fixture(scope="module")
def counted_everywhere(ihc_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run that counts the cells of all of the tumour."""
    output = tmp_path_factory.mktemp("everywhere") / "out"
    score([ihc_slide], output, settings(**{"cells.mode": "all"}))
    return output


def test_the_call_and_its_percentages_are_those_of_the_tumour_cells_in_the_table(counted: Path) -> None:
    table = pd.read_parquet(counted / "stained" / CELL_TABLE)
    classes = table["her2_class"][table["tumour"]]
    row, result = rows(counted)["stained"], result_of(counted)
    assert int(row["cells"]) == len(classes) > 20
    assert result["cells"]["nuclei"] == len(table) > len(classes)
    for grade in range(4):
        assert float(row[f"pct_{grade}"]) == pytest.approx(100 * (classes == grade).mean(), abs=0.006)
    assert float(row["pct_complete_membrane"]) == pytest.approx(100 * (classes >= 2).mean(), abs=0.006)
    assert result["call_from"] == "cells"
    assert result["call"] == result["cells"]["call"]
    assert result["second_opinion"]["way"] == "patches"
    assert row["second_opinion"] == result["second_opinion"]["score"]
    assert row["review"] in ("true", "false")


def may_hold_tumour(patches: pd.DataFrame) -> pd.Series:
    """Patches of which a fifth may be tumour: unstained tumour passes for other tissue more often than stained."""
    return 1 - patches["prob_other"] > 0.2


def test_cells_lie_in_patches_that_may_hold_tumour(counted: Path) -> None:
    table, patches = pd.read_parquet(counted / "stained" / CELL_TABLE), patches_of(counted)
    store = PatchStore.open(counted / "stained" / "patches.zarr")
    corners = store.xy[table["patch"]]
    inside = table[["x", "y"]].to_numpy() - corners
    assert inside.min() >= 0
    assert inside.max() <= SIDE
    may = patches.loc[may_hold_tumour(patches), ["x", "y"]].to_numpy()
    assert {(x, y) for x, y in corners.tolist()} <= {(x, y) for x, y in may.tolist()}
    summary = result_of(counted)["cells"]
    assert summary["patches"] == FIELDS < len(may)
    assert 0.8 * FIELDS <= table["patch"].nunique() <= FIELDS
    assert summary["measured_mm2"] == pytest.approx(FIELDS * (SIDE * MPP / 1000) ** 2, rel=1e-3)


def test_no_cell_is_counted_twice_where_fields_meet(counted_everywhere: Path) -> None:
    table = pd.read_parquet(counted_everywhere / "stained" / CELL_TABLE)
    places = table[["x", "y"]].to_numpy(float)
    # The tissue is mirrored there, and a nucleus on the very mirror has two equal maxima.
    mirror = ihc_pixels().shape[0] / 2
    places = places[(abs(places - mirror) > 2).all(axis=1)]
    assert len(places) > 0.9 * len(table)
    between = np.linalg.norm(places[:, None] - places[None], axis=2)
    between[np.diag_indices(len(places))] = np.inf
    assert between.min() * MPP > 2.0


def test_tumour_cells_are_detections_of_whole_level_0_pixels(counted: Path, ihc_slide: Path) -> None:
    overlay = json.loads((counted / "stained" / "overlay.geojson").read_text(encoding="utf-8"))
    detections = [f for f in overlay["features"] if f["properties"]["objectType"] == "detection"]
    table = pd.read_parquet(counted / "stained" / CELL_TABLE)
    table = table[table["tumour"]]
    assert len(detections) == len(table)
    for detection, x, y in zip(detections, table["x"], table["y"], strict=True):
        (ring,) = detection["geometry"]["coordinates"]
        assert all(isinstance(value, int) for corner in ring for value in corner)
        np.testing.assert_allclose(np.mean(ring[:-1], axis=0), (x, y), atol=0.01)


def test_the_report_shows_fields_and_can_be_made_again_without_the_slide(counted: Path, tmp_path: Path) -> None:
    report = (counted / "stained" / "report.html").read_text(encoding="utf-8")
    assert "Counted cells" in report
    assert report.count("without and with its cells ringed") == 4
    output = tmp_path / "out"
    shutil.copytree(counted, output)
    (output / "stained" / "report.html").unlink()
    (output / "stained" / "overlay.geojson").unlink()
    rebuild_reports(output)
    assert differing_files(counted, output) == []


def test_all_looks_wherever_tumour_may_be_and_finds_the_same_cells_where_a_sample_did(
    counted: Path, counted_everywhere: Path
) -> None:
    patches, result = patches_of(counted_everywhere), result_of(counted_everywhere)
    assert result["cells"]["sampling"] == "all"
    assert result["cells"]["patches"] == may_hold_tumour(patches).sum() > (patches["label"] != "other").sum()
    sample, whole = (pd.read_parquet(output / "stained" / CELL_TABLE) for output in (counted, counted_everywhere))
    assert len(whole) > len(sample)
    again = whole[whole["patch"].isin(sample["patch"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, sample)


def test_none_leaves_cells_empty_and_calls_from_patches(
    cli: Cli, counted: Path, ihc_slide: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    scored = cli("score", ihc_slide, "-o", output, "--cells", "none", "--workers", 1)
    assert scored.returncode == 0, scored.stderr
    row, result, patches = rows(output)["stained"], result_of(output), patches_of(output)
    assert [row[column] for column in OF_CELLS] == [""] * 4
    assert (result["call_from"], result["cells"], result["second_opinion"]) == ("patches", None, None)
    assert not (output / "stained" / CELL_TABLE).exists()
    assert '"detection"' not in (output / "stained" / "overlay.geojson").read_text(encoding="utf-8")
    assert "Counted cells" not in (output / "stained" / "report.html").read_text(encoding="utf-8")
    tumour = patches["label"][patches["label"] != "other"]
    for grade, name in enumerate(("0", "1+", "2+", "3+")):
        assert float(row[f"pct_{grade}"]) == pytest.approx(100 * (tumour == name).mean(), abs=1)
    assert row["her2_score"] == rows(counted)["stained"]["second_opinion"]


def test_where_percentages_of_patches_are_asked_for_cells_are_the_second_opinion(
    counted: Path, ihc_slide: Path, tmp_path: Path
) -> None:
    score([ihc_slide], tmp_path / "out", settings(percentages="counts"))
    result, from_cells = result_of(tmp_path / "out"), result_of(counted)
    assert (result["call_from"], result["second_opinion"]["way"]) == ("patches", "cells")
    assert result["cells"] == from_cells["cells"]
    assert result["second_opinion"]["score"] == from_cells["call"]["score"]
    assert result["call"]["score"] == from_cells["second_opinion"]["score"]


def test_too_few_cells_say_nothing_of_percentages(ihc_slide: Path, tmp_path: Path) -> None:
    score([ihc_slide], tmp_path / "out", settings(**{"cells.min_cells": 100_000}))
    row, result = rows(tmp_path / "out")["stained"], result_of(tmp_path / "out")
    assert row["status"] == "scored"
    assert [row[column] for column in OF_CELLS] == [""] * 4
    assert result["call_from"] == "patches"


def test_a_slide_that_is_refused_after_its_cells_were_measured_leaves_nothing_of_them(
    ihc_slide: Path, tmp_path: Path
) -> None:
    score([ihc_slide], tmp_path / "out", settings(**{"gate.min_tumour_patches": 10_000}))
    row = rows(tmp_path / "out")["stained"]
    assert row["status"] == "not_assessable"
    assert [row[column] for column in OF_CELLS] == [""] * 4
    assert not [path.name for path in (tmp_path / "out" / "stained").iterdir() if "cell" in path.name]


# Interrupted work


def task_of(slide: Path, output: Path) -> SlideTask:
    config = settings()
    choice, classifier = resolve_classifier(config)
    return SlideTask("stained", slide, output, config, choice, classifier.sha256)


def measure_all_but_one_part(task: SlideTask) -> str:
    """Do the steps of a slide up to the last part of its cells but one, as a run that is killed then."""
    prepared = prepare_slide(task)
    for block in prepared.pending:
        score_block(task, prepared.fingerprint, block)
    planned = plan_cells(task, prepared.fingerprint)
    assert planned.pending == tuple(range(planned.n_parts))
    assert planned.n_parts >= 2
    for part in planned.pending[1:]:
        measure_cell_part(task, prepared.fingerprint, part)
    return prepared.fingerprint


def test_only_missing_parts_are_measured_again_and_the_end_is_the_same(
    counted: Path, ihc_slide: Path, tmp_path: Path
) -> None:
    task = task_of(ihc_slide, tmp_path / "out")
    fingerprint = measure_all_but_one_part(task)
    again = prepare_slide(task)
    assert (again.fingerprint, again.pending) == (fingerprint, ())
    planned = plan_cells(task, fingerprint)
    assert planned.pending == (0,)
    with Claims(task.output) as claims, connect(task.config.compute) as client:
        events = list(score_slides(client, SlideQueue([task], claims)))
    assert [event for event in events if isinstance(event, BlockDone)] == []
    (found,) = (event for event in events if isinstance(event, CellsFound))
    assert (found.n_parts, found.done) == (planned.n_parts, planned.n_parts - 1)
    assert len([event for event in events if isinstance(event, CellPartDone)]) == 1
    assert isinstance(events[-1], SlideDone)
    shutil.copyfile(counted / "run.json", tmp_path / "out" / "run.json")
    score([ihc_slide], tmp_path / "out", task.config)
    assert differing_files(counted, tmp_path / "out") == []


def test_parts_of_other_settings_are_not_taken_over(counted: Path, ihc_slide: Path, tmp_path: Path) -> None:
    task = task_of(ihc_slide, tmp_path / "out")
    measure_all_but_one_part(task)
    other = settings(**{"cells.cutoffs": {"complete": 2.5}})
    score([ihc_slide], tmp_path / "out", other)
    score([ihc_slide], tmp_path / "fresh", other)
    assert differing_files(tmp_path / "fresh", tmp_path / "out") == []
    assert result_of(tmp_path / "out")["cells"] != result_of(counted)["cells"]


@pytest.mark.parametrize(
    "changed", [{"cells.mode": "all"}, {"cells.cutoffs": {"stained": 1.3}}, {"review.margin_points": 1.0}]
)
def test_settings_of_cells_and_review_change_the_fingerprint(ihc_slide: Path, changed: dict[str, object]) -> None:
    plain = slide_fingerprint(ihc_slide, settings(), "ab", "numpy")
    assert slide_fingerprint(ihc_slide, settings(**changed), "ab", "numpy") != plain
    assert slide_fingerprint(ihc_slide, settings(), "ab", "numpy") == plain


# Where to look


@pytest.mark.parametrize("wanted", [1, 7, 20, 100_000])
def test_a_sample_is_spread_evenly_over_the_tumour(counted: Path, ihc_slide: Path, wanted: int) -> None:
    store = PatchStore.open(counted / "stained" / "patches.zarr")
    with open_slide(ihc_slide) as slide:
        mpp = slide.mpp
    tumour = choose_fields(store, CellRunSettings(mode="all"), mpp)
    assert (np.diff(tumour) > 0).all()
    area = (store.grid.patch_px0 * mpp / 1000) ** 2
    chosen = choose_fields(store, CellRunSettings(sample_mm2=wanted * area), mpp)
    assert len(chosen) == min(wanted, len(tumour))
    assert set(chosen.tolist()) <= set(tumour.tolist())
    steps = np.diff(np.searchsorted(tumour, chosen))
    if len(steps):
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1
