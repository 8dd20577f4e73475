"""Patches that `score` kept become examples: scored rows only, labelled by a table, pixel for pixel."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from wsi_her2.errors import DatasetError
from wsi_her2.learning.datasets import read_stores
from wsi_her2.slides.blocks import read_block
from wsi_her2.slides.grid import plan_patches
from wsi_her2.slides.store import PatchStore

CLASSES = ("other", "0", "1+", "2+", "3+")


@pytest.fixture(scope="module")
def stores(ihc_slide_path, ihc_mask, tmp_path_factory):
    """An output folder with the stores of two slides; in each block the first scored patch is `other`."""
    from wsi_her2.slides.slide import open_slide

    folder = tmp_path_factory.mktemp("run")
    with open_slide(ihc_slide_path) as slide:
        grid = plan_patches(slide, ihc_mask, 64, 0.5)
        for name in ("1_HER2", "2_HER2"):
            store = PatchStore.create(
                folder / name / "patches.zarr", grid, classes=CLASSES, quality=("focus",), pixels=True
            )
            store.write_overview(ihc_mask)
            for block in range(grid.n_blocks):
                pixels, readable = read_block(slide, grid, block)
                probabilities = np.full((len(readable), 5), np.nan, np.float32)
                probabilities[readable] = (0.1, 0.1, 0.1, 0.1, 0.6)
                probabilities[np.flatnonzero(readable)[0]] = (0.6, 0.1, 0.1, 0.1, 0.1)
                store.write_block(block, probabilities, np.zeros((len(readable), 1), np.float32), pixels=pixels)
    return folder


@pytest.fixture
def copied(stores, tmp_path):
    return shutil.copytree(stores, tmp_path / "run")


def test_scored_rows_are_examples_with_the_label_and_the_group_of_their_slide(stores, ihc_mask):
    reading = read_stores(stores, {"1_HER2": "3", "2_HER2": "0"})
    assert {finding.code for finding in reading.findings} == {"empty-class"}
    made = reading.dataset
    store = PatchStore.open(stores / "1_HER2" / "patches.zarr")
    scored = np.flatnonzero(np.isfinite(store.probabilities).all(axis=1))
    assert 0 < len(scored) < len(store.xy)
    assert len(made) == 2 * len(scored)
    assert made.classes == ("0", "1+", "2+", "3+")
    assert made.mpp == 0.5
    first = made.examples[0]
    x, y = store.xy[scored[0]]
    assert (first.id, first.label, first.group) == (f"1_HER2@{x},{y}", "3+", "1_HER2")
    assert first.white_point == ihc_mask.white_point.rgb
    np.testing.assert_array_equal(made.read(0), store.pixels[int(scored[0])])


def test_a_ground_truth_table_labels_slides_named_by_case_and_the_case_is_the_group(stores, tmp_path, found):
    (tmp_path / "truth.csv").write_text("CaseNo,HeR2 SCORE\n1,2\n7,0\n")
    reading = read_stores(stores, tmp_path / "truth.csv")
    assert {(e.group, e.label) for e in reading.dataset.examples} == {("1", "2+")}
    assert found(reading, "truth-missing")[0].path.parent.name == "2_HER2"


def test_a_table_of_slides_may_name_the_group(stores, tmp_path, found):
    (tmp_path / "labels.csv").write_text(
        "slide_id,label,patient\n1_HER2,tumour,P1\n2_HER2,normal,P1\n3_HER2,tumour,\n"
    )
    reading = read_stores(stores, tmp_path / "labels.csv")
    assert reading.dataset.classes == ("normal", "tumour")
    assert set(reading.dataset.groups) == {"P1"}
    assert "3_HER2" in found(reading, "slide-missing")[0].message


def test_patches_that_the_run_took_for_other_can_be_left_out(stores):
    labels = {"1_HER2": "3+"}
    every, tumour = (read_stores(stores, labels, tumour_only=only).dataset for only in (False, True))
    store = PatchStore.open(stores / "1_HER2" / "patches.zarr")
    assert len(every) - len(tumour) == len(store.done)


def test_so_many_patches_a_slide_are_spread_over_it(stores):
    made = read_stores(stores, {"1_HER2": "3+", "2_HER2": "0"}, per_slide=7).dataset
    assert len(made) == 14
    assert made.examples[0].pixels.row < 64 < made.examples[6].pixels.row


def test_unfinished_blocks_are_passed_over_and_said(copied, found):
    store = PatchStore.open(copied / "1_HER2" / "patches.zarr")
    whole = len(read_stores(copied, {"1_HER2": "0"}).dataset)
    store._array("done")[0] = 0
    reading = read_stores(copied, {"1_HER2": "0"})
    assert "1 blocks" in found(reading, "unfinished-store")[0].message
    assert len(reading.dataset) < whole


def test_stores_that_cannot_be_used_are_said_and_the_others_kept(copied, ihc_slide, ihc_mask, found):
    shutil.rmtree(copied / "1_HER2" / "patches.zarr" / "probabilities")
    grid = plan_patches(ihc_slide, ihc_mask, 128, 0.5)
    PatchStore.create(copied / "bare" / "patches.zarr", grid, classes=CLASSES, quality=("focus",))
    PatchStore.create(copied / "blank" / "patches.zarr", grid, classes=CLASSES, quality=("focus",), pixels=True)
    PatchStore.create(
        copied / "refused" / "patches.zarr",
        replace(grid, block_xy=grid.block_xy[:0], tissue=grid.tissue[:0]),
        classes=CLASSES,
        quality=("focus",),
        pixels=True,
    )
    (copied / "broken" / "patches.zarr").mkdir(parents=True)
    slides = ("1_HER2", "2_HER2", "bare", "blank", "broken", "refused")
    reading = read_stores(copied, dict.fromkeys(slides, "0"))
    problems = {f.path.parent.name: f.message for f in found(reading, "unreadable-store")}
    assert set(problems) == {"1_HER2", "bare", "broken"}
    assert "--store-patches" in problems["bare"]
    assert {f.path.parent.name for f in found(reading, "no-patches")} == {"blank", "refused"}
    assert "128 px" in found(reading, "mixed-scales")[0].message
    assert set(reading.dataset.groups) == {"2_HER2"}


def test_nothing_usable_is_an_error_that_says_why(stores, tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        read_stores(tmp_path / "absent", {})
    with pytest.raises(DatasetError, match="-o folder of score"):
        read_stores(tmp_path, {})
    with pytest.raises(DatasetError, match="no such table"):
        read_stores(stores, tmp_path / "absent.csv")
