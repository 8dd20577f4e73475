from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest

from wsi_her2.cells.field import Cells
from wsi_her2.cells.summary import SCALES, CellSummary, summarise_cells
from wsi_her2.cells.table import join_parts, rows_of, write_part
from wsi_her2.scoring.call import SlideCall, call_slide
from wsi_her2.scoring.quality import QUALITY
from wsi_her2.scoring.result import ModelInfo, ReaderInfo, SlideResult
from wsi_her2.scoring.rule import Thresholds
from wsi_her2.slides.grid import PatchGrid, plan_patches
from wsi_her2.slides.slide import Slide, open_slide, slide_from_array
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.store import PatchStore
from wsi_her2.slides.tissue import TissueMask, detect_tissue

CLASSES = ("other", "0", "1+", "2+", "3+")
Cell = tuple[int, int, int, bool]
"""x, y (level-0 pixels), class, and whether it is of the tumour."""
HOSTILE = "<script>alert('x')</script> \"=1+1\" {{7*7}} 🙂 é"


@dataclass
class Scored:
    """A slide as it is after a run: some patches of each class, one that could not be read."""

    slide: Slide
    mask: TissueMask
    grid: PatchGrid
    store: PatchStore
    classes: tuple[str, ...]

    @property
    def labels(self) -> list[str]:
        kept = self.store.probabilities[~np.isnan(self.store.probabilities).any(axis=1)]
        return [self.classes[index] for index in kept.argmax(axis=1)]

    @property
    def call(self) -> SlideCall:
        return call_slide(self.store.probabilities, self.classes, self.store.tissue)


def tissue_slide(width: int = 1600, height: int = 1200) -> Slide:
    """A blue-brown rectangle with texture on glass, 0.5 um/px."""
    generator = np.random.default_rng(7)
    pixels = np.full((height, width, 3), (240, 239, 243), np.uint8)
    tissue = generator.normal((170, 140, 140), 22, (height - 400, width - 400, 3))
    pixels[200 : height - 200, 200 : width - 200] = np.clip(tissue, 0, 255).astype(np.uint8)
    return slide_from_array(pixels, mpp=0.5)


def score(folder: Path, slide: Slide, classes: tuple[str, ...] = CLASSES, unreadable: bool = True) -> Scored:
    mask = detect_tissue(slide)
    grid = plan_patches(slide, mask, 128, 0.5)
    store = PatchStore.create(folder / "patches.zarr", grid, classes=classes, quality=QUALITY)
    number = 0
    for block in range(grid.n_blocks):
        rows = grid.rows(block)
        probabilities = np.full((grid.block_rows, len(classes)), np.nan, np.float32)
        for row in np.flatnonzero(grid.selected[rows]):
            number += 1
            if unreadable and number == 4:
                continue
            probabilities[row] = 0.123456 / (len(classes) - 1)
            probabilities[row, number % len(classes)] = 1 - 0.123456
        store.write_block(block, probabilities, np.zeros((grid.block_rows, len(QUALITY)), np.float32))
    return Scored(slide, mask, grid, store, classes)


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return score(tmp_path_factory.mktemp("scored"), tissue_slide())


@pytest.fixture(scope="session")
def hostile() -> str:
    """A name that tries to be markup, a template and a formula."""
    return HOSTILE


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    glass = slide_from_array(np.full((600, 800, 3), 240, np.uint8), mpp=0.5)
    return score(tmp_path_factory.mktemp("empty"), glass)


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    data = os.environ.get("WSI_HER2_TEST_DATA")
    path = Path(data or "", "slides", "ihc_core_score2_a.tif")
    if not data or not path.is_file():
        pytest.skip("WSI_HER2_TEST_DATA does not name a folder with the test slides")
    return score(tmp_path_factory.mktemp("core"), open_slide(path))


