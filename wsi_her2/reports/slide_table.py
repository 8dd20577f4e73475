"""`slides.csv`: a row for each slide of a run."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsi_her2.atomic import text_beside
from wsi_her2.scoring.result import SlideResult, Status

SLIDE_COLUMNS = (
    "slide_id",
    "path",
    "status",
    "reason",
    "modality",
    "her2_score",
    "her2_group",
    "her2_low",
    "confidence",
    "calibration",
    "h_score",
    "pct_0",
    "pct_1",
    "pct_2",
    "pct_3",
    "pct_complete_membrane",
    "n_patches",
    "tumour_patches",
    "tissue_mm2",
    "mpp",
    "mpp_source",
    "backend",
    "model",
    "model_sha256",
    "unreadable_fraction",
    "seconds",
    "cells",
    "second_opinion",
    "review",
)
"""Columns of `slides.csv`, in their order."""

_FORMATS = {
    "confidence": ".3f",
    "h_score": ".2f",
    "pct_0": ".2f",
    "pct_1": ".2f",
    "pct_2": ".2f",
    "pct_3": ".2f",
    "pct_complete_membrane": ".2f",
    "tissue_mm2": ".3f",
    "mpp": ".6g",
    "unreadable_fraction": ".4f",
    "seconds": ".2f",
}
_FROM_OUTSIDE = frozenset({"slide_id", "path", "reason", "calibration", "model"})
_GUARD = "'"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class SlideRow:
    """What the table and the page of a run show of a slide: so little of its result that all rows fit in memory.

    Fields are the columns of `slides.csv` before they are written as text (see `docs/outputs.md`), and what only
    the page shows. None stands for what is not known.

    Attributes
    ----------
    refusals : tuple of str
        What the gate says of a slide that is not assessable, without the figures.
    disagreement : str
        What the second opinion gives where somebody must look; empty elsewhere.
    """

    slide_id: str
    path: str
    status: Status
    reason: str
    modality: str
    her2_score: str | None
    her2_group: str | None
    her2_low: bool | None
    confidence: float | None
    calibration: str
    h_score: float | None
    pct_0: float | None
    pct_1: float | None
    pct_2: float | None
    pct_3: float | None
    pct_complete_membrane: float | None
    n_patches: int | None
    tumour_patches: int | None
    tissue_mm2: float | None
    mpp: float | None
    mpp_source: str | None
    backend: str | None
    model: str
    model_sha256: str
    unreadable_fraction: float | None
    seconds: float | None
    cells: int | None
    second_opinion: str | None
    review: bool | None
    refusals: tuple[str, ...] = ()
    disagreement: str = ""

    @classmethod
    def of(cls, result: SlideResult) -> SlideRow:
        """The row of a result."""
        call, reader, second = result.call, result.reader, result.second_opinion
        percentages = call.percentages if call else {}
        was_read = result.status != "failed"
        return cls(
            slide_id=result.slide_id,
            path=result.path,
            status=result.status,
            reason=result.reason,
            modality=result.modality,
            her2_score=call.score if call else None,
            her2_group=call.group if call else None,
            her2_low=call.her2_low if call else None,
            confidence=call.confidence if call else None,
            calibration=result.calibration,
            h_score=call.h_score if call else None,
            pct_0=percentages.get("0"),
            pct_1=percentages.get("1+"),
            pct_2=percentages.get("2+"),
            pct_3=percentages.get("3+"),
            pct_complete_membrane=result.pct_complete_membrane,
            n_patches=result.n_patches if was_read else None,
            tumour_patches=result.tumour_patches if was_read else None,
            tissue_mm2=result.tissue_mm2,
            mpp=reader.mpp if reader else None,
            mpp_source=reader.mpp_source if reader else None,
            backend=reader.backend if reader else None,
            model=result.model.name,
            model_sha256=result.model.sha256,
            unreadable_fraction=result.unreadable_fraction,
            seconds=_seconds(result),
            cells=result.cells.cells if result.cells else None,
            second_opinion=second.score if second else None,
            review=second.review if second else None,
            refusals=tuple(reason.message for reason in result.gate),
            disagreement=f"{second.way} give {second.score}" if second and second.review else "",
        )

    def texts(self) -> dict[str, str]:
        """The row as it stands in the table; an empty string stands where nothing is known.

        Percentages and the H-score have 2 decimals, confidence 3, microns per pixel 6 significant digits. Texts
        that come from outside (slide_id, path, reason, model, calibration) are guarded: see `guarded`.

        Returns
        -------
        dict of str to str
            Keys are `SLIDE_COLUMNS`, in order.
        """
        return {column: _text(column, getattr(self, column)) for column in SLIDE_COLUMNS}


def slide_row(result: SlideResult) -> dict[str, str]:
    """The row of a result as it stands in the table; see `SlideRow.texts`."""
    return SlideRow.of(result).texts()


def write_slides_csv(path: Path, rows: Iterable[SlideRow]) -> None:
    """Write the table of a run, beside and then renamed, so that a reader never sees half a row.

    Parameters
    ----------
    path : pathlib.Path
    rows : iterable of SlideRow
        Written as they come; none is kept.
    """
    with text_beside(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(SLIDE_COLUMNS)
        writer.writerows(row.texts().values() for row in rows)


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula.

    A text that starts with = + - @, a tab or a line break gets an apostrophe in front, and so does a text that
    starts with an apostrophe. `unguarded` therefore always gives the text back: where a cell starts with an
    apostrophe, drop one.
    """
    return _GUARD + text if text.startswith((_GUARD, *_FORMULA_STARTS)) else text


def unguarded(cell: str) -> str:
    """The text that `guarded` was given."""
    return cell.removeprefix(_GUARD)


def _text(column: str, value: str | bool | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return guarded(value) if column in _FROM_OUTSIDE else value
    return format(value, _FORMATS.get(column, ""))


def _seconds(result: SlideResult) -> float | None:
    if not result.timings_s:
        return None
    # A run that names its total has parts that overlap; otherwise the parts make the total.
    return result.timings_s.get("total", sum(result.timings_s.values()))
