"""Drawn regions change the call at once, by the same function and on the same numbers as the run's own."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipelines.configuration import CellRunSettings, RunConfig, load_config
from pipelines.results import STORE, read_result
from pipelines.review import rescoring
from pipelines.review.drawing import as_geojson
from pipelines.review.rescoring import Rescored, rescore
from pipelines.run.score import score
from pipelines.worker.cell_fields import CELL_TABLE, choose_fields
from tests.pipelines.conftest import MPP, ihc_pixels, write_slide
from wsi_her2.cells.table import MARGINS, cell_columns, join_parts, write_part
from wsi_her2.errors import RegionsError
from wsi_her2.scoring.quality import QUALITY
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.grid import PatchGrid
from wsi_her2.slides.regions import Region, RegionNames
from wsi_her2.slides.slide import Box, Overview
from wsi_her2.slides.store import PatchStore
from wsi_her2.slides.tissue import tissue_mask
from wsi_her2.slides.white_point import WhitePoint

WAYS = {
    "cells": {},
    "patches": {"percentages": "counts"},
    "network": {"model": "ather2-phantoms", "runtime": "onnx"},
    "network, cells": {"model": "ather2-phantoms", "runtime": "onnx", "percentages": "cells"},
}
"""Ways to a call: what it is from, and by which classifier."""


def settings(**changed: object) -> RunConfig:
    few = {"gate.min_tumour_patches": 5, "cells.min_cells": 20, "compute.workers": 2, "compute.processes": False}
    return load_config(None, {**few, **changed})


def run(slide: Path, output: Path, config: RunConfig) -> SlideResult:
    return score([slide], output, config, console=Console(file=io.StringIO())).results[0]


def box(name: str | None, x0: float, y0: float, x1: float, y1: float) -> Region:
    return Region(name, (((x0, y0), (x1, y0), (x1, y1), (x0, y1)),))


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 2560 x 1280 px at 0.5 um/px: two round pieces of tissue, stained faintly and strongly."""
    pixels = np.concatenate([ihc_pixels(gain=0.7), ihc_pixels(gain=1.5)], axis=1)
    return write_slide(tmp_path_factory.mktemp("slides") / "halves.tif", pixels)


