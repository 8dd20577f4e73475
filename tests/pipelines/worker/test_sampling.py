"""A sample is spread over the tissue, grows in rounds, stops when the call is sure, and is said to be one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.configuration import RunConfig, load_config
from pipelines.run.score import score
from pipelines.worker.preparing import prepare_slide
from pipelines.worker.sample_steps import extend_sample
from pipelines.worker.sampling import BLOCKS, FIRST_ROUND, assess_sample, block_edge, round_sizes, spread_order
from pipelines.worker.scoring_blocks import score_block
from pipelines.worker.task import SlideTask
from tests.pipelines.conftest import differing_files, ihc_pixels, write_slide
from wsi_her2.models.loading import MEMBRANE, ClassifierChoice
from wsi_her2.scoring.call import call_slide
from wsi_her2.slides.grid import PatchGrid
from wsi_her2.slides.store import PatchStore

CLASSES = ("0", "1+", "2+", "3+")
SMALL_PATCHES = {"patches.block_edge": 1, "patches.min_tissue": 0.3, "cells.mode": "none"}


def grid_xy(columns, rows, step=448):
    return (np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2) * step).astype(
        np.int32
    )


@pytest.fixture
def filled(tmp_path):
    """Make a store of one-patch blocks whose patches are of given classes; returns it and how to fill it."""

    def make(labels):
        xy = grid_xy(len(labels), 1)
        grid = PatchGrid(32, 448, 0.5, 0.5, 1, xy, np.ones(len(labels), np.float32), 0.5)
        store = PatchStore.create(tmp_path / f"{len(labels)}.zarr", grid, classes=CLASSES, quality=("focus",))

        def fill(blocks):
            for block in blocks:
                row = np.zeros((1, 4), np.float32)
                row[0, labels[block]] = 1
                store.write_block(int(block), row, np.ones((1, 1), np.float32))

        return store, fill

    return make


def from_patches(probabilities, blocks, unseen):
    return call_slide(probabilities, CLASSES, blocks=blocks, unseen=unseen)


# Order


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (16, 16), (23, 41)])
def test_an_order_takes_every_block_once(shape):
    order = spread_order(grid_xy(*shape))
    assert sorted(order.tolist()) == list(range(shape[0] * shape[1]))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_every_beginning_of_the_order_is_spread_evenly(share):
    xy = grid_xy(32, 32)
    count = round(share * len(xy))
    chosen = xy[spread_order(xy)[:count]] // 448
    per_part = np.histogram2d(chosen[:, 0], chosen[:, 1], bins=4, range=[[0, 32], [0, 32]])[0]
    assert np.abs(per_part - count / 16).max() <= 1


def test_neighbours_are_not_taken_together():
    xy = grid_xy(32, 32)
    first = xy[spread_order(xy)[:64]].astype(np.int64) // 448
    apart = np.abs(first[:, None] - first[None]).max(axis=2) + 99 * np.eye(64, dtype=np.int64)
    assert np.median(apart.min(axis=1)) >= 2


@pytest.mark.parametrize("count", [1, FIRST_ROUND, FIRST_ROUND + 1, 300, 5000])
def test_rounds_grow_until_they_hold_all(count):
    sizes = round_sizes(count)
    assert sizes[-1] == count
    assert sizes == sorted(set(sizes))
    assert sizes[0] == min(count, FIRST_ROUND)


@pytest.mark.parametrize(("tissue_mm2", "patch_px"), [(0.5, 128), (10, 224), (300, 224), (300, 512)])
def test_blocks_are_as_many_as_even_a_small_sample_needs(tissue_mm2, patch_px):
    edge = block_edge(tissue_mm2, patch_px, 0.5)
    blocks = tissue_mm2 * 1e6 / (patch_px * 0.5 * edge) ** 2
    assert edge == 1 or blocks > BLOCKS / 2
    assert edge * patch_px <= 2048


# When to stop


def test_a_clear_slide_stops_after_the_first_round(filled):
    store, fill = filled(np.full(400, 3))
    assert len(assess_sample(store, from_patches, 0.99).pending) == FIRST_ROUND
    fill(assess_sample(store, from_patches, 0.99).pending)
    assessment = assess_sample(store, from_patches, 0.99)
    assert assessment.pending == ()
    assert (assessment.sample.patches, assessment.sample.of_patches) == (FIRST_ROUND, 400)
    assert assessment.sample.confidence >= 0.99


def test_a_slide_at_a_border_is_scored_to_the_end(filled):
    labels = np.zeros(400, np.int64)
    # 10.25 % of 1+: one block to either side of the border.
    labels[np.random.default_rng(3).permutation(400)[:41]] = 1
    store, fill = filled(labels)
    taken = []
    while pending := assess_sample(store, from_patches, 0.99).pending:
        fill(pending)
        taken.append(len(store.done.nonzero()[0]))
    assert taken == round_sizes(400)[: len(taken)]
    assert store.done.mean() > 0.9
    final = assess_sample(store, from_patches, 0.99).sample
    assert final.confidence >= 0.99
    assert final.patches == store.done.sum()


def test_where_no_call_can_be_made_all_is_scored(filled):
    store, fill = filled(np.zeros(60, np.int64))
    while pending := assess_sample(store, lambda *_: None, 0.99).pending:
        fill(pending)
    assert store.done.all()
    assert assess_sample(store, lambda *_: None, 0.99).sample.confidence == 1


def test_what_an_interrupted_round_left_does_not_change_the_decision(filled):
    store, fill = filled(np.random.default_rng(5).choice(4, 400, p=[0.7, 0.14, 0.14, 0.02]))
    fill(assess_sample(store, from_patches, 0.999).pending)
    before = assess_sample(store, from_patches, 0.999)
    assert before.pending
    fill(before.pending[:3])
    after = assess_sample(store, from_patches, 0.999)
    assert after.pending == before.pending[3:]
    assert after.sample == before.sample


def test_the_stated_confidence_is_how_often_the_call_of_all_is_the_same():
    """Made-up slides of 300 blocks at random distances from the borders, a tenth of each seen."""
    generator = np.random.default_rng(11)
    stated, same = [], []
    for _ in range(400):
        shares = generator.dirichlet((4.0, 1.0, 0.7, 0.5))
        labels = generator.choice(4, 300, p=shares)
        probabilities = np.eye(4, dtype=np.float32)[labels]
        # One block in all: of the whole only the score is asked for, and no confidence.
        whole = call_slide(probabilities, CLASSES, blocks=np.zeros(300, np.int64))
        probabilities[generator.permutation(300)[30:]] = np.nan
        sample = call_slide(probabilities, CLASSES, unseen=270)
        stated.append(sample.confidence)
        same.append(sample.score == whole.score)
    stated, same = np.array(stated), np.array(same)
    assert abs(stated.mean() - same.mean()) < 0.05
    assert same[stated >= 0.99].mean() >= 0.97
    assert same[stated < 0.7].mean() < 0.8


# Whole runs


@pytest.fixture(scope="session")
def stained(tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("sampled") / "stained.tif", ihc_pixels(2))


def adaptive(**more) -> RunConfig:
    return load_config(
        None,
        {"compute.workers": 2, "compute.processes": False, "sampling.mode": "adaptive", **SMALL_PATCHES, **more},
    )


def test_a_sampled_run_says_so_and_shows_what_was_sampled(stained, tmp_path):
    full = score([stained], tmp_path / "full", adaptive(**{"sampling.mode": "full"})).results[0]
    sampled = score([stained], tmp_path / "sampled", adaptive()).results[0]
    assert full.sample is None
    assert sampled.call.score == full.call.score
    assert sampled.n_patches < full.n_patches / 2
    assert sampled.sample.of_patches == full.n_patches
    assert sampled.sample.patches == sampled.n_patches
    assert sampled.unreadable_fraction == 0
    described = json.loads((tmp_path / "sampled/stained/result.json").read_text())["sample"]
    assert described["confidence"] >= described["asked"] == 0.99
    report = (tmp_path / "sampled/stained/report.html").read_text()
    assert f"{sampled.n_patches:,} of {full.n_patches:,} patches" in report
    assert "spread evenly over the tissue" in report
    assert "spread evenly" not in (tmp_path / "full/stained/report.html").read_text()
    rows = (tmp_path / "sampled/stained/patches.csv").read_text().splitlines()
    assert len(rows) == 1 + sampled.n_patches


@pytest.mark.parametrize("workers", [1, 3])
def test_a_sample_does_not_depend_on_the_number_of_workers(stained, tmp_path, workers):
    score([stained], tmp_path / "two", adaptive())
    score([stained], tmp_path / "other", adaptive(**{"compute.workers": workers}))
    assert differing_files(tmp_path / "two", tmp_path / "other") == []


def test_an_interrupted_sample_goes_on_where_it_was(stained, tmp_path):
    config = adaptive()
    classifier = ClassifierChoice(MEMBRANE).load()
    task = SlideTask("stained", stained, tmp_path, config, ClassifierChoice(MEMBRANE), classifier.sha256)
    first = prepare_slide(task)
    assert len(first.pending) == FIRST_ROUND
    for block in first.pending[:5]:
        score_block(task, first.fingerprint, block)
    again = prepare_slide(task)
    assert set(again.pending) == set(first.pending[5:])
    for block in again.pending:
        score_block(task, again.fingerprint, block)
    extended = extend_sample(task, again.fingerprint)
    assert extended.pending == () or not set(extended.pending) & set(first.pending)
    assert prepare_slide(task).pending == extended.pending


def test_a_sample_is_part_of_the_fingerprint(stained, tmp_path):
    results = [
        score([stained], tmp_path / "run", config).results[0].fingerprint
        for config in (adaptive(), adaptive(**{"sampling.confidence": 0.9}))
    ]
    assert results[0] != results[1]


def test_the_command_takes_the_mode(stained, tmp_path, cli):
    done = cli("score", stained, "-o", tmp_path / "out", "--sampling", "adaptive", "--cells", "none")
    assert done.returncode in (0, 1), done.stderr
    assert json.loads((tmp_path / "out/run.json").read_text())["config"]["sampling"]["mode"] == "adaptive"
