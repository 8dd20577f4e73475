"""Patches that fail the gate are shown but not counted, and do not make a slide unreadable."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.configuration import load_config
from pipelines.run.score import score
from tests.pipelines.conftest import differing_files, ihc_pixels, rows, write_slide
from wsi_her2.reports.heatmap import draw_layer
from wsi_her2.reports.palette import NOT_SCORED
from wsi_her2.slides.store import PatchStore

SIDE = 1280
BLURRED = SIDE // 3


@pytest.fixture(scope="module")
def partly_blurred(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A slide whose left third is out of focus, scored by one worker and by two."""
    folder = tmp_path_factory.mktemp("gate")
    pixels = ihc_pixels()
    pixels[:, :BLURRED] = cv2.GaussianBlur(pixels, (0, 0), 6.0)[:, :BLURRED]
    slide = write_slide(folder / "partly.tif", pixels)
    for workers in (1, 2):
        config = load_config(None, {"compute.workers": workers, "compute.processes": False})
        score([slide], folder / f"out{workers}", config)
    return folder / "out1", folder / "out2"


def test_failing_patches_are_not_scored_and_the_others_are(partly_blurred: tuple[Path, Path]) -> None:
    store = PatchStore.open(partly_blurred[0] / "partly" / "patches.zarr")
    planned = store.grid.selected
    scored = ~np.isnan(store.probabilities).any(axis=1)
    x = store.xy[:, 0]
    assert not np.isnan(store.quality[planned]).any()
    assert not scored[planned & (x + store.grid.patch_px0 <= BLURRED)].any()
    assert scored[planned & (x > BLURRED + 8)].all()


def test_a_slide_of_which_a_part_fails_is_called_from_the_rest(partly_blurred: tuple[Path, Path]) -> None:
    row = rows(partly_blurred[0])["partly"]
    store = PatchStore.open(partly_blurred[0] / "partly" / "patches.zarr")
    assert row["status"] == "scored"
    assert int(row["n_patches"]) == (~np.isnan(store.probabilities).any(axis=1)).sum() < store.grid.selected.sum()
    assert float(row["unreadable_fraction"]) == 0


def test_failing_patches_are_hatched_in_the_heatmap(partly_blurred: tuple[Path, Path]) -> None:
    store = PatchStore.open(partly_blurred[0] / "partly" / "patches.zarr")
    layer = draw_layer(store.read_overview(), store, store.classes, SIDE)
    failed = store.grid.selected & np.isnan(store.probabilities).any(axis=1)
    assert failed.any()
    side = store.grid.patch_px0
    for left, top in store.xy[failed]:
        patch = layer[top + 4 : top + side - 4, left + 4 : left + side - 4]
        assert (patch[..., :3] == NOT_SCORED).all()
        assert len(np.unique(patch[..., 3])) == 2


def test_what_fails_does_not_depend_on_the_number_of_workers(partly_blurred: tuple[Path, Path]) -> None:
    assert differing_files(*partly_blurred) == []