@pytest.fixture
def make_result(scored: Scored) -> Callable[..., SlideResult]:
    """A scored result; any field can be replaced."""

    def make(**changed: object) -> SlideResult:
        call = scored.call
        fields: dict[str, object] = {
            "slide_id": "case 1",
            "path": "/slides/case 1.svs",
            "status": "scored",
            "reason": "",
            "modality": "ihc",
            "model": ModelInfo(
                "membrane", "ab" * 32, CLASSES, 128, 0.5, {"trained_on": "nothing at all", "validated": False}
            ),
            "version": "0.1.0",
            "fingerprint": "cd" * 32,
            "call": call,
            "reader": ReaderInfo("openslide", "auto", 0.2523456789, "vendor", (1600, 1200)),
            "white_point": scored.mask.white_point,
            "stain": StainCorrection("white-point", scored.mask.white_point.rgb),
            "n_patches": call.n_patches,
            "tumour_patches": call.tumour_patches,
            "tissue_mm2": 0.24,
            "unreadable_fraction": 0.0123456,
            "timings_s": {"read": 1.25, "predict": 2.5},
        }
        return SlideResult(**{**fields, **changed})  # type: ignore[arg-type]

    return make


@dataclass
class CellTable:
    """A slide's table of cells, and what is in it."""

    path: Path
    cells: list[Cell]
    mean_grade: dict[int, float]


@pytest.fixture
def write_cells(scored: Scored, tmp_path: Path) -> Callable[[list[Cell]], Path]:
    """Write a table of cells of the scored slide."""
    xy = scored.store.xy

    def write(cells: list[Cell]) -> Path:
        parts, path = [tmp_path / "part"], tmp_path / "cells.parquet"
        rows = []
        for number, (x, y, grade, tumour) in enumerate(cells):
            inside = ((xy <= (x, y)) & (xy > (x - 128, y - 128))).all(axis=1)
            measured = {part.name: np.full(1, 0.125 + number / 1024, np.float32) for part in fields(Cells)}
            probable = np.full(1, 0.9 if tumour else 0.1, np.float32)
            place = {"xy": np.array([[x, y]], np.float64), "grade": np.array([grade], np.int8)}
            place |= {"margins": np.ones((1, 3), np.float32)}
            found = Cells(**(measured | place | {"tumour_probability": probable}))  # type: ignore[arg-type]
            rows.append(rows_of(found, found.xy, int(np.flatnonzero(inside)[0])))
        write_part(parts[0], rows)
        list(join_parts(parts, path, 0.5))
        return path

    return write


@pytest.fixture
def cell_table(scored: Scored, write_cells: Callable[[list[Cell]], Path]) -> CellTable:
    """In eight patches four tumour cells and one that is none; the patches stain differently, in no order."""
    rows = np.flatnonzero(scored.store.grid.selected)[::3][:8].tolist()
    cells: list[Cell] = []
    mean_grade = {}
    for number, row in enumerate(rows):
        x, y = scored.store.xy[row].tolist()
        stained = (3 * number) % 8
        grades = [min(3, max(0, stained - 2 * k)) for k in range(4)]
        places = [(30, 30), (90, 30), (30, 90), (90, 90)]
        cells += [(x + dx, y + dy, grade, True) for (dx, dy), grade in zip(places, grades, strict=True)]
        cells.append((x + 60, y + 60, 3, False))
        mean_grade[row] = sum(grades) / 4
    return CellTable(write_cells(cells), cells, mean_grade)


def summary_of(*counts: float, **changed: object) -> CellSummary:
    """What counted cells of these classes say, the same on every DAB scale."""
    given: dict[str, object] = {
        "scale_deviation": 0.3,
        "class_deviation": 0.0,
        "sampling": "sample",
        "patches": 12,
        "measured_mm2": 0.25,
        "n_patches": 60,
        "tumour_patches": 40,
    }
    blocks = np.repeat(np.array([[counts]], np.float64), SCALES, axis=0)
    return summarise_cells(blocks, 2000, Thresholds(), **(given | changed))  # type: ignore[arg-type]
