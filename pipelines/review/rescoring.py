"""The call of a slide again, with regions that a pathologist drew, from what the run kept of it.

No pixel of the slide is read, so that the answer is there at once. Patches that the run did not score are not
scored now, and cells are those that it measured; `score --roi` with the exported regions makes up for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from pipelines.configuration import CellRunSettings
from pipelines.results import STORE
from pipelines.review.drawing import sorted_drawn
from pipelines.worker.calling import Called, call_store
from pipelines.worker.cell_fields import CELL_TABLE, FieldCells, choose_fields
from wsi_her2.cells.table import MARGINS, cell_columns
from wsi_her2.reports.wording import margin_in_words
from wsi_her2.scoring.call import SlideCall
from wsi_her2.scoring.gate import gate_overview
from wsi_her2.scoring.result import SlideResult
from wsi_her2.scoring.settings import CallSettings, CountingSettings
from wsi_her2.slides.regions import Region, RegionNames, contains, what_counts
from wsi_her2.slides.store import PatchStore
from wsi_her2.slides.tissue import TissueMask, tissue_mask

_COLUMNS = ("x", "y", "patch", "tumour", *MARGINS)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Percentage(_Answer):
    """Percent of the tumour, and the central 90 % of its resamples."""

    value: float
    low: float
    high: float


class RescoredCall(_Answer):
    """A call; fields as of `wsi_her2.scoring.call.SlideCall`, the margin in words."""

    score: str | None
    group: str
    confidence: float
    percentages: dict[str, Percentage]
    h_score: float | None
    explanation: str
    margin: str


class RescoredOpinion(_Answer):
    """The other way to a call; fields as of `wsi_her2.scoring.second_opinion.SecondOpinion`."""

    way: Literal["patches", "cells"]
    score: str
    agrees: bool
    review: bool
    explanation: str


class Rescored(_Answer):
    """What a slide gives with drawn regions.

    Attributes
    ----------
    call : RescoredCall or None
    reason : str
        Why there is no call; empty where there is one.
    call_from : {'cells', 'patches'} or None
        What its percentages are of; `from` in JSON.
    patches, tumour_patches : int
        Patches that were scored and count, and of these tumour.
    cells : int
        Tumour cells that were measured and count.
    second_opinion : RescoredOpinion or None
    note : str
        What this leaves out, in sentences.
    """

    call: RescoredCall | None
    reason: str = ""
    call_from: Literal["cells", "patches"] | None = None
    patches: int = Field(0, ge=0)
    tumour_patches: int = Field(0, ge=0)
    cells: int = Field(0, ge=0)
    second_opinion: RescoredOpinion | None = None
    note: str = ""

    @model_serializer(mode="wrap")
    def _as_json(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        described: dict[str, Any] = plain(self)
        return {"from" if name == "call_from" else name: value for name, value in described.items()}


def rescore(
    folder: Path, result: SlideResult, regions: Sequence[Region], names: RegionNames | None = None
) -> Rescored:
    """Call a slide again with regions drawn on it.

    A patch counts if as much of it is tissue within the regions as a patch must have to be scored (half, unless
    configured otherwise), and weighs as much as that share: as with `score --roi`. A cell counts if its nucleus
    lies within them. Without regions the call is the slide's own.

    Parameters
    ----------
    folder : pathlib.Path
        Of the slide.
    result : SlideResult
    regions : sequence of Region
        Named 'score' (only what lies in such regions counts) or 'exclude' (what lies in them does not).
    names : RegionNames, optional
        More names for either.

    Raises
    ------
    RegionsError
        There are too many, or the name of one means nothing.
    StoreError
        What the run kept of the slide cannot be read.
    """
    included, excluded = sorted_drawn(regions, names)
    settings, reader = result.settings, result.reader
    if result.status == "failed" or reader is None:
        return Rescored(call=None, reason=f"The slide could not be scored: {result.reason}")
    if settings is None:
        return Rescored(
            call=None,
            reason="These results are of a version that did not keep by what a call is made: score the slide "
            "again with --fresh.",
        )
    kept = _keep(folder, result.fingerprint, settings.counting, reader.mpp)
    store, cells = kept.store, kept.cells
    if len(store.xy) == 0:
        return Rescored(call=None, reason=f"No patch of this slide was scored: {result.reason}")
    tissue, early_reasons = None, []
    if regions:
        mask = kept.mask
        counts = what_counts(included, excluded, mask.overview)
        x, y = store.xy.astype(np.int64).T
        side = store.grid.patch_px0
        left = tissue_mask(mask.tissue & counts, mask.pen & counts, mask.overview, mask.white_point)
        early_reasons = gate_overview(left, settings.gate)
        tissue = left.fractions(x, y, side, side)
        if cells is not None:
            area = tissue_mask(counts, mask.pen, mask.overview, mask.white_point)
            shares = area.fractions(x[cells.rows], y[cells.rows], side, side)
            cells = _within(cells, shares, included, excluded)
    called = call_store(
        store,
        settings,
        modality=result.modality,
        mpp=reader.mpp,
        cells=cells,
        tissue=tissue,
        early_reasons=early_reasons,
    )
    counted = 0 if cells is None else sum(int(columns["tumour"].sum()) for columns in cells.columns)
    second = called.second_opinion
    return Rescored(
        call=None if called.call is None else _answer(called.call),
        reason=_reason(called),
        call_from=called.call_from,
        patches=called.n_patches,
        tumour_patches=called.tumour_patches,
        cells=counted,
        second_opinion=None if second is None else RescoredOpinion(**vars(second)),
        note=" ".join(_note(result, settings, called, cells, counted)) if regions else "",
    )


@dataclass(frozen=True, eq=False)
class _Kept:
    """What a run kept of a slide, read; `cells` is None where none were measured or their table was not kept."""

    store: PatchStore
    mask: TissueMask
    cells: FieldCells | None


@lru_cache(maxsize=2)
def _keep(folder: Path, _fingerprint: str, counting: CountingSettings | None, mpp: float) -> _Kept:
    """What a run kept of a slide. Reading it takes longest, and regions are drawn on one slide again and again."""
    store = PatchStore.open(folder / STORE, complete=True)
    cells = None
    if counting is not None and (folder / CELL_TABLE).is_file():
        asked = CellRunSettings(mode=counting.sampling, sample_mm2=counting.sample_mm2)
        rows = choose_fields(store, asked, mpp)
        cells = FieldCells(rows, np.ones(len(rows)), [cell_columns(folder / CELL_TABLE, _COLUMNS)])
    return _Kept(store, store.read_overview(), cells)


def _within(
    cells: FieldCells, shares: npt.NDArray[np.float32], included: Sequence[Region], excluded: Sequence[Region]
) -> FieldCells:
    kept = []
    for columns in cells.columns:
        xy = np.stack([columns["x"], columns["y"]], axis=1)
        counts = ~contains(excluded, xy)
        if included:
            counts &= contains(included, xy)
        kept.append({name: column[counts] for name, column in columns.items()})
    return FieldCells(cells.rows, shares.astype(np.float64), kept)


def percentages_of(call: SlideCall) -> dict[str, Percentage]:
    """Percentages of a call with their intervals, by class."""
    return {
        name: Percentage(value=value, low=call.intervals[name][0], high=call.intervals[name][1])
        for name, value in call.percentages.items()
    }


def _answer(call: SlideCall) -> RescoredCall:
    return RescoredCall(
        score=call.score,
        group=call.group,
        confidence=call.confidence,
        percentages=percentages_of(call),
        h_score=call.h_score,
        explanation=call.explanation,
        margin=margin_in_words(call),
    )


def _reason(called: Called) -> str:
    if called.call is None and called.n_patches == 0:
        return "None of the patches that were scored is left, so there is nothing to call."
    return "; ".join(str(reason) for reason in called.reasons)


def _note(
    result: SlideResult, settings: CallSettings, called: Called, cells: FieldCells | None, counted: int
) -> Iterator[str]:
    counting = settings.counting
    yield "From what the run kept: patches that it did not score are not scored now."
    if result.sample is not None and result.sample.patches < result.sample.of_patches:
        yield "It scored a sample of the patches."
    if called.call is None or counting is None:
        return
    if cells is None:
        yield "It kept no cells of this slide, so that patches decide."
    elif called.cells is None:
        yield (
            f"Only {counted} of the cells that it counted are left, fewer than {counting.min_cells}, so that "
            "patches decide."
        )
    elif counting.sampling == "sample":
        yield "Cells are those that it counted in a sample of the tumour; no others are looked for."
