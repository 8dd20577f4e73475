"""Slides on disk for whole runs, and ways to run and compare them."""

from __future__ import annotations

import csv
import filecmp
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.configuration import RunConfig, load_config
from tests.pipelines.preloaded import Preloaded
from wsi_her2.slides.pyramid import write_pyramid

PATIENCE_S = 300.0
"""How long a test waits for what takes seconds: machines that run tests may be slow, and have other work."""

MPP = 0.5
GLASS = (236, 235, 241)


def _ihc_field() -> np.ndarray:
    from skimage import data

    field = data.immunohistochemistry()
    pair = np.concatenate([field, field[:, ::-1]], axis=1)
    return np.concatenate([pair, pair[::-1]], axis=0)


def write_slide(path: Path, pixels: np.ndarray, mpp: float = MPP) -> Path:
    """Write an array as a pyramidal slide."""
    height, width = pixels.shape[:2]
    write_pyramid(path, width, height, lambda x, y, w, h: pixels[y : y + h, x : x + w], mpp=mpp)
    return path


def ihc_pixels(repeats: int = 1, gain: float = 1.0) -> np.ndarray:
    """A round piece of DAB-stained tissue on off-white glass; `gain` scales its density."""
    tissue = np.tile(_ihc_field(), (repeats, repeats, 1)).astype(np.float32)
    # The field fills the camera with tissue, so its own white point is not in it.
    tissue = 255.0 * (np.maximum(tissue, 1) / 255.0) ** gain * (np.asarray(GLASS) / 255.0)
    side = tissue.shape[0] + 256
    canvas = np.full((side, side, 3), GLASS, np.float32)
    canvas[128:-128, 128:-128] = tissue
    inside = np.zeros((side, side), np.float32)
    cv2.circle(inside, (side // 2, side // 2), tissue.shape[0] // 2 - 4, 1.0, -1)
    inside = cv2.GaussianBlur(inside, (0, 0), 2.0)[..., None]
    return np.rint(canvas * inside + np.asarray(GLASS, np.float32) * (1 - inside)).astype(np.uint8)


@pytest.fixture(scope="session")
def ihc_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small stained slide; 2 x 2 blocks."""
    return write_slide(tmp_path_factory.mktemp("slides") / "stained.tif", ihc_pixels())


@pytest.fixture
def config() -> RunConfig:
    """Two threads of this process: quick to start, and the real cluster."""
    return load_config(None, {"compute.workers": 2, "compute.processes": False})


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    """Where commands are run that need no torch."""
    with Preloaded(("pipelines.cli", "pipelines.run.score", "wsi_her2.slides.pyramid")) as started:
        yield started


@pytest.fixture
def cli(preloaded: Preloaded) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `wsi-her2` as a user does, in a process of its own."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return preloaded.run([str(argument) for argument in arguments], timeout=PATIENCE_S, **options)

    return run


def cli_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]


def rows(output: Path) -> dict[str, dict[str, str]]:
    """`slides.csv` by slide identifier."""
    with (output / "slides.csv").open(newline="", encoding="utf-8") as stream:
        return {row["slide_id"]: row for row in csv.DictReader(stream)}


def differing_files(first: Path, second: Path) -> list[str]:
    """Files that are not the same in two output folders; times are the one thing that may differ."""
    names = {
        path.relative_to(folder) for folder in (first, second) for path in folder.rglob("*") if path.is_file()
    }
    different = []
    for name in sorted(names):
        a, b = first / name, second / name
        if name.name in ("run.json", "ledger.csv"):
            continue
        if not (a.is_file() and b.is_file()):
            different.append(f"{name} is in one folder only")
        elif name.name == "result.json":
            if _without_times(a) != _without_times(b):
                different.append(str(name))
        elif name.name == "slides.csv":
            if _rows_without_seconds(a.parent) != _rows_without_seconds(b.parent):
                different.append(str(name))
        elif name.name == "index.html":
            if _page_without_work(a) != _page_without_work(b):
                different.append(str(name))
        elif not filecmp.cmp(a, b, shallow=False):
            different.append(str(name))
    return different


def _without_times(path: Path) -> dict[str, object]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.pop("timings_s") is not None
    return content


def _page_without_work(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith('<p id="work"')]


def _rows_without_seconds(output: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(output).values()]
