"""A slide as its page shows it: the call in words and numbers, what can lie over it, what lies beside it."""

from __future__ import annotations

from typing import Any

from pipelines.review.rescoring import percentages_of
from pipelines.review.run_folder import Listed, ReviewRun
from pipelines.review.tiles import TileGrid
from wsi_her2.cells.summary import CellSummary
from wsi_her2.reports.palette import colour_of, hex_of, in_words, text_on
from wsi_her2.reports.patches import gives_shares, side_px0
from wsi_her2.reports.wording import (
    calibration_in_words,
    card_statements,
    clauses,
    confidence_in_words,
    controls_in_words,
    group_in_words,
    her2_low_in_words,
    margin_in_words,
    regions_in_words,
    sample_in_words,
    status_in_words,
)
from wsi_her2.scoring.call import SlideCall
from wsi_her2.scoring.result import SlideResult
from wsi_her2.scoring.rule import SCORES, Thresholds
from wsi_her2.slides.store import PatchStore


def describe_slide(run: ReviewRun, listed: Listed, store: PatchStore | None, tile_px: int) -> dict[str, Any]:
    """All that the page of a slide needs at once but its row and its reviews.

    Parameters
    ----------
    run : ReviewRun
    listed : Listed
    store : PatchStore or None
        None where the slide has none, or it cannot be read.
    tile_px : int
        Side of a tile.
    """
    result = run.result(listed.row.slide_id)
    reader = result.reader
    width, height = reader.dimensions if reader is not None else (None, None)
    previous, following = run.neighbours(result.slide_id)
    return {
        "width": width,
        "height": height,
        "mpp": reader.mpp if reader is not None else None,
        "mpp_source": reader.mpp_source if reader is not None else None,
        "fingerprint": result.fingerprint,
        "tile_px": tile_px,
        "tile_version": result.fingerprint[:20],
        "max_level": None if width is None or height is None else TileGrid(width, height, tile_px).max_level,
        "viewable": listed.file is not None,
        "why_not_viewable": listed.why_not,
        "classes": [
            {"name": name, "words": in_words(name), "colour": hex_of(name), "ink": text_on(colour_of(name))}
            for name in result.model.classes
        ],
        "outputs": "shares" if store is not None and gives_shares(store) else "classes",
        "patch_px0": None if store is None else side_px0(store),
        "words": _words(result),
        "gate": [
            {"code": reason.code, "message": reason.message, "measured": reason.measured, "limit": reason.limit}
            for reason in result.gate
        ],
        "clauses": _clauses(result),
        "percentages": _percentages(result.call),
        "percentages_of": result.call_from,
        "cell_percentages": _percentages(result.cells.call if result.cells else None),
        "examples": _examples(store),
        "cells": _cells(run, result),
        "layers": {
            "patches": store is not None and result.n_patches > 0,
            "tissue": store is not None,
            "cells": _has_cells(run, result),
            "regions": result.regions is not None,
        },
        "overview_box": _overview_box(store),
        "companions": [
            {
                "slide_id": other.row.slide_id,
                "name": other.name,
                "modality": other.stain,
                "score": other.row.her2_score,
                "status": other.row.status,
            }
            for other in run.companions(result.slide_id)
        ],
        "previous": previous,
        "next": following,
    }


def _percentages(call: SlideCall | None) -> dict[str, dict[str, float]]:
    return {} if call is None else {name: found.model_dump() for name, found in percentages_of(call).items()}


def _words(result: SlideResult) -> dict[str, Any]:
    call, second = result.call, result.second_opinion
    statements = [f"{label}: {text}" for label, text in card_statements(result.model.card)]
    return {
        "verdict": call.score or call.group if call is not None else status_in_words(result.status),
        "status": status_in_words(result.status),
        "group": group_in_words(call) if call is not None else "",
        "her2_low": her2_low_in_words(call) if call is not None else "",
        "confidence": f"{100 * call.confidence:.1f} % {confidence_in_words(call)}" if call is not None else "",
        "margin": margin_in_words(call) if call is not None else "",
        "calibration": calibration_in_words(result.calibration) if call is not None else "",
        "rule": f"{call.explanation}." if call is not None else "",
        "model": statements[0],
        "model_statements": statements,
        "model_name": result.model.name,
        "second_opinion": f"{second.explanation}." if second is not None else "",
        "sample": sample_in_words(result.sample) if result.sample is not None else "",
        "regions": regions_in_words(result.regions) if result.regions is not None else "",
        "controls": controls_in_words(result.controls, result.controls_left_out) if result.controls else "",
    }


def _clauses(result: SlideResult) -> list[dict[str, Any]]:
    if result.call is None:
        return []
    return [
        {"score": clause.score, "condition": clause.condition, "finding": clause.finding, "fired": clause.fired}
        for clause in clauses(result.call, result.thresholds or Thresholds())
    ]


def _examples(store: PatchStore | None) -> list[dict[str, Any]]:
    if store is None:
        return []
    side = side_px0(store)
    return [
        {"class": name, "x": x, "y": y, "size_px0": side}
        for name, places in store.example_places().items()
        for x, y in places
    ]


def _has_cells(run: ReviewRun, result: SlideResult) -> bool:
    return result.cells is not None and run.cell_table(result.slide_id) is not None


def _cells(run: ReviewRun, result: SlideResult) -> dict[str, Any]:
    summary: CellSummary | None = result.cells
    if summary is None:
        return {"count": 0, "available": False}
    return {
        "count": summary.cells,
        "available": _has_cells(run, result),
        "classes": [{"name": name, "colour": hex_of(name)} for name in SCORES],
        "sampling": summary.sampling,
        "patches": summary.patches,
        "measured_mm2": summary.measured_mm2,
        "pct_complete_membrane": summary.pct_complete_membrane,
        "complete_interval": list(summary.complete_interval),
        "weaker_score": summary.weaker_score,
        "stronger_score": summary.stronger_score,
    }


def _overview_box(store: PatchStore | None) -> dict[str, int] | None:
    if store is None:
        return None
    box = store.overview_box
    return {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
