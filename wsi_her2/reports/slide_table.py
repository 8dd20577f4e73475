"""`slides.csv`: a row for each slide of a run."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from wsi_her2.reports.atomic import text_beside
from wsi_her2.scoring.result import SlideResult

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

_GUARD = "'"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def slide_row(result: SlideResult) -> dict[str, str]:
    """A slide's row; an empty string stands where nothing is known.

    Percentages and the H-score have 2 decimals, confidence 3, microns per pixel 6 significant digits. Texts that
    come from outside (slide_id, path, reason, model, calibration) are guarded: see `guarded`.

    Parameters
    ----------
    result : SlideResult

    Returns
    -------
    dict of str to str
        Keys are `SLIDE_COLUMNS`, in order.
    """
    call, reader, second = result.call, result.reader, result.second_opinion
    percentages = call.percentages if call else {}
    was_read = result.status != "failed"
    row = {
        "slide_id": guarded(result.slide_id),
        "path": guarded(result.path),
        "status": result.status,
        "reason": guarded(result.reason),
        "modality": result.modality,
        "her2_score": (call.score or "") if call else "",
        "her2_group": call.group if call else "",
        "her2_low": "" if call is None or call.her2_low is None else str(call.her2_low).lower(),
        "confidence": _fixed(call.confidence if call else None, 3),
        "calibration": guarded(result.calibration),
        "h_score": _fixed(call.h_score if call else None, 2),
        "pct_0": _fixed(percentages.get("0"), 2),
        "pct_1": _fixed(percentages.get("1+"), 2),
        "pct_2": _fixed(percentages.get("2+"), 2),
        "pct_3": _fixed(percentages.get("3+"), 2),
        "pct_complete_membrane": _fixed(result.pct_complete_membrane, 2),
        "n_patches": str(result.n_patches) if was_read else "",
        "tumour_patches": str(result.tumour_patches) if was_read else "",
        "tissue_mm2": _fixed(result.tissue_mm2, 3),
        "mpp": f"{reader.mpp:.6g}" if reader else "",
        "mpp_source": reader.mpp_source if reader else "",
        "backend": reader.backend if reader else "",
        "model": guarded(result.model.name),
        "model_sha256": result.model.sha256,
        "unreadable_fraction": _fixed(result.unreadable_fraction, 4),
        "seconds": _fixed(_seconds(result), 2),
        "cells": str(result.cells.cells) if result.cells else "",
        "second_opinion": second.score if second else "",
        "review": str(second.review).lower() if second else "",
    }
    return {column: row[column] for column in SLIDE_COLUMNS}


def write_slides_csv(path: Path, results: Iterable[SlideResult]) -> None:
    """Write the table of a run, beside and then renamed, so that a reader never sees half a row.

    Parameters
    ----------
    path : pathlib.Path
    results : iterable of SlideResult
    """
    with text_beside(path) as stream:
        writer = csv.DictWriter(stream, SLIDE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for result in results:
            writer.writerow(slide_row(result))


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


def _fixed(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _seconds(result: SlideResult) -> float | None:
    if not result.timings_s:
        return None
    # A run that names its total has parts that overlap; otherwise the parts make the total.
    return result.timings_s.get("total", sum(result.timings_s.values()))