@pytest.fixture(scope="module")
def runs(halves: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Output folders of real runs over it, one for each of `WAYS`."""
    folder = tmp_path_factory.mktemp("runs")
    for number, (way, options) in enumerate(WAYS.items()):
        assert run(halves, folder / str(number), settings(**options)).status == "scored", way
    return {way: folder / str(number) for number, way in enumerate(WAYS)}


def of(output: Path) -> tuple[Path, SlideResult]:
    folder = output / "halves"
    result = read_result(folder)
    assert result is not None
    return folder, result


def assert_is_the_call_of(rescored: Rescored, result: SlideResult) -> None:
    """Equal to the bit: intervals and the confidence come from a thousand resamples."""
    call, own = rescored.call, result.call
    assert call is not None
    assert own is not None
    assert (call.score, call.group, call.confidence, call.h_score) == (
        own.score,
        own.group,
        own.confidence,
        own.h_score,
    )
    assert {name: pct.value for name, pct in call.percentages.items()} == own.percentages
    assert {name: (pct.low, pct.high) for name, pct in call.percentages.items()} == own.intervals
    assert call.explanation == own.explanation
    assert rescored.call_from == result.call_from
    assert (rescored.patches, rescored.tumour_patches) == (result.n_patches, result.tumour_patches)
    assert rescored.cells == (result.cells.cells if result.cells else 0)
    second = rescored.second_opinion
    assert (None if second is None else second.model_dump()) == (
        None if result.second_opinion is None else vars(result.second_opinion)
    )


@pytest.mark.parametrize("way", WAYS)
def test_without_regions_the_call_is_the_slides_own_to_the_bit(runs: dict[str, Path], way: str) -> None:
    folder, result = of(runs[way])
    rescored = rescore(folder, result, ())
    assert_is_the_call_of(rescored, result)
    assert rescored.reason == rescored.note == ""
    assert rescored.second_opinion is not None
    everywhere = rescore(folder, result, [box("score", -1e4, -1e4, 1e4, 1e4), box("exclude", 3000, 0, 4000, 100)])
    assert everywhere.call == rescored.call
    assert everywhere.note


@pytest.mark.parametrize("way", WAYS)
def test_what_is_excluded_does_not_count_and_the_rest_is_what_is_scored_alone(
    runs: dict[str, Path], way: str
) -> None:
    folder, result = of(runs[way])
    faint, strong = box("", 0, 0, 1280, 1280), box("", 1280, 0, 2560, 1280)
    only_faint = rescore(folder, result, [replace(faint, name="score")])
    assert rescore(folder, result, [replace(strong, name="exclude")]) == only_faint
    only_strong = rescore(folder, result, [replace(faint, name="exclude")])
    assert result.call is not None
    assert only_faint.call is not None
    assert only_strong.call is not None
    assert only_faint.call.percentages != only_strong.call.percentages
    if "model" not in WAYS[way]:
        # The network was not made for tissue stained by turning up a picture.
        assert None not in (only_faint.call.h_score, result.call.h_score, only_strong.call.h_score)
        assert only_faint.call.h_score < result.call.h_score < only_strong.call.h_score  # type: ignore[operator]
    assert only_faint.patches + only_strong.patches == result.n_patches
    assert only_faint.tumour_patches + only_strong.tumour_patches == result.tumour_patches
    assert result.cells is not None
    assert only_faint.cells + only_strong.cells == result.cells.cells
    both = rescore(folder, result, [replace(strong, name="score"), box("exclude", 1280, 0, 2560, 640)])
    assert 0 < both.patches < only_strong.patches
    assert 0 < both.cells < only_strong.cells


@pytest.mark.parametrize("way", ["patches", "network"])
def test_from_patches_it_is_what_a_run_within_the_regions_gives(
    runs: dict[str, Path], halves: Path, tmp_path: Path, way: str
) -> None:
    """Patches lie on the same grid, and what of them counts is found in the same way.

    Percentages of the membrane scorer are the same to the bit. A network's differ in the seventh digit, because
    its sums depend on how many patches of a block it is given at once.
    """
    regions = [box("score", 600, 200, 2200, 1150), box("exclude", 1500, 300, 1903, 811)]
    roi = tmp_path / "halves.geojson"
    roi.write_text(json.dumps(as_geojson(regions, {"score": "roi", "exclude": "ignore"})))
    again = run(halves, tmp_path / "out", settings(**WAYS[way], **{"regions.files": [roi], "cells.mode": "none"}))
    rescored = rescore(*of(runs[way]), regions)
    assert again.call is not None
    assert rescored.call is not None
    assert rescored.patches == again.n_patches
    found = {name: pct.value for name, pct in rescored.call.percentages.items()}
    assert found == pytest.approx(again.call.percentages, abs=0 if way == "patches" else 1e-5)
    assert (rescored.call.score, rescored.call.confidence) == (again.call.score, again.call.confidence)


def test_from_cells_it_is_near_what_a_run_within_the_regions_gives(
    runs: dict[str, Path], halves: Path, tmp_path: Path
) -> None:
    """The run counts cells of whole patches, also beyond an outline."""
    regions = [box("score", 600, 200, 2200, 1150), box("exclude", 1500, 300, 1903, 811)]
    roi = tmp_path / "halves.geojson"
    roi.write_text(json.dumps(as_geojson(regions, {"score": "roi", "exclude": "ignore"})))
    again = run(halves, tmp_path / "out", settings(**{"regions.files": [roi]}))
    rescored = rescore(*of(runs["cells"]), regions)
    assert again.call is not None
    assert again.cells is not None
    assert rescored.call is not None
    assert rescored.cells == pytest.approx(again.cells.cells, rel=0.15)
    for name, pct in rescored.call.percentages.items():
        assert pct.value == pytest.approx(again.call.percentages[name], abs=6)


@pytest.mark.slow
def test_on_real_cores_it_gives_the_calls_of_runs_within_the_regions(real_slides: Path, tmp_path: Path) -> None:
    drawn = {"half": [box("score", 0, 0, 5468, 2734)], "hole": [box("exclude", 1800, 1800, 3600, 3600)]}
    usual = {"compute.workers": 2, "compute.processes": False}
    for core in ("score0_b", "score1_a", "score2_a", "score3_a"):
        slide = real_slides / f"ihc_core_{core}.tif"
        whole = run(slide, tmp_path / "whole", load_config(None, usual))
        for name, regions in drawn.items():
            roi = tmp_path / f"{name}.geojson"
            roi.write_text(json.dumps(as_geojson(regions, {"score": "roi", "exclude": "ignore"})))
            again = run(slide, tmp_path / name, load_config(None, usual | {"regions.files": [roi]}))
            rescored = rescore(tmp_path / "whole" / slide.stem, whole, regions)
            assert again.call is not None
            assert rescored.call is not None
            assert rescored.call.score == again.call.score, (core, name)
            assert rescored.patches == again.n_patches
            for grade, pct in rescored.call.percentages.items():
                assert pct.value == pytest.approx(again.call.percentages[grade], abs=5), (core, name)


def test_a_cell_counts_where_its_nucleus_lies_and_a_patch_where_half_of_it_does(runs: dict[str, Path]) -> None:
    folder, result = of(runs["cells"])
    edge = 1280 + 9 * 64
    rescored = rescore(folder, result, [box("score", 0, 0, edge, 1280)])
    cells = cell_columns(folder / CELL_TABLE, ["x", "tumour"])
    assert rescored.cells == int((cells["tumour"] & (cells["x"] < edge)).sum())
    store = PatchStore.open(folder / STORE, complete=True)
    scored = ~np.isnan(store.probabilities).any(axis=1)
    side = store.grid.patch_px0
    left, straddling = store.xy[:, 0], (store.xy[:, 0] < edge) & (store.xy[:, 0] + side > edge)
    assert (scored & straddling).any()
    half_or_more = (left + side / 2 <= edge) & (store.tissue >= 0.99)
    assert rescored.patches >= int((scored & half_or_more).sum())
    assert rescored.patches <= int((scored & (left + side / 2 <= edge + 8)).sum())


def test_with_all_excluded_there_is_no_call_but_a_reason(runs: dict[str, Path]) -> None:
    for way in WAYS:
        rescored = rescore(*of(runs[way]), [box("exclude", -100, -100, 5000, 5000)])
        assert rescored.call is None
        assert "None of the patches" in rescored.reason
        assert (rescored.patches, rescored.cells, rescored.call_from) == (0, 0, None)


def test_the_gate_holds_for_what_is_left(runs: dict[str, Path]) -> None:
    rescored = rescore(*of(runs["cells"]), [box("score", 300, 300, 700, 700)])
    assert rescored.call is None
    assert "too little tissue" in rescored.reason
    assert 0 < rescored.patches < 20
    folder, result = of(runs["patches"])
    assert result.settings is not None
    strict = replace(result.settings.gate, min_tumour_patches=1000)
    rescored = rescore(folder, replace(result, settings=replace(result.settings, gate=strict)), ())
    assert "limit 1e+03" in rescored.reason


def test_with_few_cells_left_patches_decide_and_the_note_says_so(runs: dict[str, Path]) -> None:
    folder, result = of(runs["cells"])
    assert result.settings is not None
    assert result.settings.counting is not None
    many = replace(result.settings, counting=replace(result.settings.counting, min_cells=100_000))
    rescored = rescore(folder, replace(result, settings=many), [box("score", 0, 0, 2560, 1280)])
    assert rescored.call_from == "patches"
    assert rescored.second_opinion is None
    assert "fewer than 100000, so that patches decide" in rescored.note


def test_another_laboratorys_cutoffs_and_borders_are_those_of_the_run(halves: Path, tmp_path: Path) -> None:
    """Whatever a run was told lies in its result: the call again needs neither profile nor configuration."""
    odd = {
        "thresholds.positive_over_pct": 40.0,
        "confidence.block_um": 200.0,
        "confidence.temperature": 2.5,
        "cells.cutoffs.intense": 0.7,
        "cells.scale_deviation.uncalibrated": 0.1,
        "cells.sample_mm2": 0.1,
        "review.margin_points": 0.0,
        "patches.min_tissue": 0.7,
        "sampling.mode": "adaptive",
    }
    result = run(halves, tmp_path, settings(**odd))
    (tmp_path / "run.json").unlink()
    assert_is_the_call_of(rescore(tmp_path / "halves", result, ()), result)


def test_slides_without_patches_and_results_of_before_have_a_reason(runs: dict[str, Path], tmp_path: Path) -> None:
    folder, result = of(runs["cells"])
    before = replace(result, settings=None)
    assert "--fresh" in rescore(folder, before, ()).reason
    failed = replace(result, status="failed", reason="cannot be opened", reader=None)
    assert "cannot be opened" in rescore(tmp_path, failed, ()).reason
    blank = write_slide(tmp_path / "blank.tif", np.full((1200, 1200, 3), 236, np.uint8))
    refused = run(blank, tmp_path / "out", settings())
    assert refused.status == "not_assessable"
    rescored = rescore(tmp_path / "out" / "blank", refused, [box("score", 0, 0, 1000, 1000)])
    assert "too little tissue" in rescored.reason


def test_a_slide_that_was_refused_can_have_a_call_where_it_is_good(halves: Path, tmp_path: Path) -> None:
    refused = run(halves, tmp_path, settings(**{"gate.min_tumour_patches": 10_000}))
    assert refused.status == "not_assessable"
    assert refused.settings is not None
    lower = replace(refused.settings, gate=replace(refused.settings.gate, min_tumour_patches=5))
    rescored = rescore(tmp_path / "halves", replace(refused, settings=lower), [box("score", 0, 0, 1280, 1280)])
    assert rescored.call is not None
    assert rescored.call_from == "patches"
    assert "It kept no cells of this slide" in rescored.note


def test_names_mean_what_the_page_or_the_run_says_and_others_are_refused(runs: dict[str, Path]) -> None:
    folder, result = of(runs["patches"])
    part = (0, 0, 1280, 1280)
    named = rescore(folder, result, [box("DCIS", *part)], RegionNames())
    assert named == rescore(folder, result, [box("exclude", *part)])
    with pytest.raises(RegionsError, match="DCIS"):
        rescore(folder, result, [box("DCIS", *part)])
    with pytest.raises(RegionsError, match="500"):
        rescore(folder, result, [box("exclude", *part)] * 501)
    with pytest.raises(RegionsError, match="far beyond"):
        rescore(folder, result, [box("exclude", 0, 0, 1e12, 10)])


def test_an_outline_that_crosses_itself_counts_by_the_even_odd_rule(runs: dict[str, Path]) -> None:
    folder, result = of(runs["cells"])
    bow_tie = Region("score", (((300, 300), (2300, 1000), (2300, 300), (300, 1000)),))
    cells = cell_columns(folder / CELL_TABLE, ["x", "y", "tumour"])
    x, y = cells["x"].astype(float), cells["y"].astype(float)
    down, up = 300 + (x - 300) * 0.35, 1000 - (x - 300) * 0.35
    inside = (x >= 300) & (x < 2300) & (y >= np.minimum(down, up)) & (y < np.maximum(down, up))
    assert rescore(folder, result, [bow_tie]).cells == int((cells["tumour"] & inside).sum()) > 0


def test_the_answer_is_what_the_pages_were_promised(runs: dict[str, Path]) -> None:
    answer = rescore(*of(runs["cells"]), [box("exclude", 0, 0, 1280, 1280)]).model_dump(mode="json")
    assert json.loads(json.dumps(answer)) == answer
    assert {"call", "reason", "from", "tumour_patches", "cells", "note"} <= set(answer)
    assert {"score", "group", "confidence", "percentages", "h_score", "explanation", "margin"} <= set(
        answer["call"]
    )
    assert set(answer["call"]["percentages"]["0"]) == {"value", "low", "high"}
    assert answer["from"] == "cells"
    assert "sample" in answer["note"]


@pytest.fixture(scope="module")
def large(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SlideResult]]:
    """A store of 20,000 patches and a table of 10,000 cells, drawn from those of a real run."""
    source, result = of(runs["network, cells"])
    folder = tmp_path_factory.mktemp("large")
    real, chance = PatchStore.open(source / STORE, complete=True), np.random.default_rng(0)
    edge, side = real.grid.block_edge, real.grid.patch_px0
    blocks = -(-20_000 // edge**2)
    corners = np.array([(number % 18, number // 18) for number in range(blocks)], np.int32) * edge * side
    grid = replace(real.grid, block_xy=corners, tissue=np.ones(blocks * edge**2, np.float32))
    assert isinstance(grid, PatchGrid)
    store = PatchStore.create(
        folder / STORE, grid, classes=real.classes, quality=QUALITY, attributes={"outputs": "shares"}
    )
    width = int(corners.max()) + edge * side
    overview = Overview(
        np.full((2500, 2500, 3), 230, np.uint8),
        np.zeros((2500, 2500), bool),
        width / 2500 * MPP,
        Box(0, 0, width, width),
    )
    white = WhitePoint((236.0, 235.0, 241.0), "background", 0.5)
    store.write_overview(tissue_mask(np.ones((2500, 2500), bool), np.zeros((2500, 2500), bool), overview, white))
    scored = np.flatnonzero(~np.isnan(real.probabilities).any(axis=1))
    probabilities, quality = real.probabilities, real.quality
    for block in range(blocks):
        drawn = chance.choice(scored, edge**2)
        store.write_block(block, probabilities[drawn], quality[drawn])
    names = ["x", "y", "patch", "her2_class", *MARGINS, "completeness", "strength", "blush", "surround"]
    cells = cell_columns(source / CELL_TABLE, [*names, "tumour_probability"])
    drawn = chance.integers(0, len(cells["x"]), 10_000)
    cells = {name: column[drawn] for name, column in cells.items()}
    complete = PatchStore.open(folder / STORE, complete=True)
    rows = chance.choice(choose_fields(complete, CellRunSettings(), MPP), len(drawn))
    places = complete.xy[rows] + chance.integers(0, side, (len(drawn), 2))
    write_part(folder / "part.parquet", [cells | {"patch": rows, "x": places[:, 0], "y": places[:, 1]}])
    list(join_parts([folder / "part.parquet"], folder / CELL_TABLE, 0.0))
    yield folder, result
    rescoring._keep.cache_clear()


def test_a_large_slide_takes_no_time_that_somebody_waits_for(large: tuple[Path, SlideResult]) -> None:
    """Time of this process alone, since the machine is shared; on its own it takes a third of a second."""
    folder, result = large
    angles = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    outline = tuple((float(9000 + 5000 * np.cos(a)), float(9000 + 4000 * np.sin(a))) for a in angles)
    regions = [Region("exclude", (outline,)), box("score", 500, 500, 17_500, 17_500)]
    whole = rescore(folder, result, ())
    assert whole.patches == 20_032
    assert whole.cells > 5000
    started = time.process_time()
    part = rescore(folder, result, regions)
    assert time.process_time() - started < 2
    assert part.call is not None
    assert 0 < part.patches < whole.patches
    assert 0 < part.cells < whole.cells
