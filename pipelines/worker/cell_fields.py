"""Counting a slide's cells: where to look, looking there, adding up.

Fields are the patches that may well hold tumour, or a sample of them, each with a margin. Some fields make a
part; a part is one task and one file, so that interrupted work goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.configuration import CellRunSettings
from wsi_her2.cells.field import Cells, CellSettings, grade_cells, measure_cells
from wsi_her2.cells.summary import CellSummary, summarise_cells, tried_scales
from wsi_her2.cells.table import MARGINS, join_parts, rows_of, write_part
from wsi_her2.errors import SlideReadError
from wsi_her2.models.classifier import OTHER
from wsi_her2.scoring.confidence import spatial_blocks
from wsi_her2.scoring.proportions import main_classes
from wsi_her2.scoring.settings import CallSettings
from wsi_her2.slides.grid import PatchGrid
from wsi_her2.slides.slide import Slide
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.store import PatchStore

CELL_TABLE = "cells.parquet"

_PARTS = "cell_parts"
_ROWS = "fields.npy"
_FIELDS_PER_PART_UM2 = 65_536.0
_MARGIN_UM = 12.0

Rows = npt.NDArray[np.int64]


def choose_fields(store: PatchStore, settings: CellRunSettings, mpp: float) -> Rows:
    """Rows of the patches in which cells are to be counted.

    Parameters
    ----------
    store : PatchStore
        All of whose blocks are scored.
    settings : CellRunSettings
        With a sample, patches are taken at equal steps along those that may hold tumour as they follow on the
        slide.
    mpp : float
        Of level 0.

    Returns
    -------
    int64 N
        Ascending.
    """
    probabilities = store.probabilities
    scored = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    # Patches of unstained tumour pass for other tissue more often than stained ones: leaving them out would shift
    # the percentages. Cells that are not of the tumour are told one by one.
    labels = main_classes(probabilities[scored], store.classes, shares=True)
    tumour = scored[[store.classes[label] != OTHER for label in labels]]
    if settings.mode == "all":
        return tumour
    patch_mm2 = (store.grid.patch_px0 * mpp / 1000) ** 2
    wanted = min(len(tumour), max(1, round(settings.sample_mm2 / patch_mm2)))
    return tumour[((np.arange(wanted) + 0.5) * len(tumour) / max(wanted, 1)).astype(np.int64)]


def plan_parts(folder: Path, rows: Rows, patch_um: float) -> int:
    """Keep what was chosen; how many parts it makes."""
    parts = folder / _PARTS
    parts.mkdir(exist_ok=True)
    beside = parts / f".{_ROWS}"
    with beside.open("wb") as stream:
        np.save(stream, rows)
    beside.replace(parts / _ROWS)
    return -(-len(rows) // _fields_per_part(patch_um))


def pending_parts(folder: Path, count: int) -> tuple[int, ...]:
    """Parts that are still to be measured."""
    return tuple(part for part in range(count) if not _part(folder, part).exists())


def measure_fields(
    folder: Path, part: int, slide: Slide, store: PatchStore, stain: StainCorrection, settings: CellSettings
) -> int:
    """Measure the cells of one part and write them.

    Returns
    -------
    int
        How many nuclei there are. Fields that cannot be read have none.
    """
    grid = store.grid
    per_part = _fields_per_part(grid.patch_px0 * slide.mpp)
    rows = np.load(folder / _PARTS / _ROWS)[part * per_part : (part + 1) * per_part]
    xy, found = store.xy, []
    for row in rows.tolist():
        field = cells_of_patch(slide, grid, (int(xy[row, 0]), int(xy[row, 1])), stain, settings)
        if field is not None:
            found.append(rows_of(*field, row))
    write_part(_part(folder, part), found)
    return sum(len(field["x"]) for field in found)


def cells_of_patch(
    slide: Slide, grid: PatchGrid, corner: tuple[int, int], stain: StainCorrection, settings: CellSettings
) -> tuple[Cells, npt.NDArray[np.float64]] | None:
    """Cells whose nucleus lies in a patch, and their places in level-0 pixels; None where it cannot be read.

    The patch is read with a margin, so that a cell at its edge is measured whole and in one patch only.
    """
    mpp = max(slide.mpp, settings.finest_mpp)
    margin_px0 = round(_MARGIN_UM / slide.mpp)
    side_px = round((grid.patch_px0 + 2 * margin_px0) * slide.mpp / mpp)
    left, top = corner[0] - margin_px0, corner[1] - margin_px0
    try:
        rgb = slide.read(left, top, side_px, side_px, mpp)
    except SlideReadError:
        return None
    cells = measure_cells(stain.apply(rgb), mpp, settings)
    places = (left, top) + (cells.xy + 0.5) * (mpp / slide.mpp)
    within = np.asarray(((places >= corner) & (places < np.add(corner, grid.patch_px0))).all(axis=1), bool)
    return cells.where(within), places[within]


@dataclass(frozen=True, eq=False)
class FieldCells:
    """The cells of a slide, or of a part of it, and where they were looked for.

    Attributes
    ----------
    rows : int64 F
        Rows of the patches that were looked at, ascending. A cell is of one of them.
    within : float64 F
        How much of each patch belongs to what is to be counted, 0 to 1.
    columns : iterable of dict of str to array
        Columns of the table of cells, some thousands of cells at a time.
    """

    rows: Rows
    within: npt.NDArray[np.float64]
    columns: Iterable[Mapping[str, npt.NDArray[Any]]]


def joined_cells(folder: Path, min_tumour_probability: float) -> FieldCells | None:
    """The cells of all parts, which become the slide's table as they are taken.

    Parameters
    ----------
    folder : pathlib.Path
        Of the slide; see `drop_parts`.
    min_tumour_probability : float
        See `CellRunSettings`.

    Returns
    -------
    FieldCells or None
        None where cells were not measured.
    """
    if not (folder / _PARTS / _ROWS).exists():
        return None
    rows: Rows = np.load(folder / _PARTS / _ROWS)

    def columns() -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        parts = sorted((folder / _PARTS).glob("part-*.parquet"))
        yield from join_parts(parts, folder / CELL_TABLE, min_tumour_probability)

    return FieldCells(rows, np.ones(len(rows)), columns())


def count_cells(
    cells: FieldCells,
    store: PatchStore,
    settings: CallSettings,
    *,
    mpp: float,
    n_patches: int,
    tumour_patches: int,
) -> CellSummary | None:
    """Count cells by class, on each of the DAB scales that a slide may have.

    Parameters
    ----------
    cells : FieldCells
    store : PatchStore
    settings : CallSettings
        With how cells are counted.
    mpp : float
        Of level 0.
    n_patches, tumour_patches : int
        Patches that were scored where the cells are, and of these tumour.

    Returns
    -------
    CellSummary or None
        None where too few were found to speak of percentages, or they are not to be counted.
    """
    counting = settings.counting
    if counting is None:
        return None
    block_of_patch = np.zeros(int(cells.rows.max(initial=-1)) + 1, np.int64)
    block_of_patch[cells.rows] = spatial_blocks(store.xy[cells.rows], mpp, settings.block_um)
    scales = tried_scales(counting.scale_deviation)
    counts = np.zeros((len(scales), int(block_of_patch.max(initial=0)) + 1, 4))
    nuclei = 0
    for part in cells.columns:
        tumour = part["tumour"]
        nuclei += len(tumour)
        blocks = block_of_patch[part["patch"][tumour]]
        margins = np.stack([part[name][tumour] for name in MARGINS], axis=1)
        for of_scale, scale in zip(counts, scales.tolist(), strict=True):
            grades = grade_cells(margins, counting.cutoffs, scale)
            np.add.at(of_scale, (blocks, grades), 1)
    held = counts[0].sum(axis=1) > 0
    if counts[0].sum() < counting.min_cells:
        return None
    return summarise_cells(
        counts[:, held],
        nuclei,
        settings.thresholds,
        scale_deviation=counting.scale_deviation,
        class_deviation=counting.class_deviation,
        sampling=counting.sampling,
        patches=int((cells.within > 0).sum()),
        measured_mm2=float(cells.within.sum()) * (store.grid.patch_px0 * mpp / 1000) ** 2,
        n_patches=n_patches,
        tumour_patches=tumour_patches,
        temperature=settings.temperature,
    )


def drop_parts(folder: Path) -> None:
    """Remove the parts, once the result stands: until then an interrupted slide goes on from them."""
    shutil.rmtree(folder / _PARTS, ignore_errors=True)


def _fields_per_part(patch_um: float) -> int:
    return max(1, round(_FIELDS_PER_PART_UM2 / patch_um**2))


def _part(folder: Path, part: int) -> Path:
    return folder / _PARTS / f"part-{part:05d}.parquet"
