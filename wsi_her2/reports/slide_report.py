"""`report.html`: everything a person needs to judge the call of one slide, in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsi_her2.cells.summary import CellSummary
from wsi_her2.reports.chart import percentage_chart
from wsi_her2.reports.heatmap import scale_bar
from wsi_her2.reports.images import jpeg_uri, png_uri, within
from wsi_her2.reports.pages import write_page
from wsi_her2.reports.palette import OTHER, colour_of, hex_of, in_words, text_on, tumour_classes
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
)
from wsi_her2.scoring.result import ModelInfo, SlideResult
from wsi_her2.scoring.rule import Thresholds
from wsi_her2.slides.slide import Overview
from wsi_her2.slides.tissue import TissueMask

UInt8 = npt.NDArray[np.uint8]
Examples = Mapping[str, Sequence[tuple[int, int, UInt8]]]

EXAMPLES_PER_CLASS = 6
_OVERVIEW_PX, _OVERVIEW_QUALITY = 1600, 82
_EXAMPLE_PX, _EXAMPLE_QUALITY = 256, 90
_FIGURE_HEIGHT_PX = 640

_STATUS_WORDS = {"scored": "Scored", "not_assessable": "Not assessable", "failed": "Failed"}

_LIMITS = (
    "Invasive carcinoma is not told from carcinoma in situ or from normal ducts, which must not count: "
    "look at the heatmap, or score a region that holds invasive tumour only.",
    "The borders between 0 and 1+ and between 1+ and 2+ carry most of the disagreement, between readers as "
    "between methods.",
    "The confidence covers the variation within this slide. It does not cover fixation, antibody, stainer or "
    "scanner, and not errors of the model.",
    "The rule is that for breast cancer (ASCO/CAP 2018, affirmed 2023); gastric rules differ.",
)
_LIMIT_OF_PATCHES = (
    "The guideline counts cells; here the percentages are of tissue in patches, as the model classified them."
)
_LIMIT_OF_CELLS = (
    "Cells are found by their nuclei and told from stroma by what surrounds them; lymphocytes within the tumour, "
    "red cells and cells cut without their nucleus are miscounted. Below the cut-off of faint staining nothing is "
    "told from noise."
)
_CELLS_REST_ON = (
    "how strongly a membrane stains from which class on was fitted on digital phantoms, not on tissue of patients"
)
_LIMIT_OF_HE = (
    "Scored on H&E: HER2 is estimated from morphology, not measured. "
    "Immunohistochemistry or ISH is needed to know."
)


def write_slide_report(
    path: Path,
    result: SlideResult,
    mask: TissueMask | None,
    layer: UInt8 | None,
    examples: Examples,
    *,
    cell_views: Sequence[tuple[int, int, UInt8]] = (),
    thresholds: Thresholds | None = None,
    picture: Overview | None = None,
) -> None:
    """Write the report of a slide as one HTML file that requests nothing.

    It holds no times, no dates and no machine names: equal results give equal files.

    Parameters
    ----------
    path : pathlib.Path
    result : SlideResult
        Scored, not assessable or failed.
    mask : TissueMask or None
        None where the slide could not be opened.
    layer : uint8 H x W x 4 or None
        From `draw_layer`; None where no patch was scored.
    examples : mapping of str to sequence of (x, y, uint8 H x W x 3)
        By class, patches with their top-left corner in level-0 pixels, the most telling first; the first
        6 of a class are shown.
    cell_views : sequence of (x, y, uint8 H x W x 3)
        Fields in which cells were counted, from `draw_cell_views`.
    thresholds : Thresholds, optional
        Those the call was made with; the guideline's by default. Where they do not lead to the call, the report
        gives the clause that fired and leaves out the comparison with the other scores.
    picture : Overview, optional
        A finer view of the same part of the slide, for small slides whose mask was made on few pixels.
    """
    thresholds = thresholds or Thresholds()
    context = {
        "result": result,
        "status": _STATUS_WORDS[result.status],
        "verdict": _verdict(result, thresholds),
        "calibration": calibration_in_words(result.calibration) if result.call else "",
        "uncalibrated": result.calibration == "none",
        "card": card_statements(result.model.card),
        "second": result.second_opinion,
        "cells": _cells(result, cell_views),
        "looked_at": _looked_at(result, mask),
        "gate": [(str(r.message), f"{r.measured:.3g}", f"{r.limit:.3g}", r.code) for r in result.gate],
        "figure": _figure(mask, layer, picture) if mask is not None else None,
        "legend": _legend(result),
        "examples": _examples(examples, result.model.classes),
        "provenance": _provenance(result),
        "limits": [
            *([_LIMIT_OF_HE] if result.modality == "he" else []),
            _LIMIT_OF_CELLS if result.call_from == "cells" else _LIMIT_OF_PATCHES,
            *_LIMITS,
        ],
    }
    write_page(path, "slide.html.j2", "slide.js", context, images="data:")


def _verdict(result: SlideResult, thresholds: Thresholds) -> dict[str, Any] | None:
    call = result.call
    if call is None:
        return None
    label = call.score or call.group
    colour = colour_of(label)
    return {
        "label": label,
        "is_score": call.score is not None,
        "colour": hex_of(label),
        "ink": text_on(colour),
        "group": group_in_words(call),
        "her2_low": her2_low_in_words(call),
        "confidence": f"{100 * call.confidence:.1f} %",
        "confidence_words": confidence_in_words(call),
        "margin": margin_in_words(call),
        "h_score": None if call.h_score is None else f"{call.h_score:.0f}",
        "explanation": call.explanation,
        "branch": call.branch,
        "clauses": clauses(call, thresholds),
        "chart": percentage_chart(call, thresholds.positive_over_pct),
    }


def _cells(result: SlideResult, views: Sequence[tuple[int, int, UInt8]]) -> dict[str, Any] | None:
    cells, call = result.cells, result.call
    if cells is None or call is None:
        return None
    low, high = cells.complete_interval
    other = call if result.call_from == "patches" else None
    classes = [
        (
            name,
            hex_of(name),
            f"{cells.call.percentages[name]:.1f} %",
            "{:.1f} to {:.1f}".format(*cells.call.intervals[name]),
            f"{other.percentages[name]:.1f} %" if other is not None and name in other.percentages else "",
        )
        for name in cells.call.percentages
    ]
    where = "all" if cells.sampling == "all" else f"{cells.patches:,} of {result.tumour_patches:,}"
    return {
        "count": f"{cells.cells:,}",
        "where": f"{where} patches of tumour, {cells.measured_mm2:.2f} mm²",
        "complete": f"{cells.pct_complete_membrane:.1f} %",
        "complete_interval": f"{low:.1f} to {high:.1f} %",
        "classes": classes,
        "scale": _scale_in_words(cells),
        "beside": other is not None,
        "rests_on": _CELLS_REST_ON,
        "views": [{"x": x, "y": y, "uri": jpeg_uri(rgb, _EXAMPLE_QUALITY)} for x, y, rgb in views],
    }


def _scale_in_words(cells: CellSummary) -> str:
    """What the call would be on another DAB scale."""
    factor = math.exp(cells.scale_deviation)
    weaker, stronger, score = cells.weaker_score, cells.stronger_score, cells.call.score
    if weaker == score == stronger:
        return f"With all DAB weaker or stronger by a factor of {factor:.2g} the cells would still give {score}."
    return (
        f"With all DAB weaker by a factor of {factor:.2g} the cells would give {weaker}, with all DAB stronger by "
        f"as much {stronger}: a laboratory profile narrows this."
    )


def _looked_at(result: SlideResult, mask: TissueMask | None) -> list[tuple[str, str]]:
    """What the call rests on, and what was left out and why."""
    if result.call is None or result.tissue_mm2 is None:
        return []
    rows = [
        ("Tissue found", f"{result.tissue_mm2:.2f} mm², of which {result.n_patches:,} patches were scored"),
        (
            "Counted",
            f"{result.tumour_patches:,} patches of tumour"
            + (f"; cells in {result.cells.patches:,} of them" if result.cells is not None else ""),
        ),
        ("Left out", f"{result.n_patches - result.tumour_patches:,} patches that are not tumour"),
    ]
    if result.sample is not None:
        rows.insert(1, ("Sampled", sample_in_words(result.sample)))
    if result.unreadable_fraction:
        rows.append(
            ("Left out", f"{100 * result.unreadable_fraction:.1f} % of the patches, which cannot be decoded")
        )
    if mask is not None and mask.pen_share > 0:
        rows.append(("Left out", f"ink: {100 * mask.pen_share:.1f} % of tissue and ink together"))
    if result.controls:
        rows.append(("Possible controls", controls_in_words(result.controls, result.controls_left_out)))
    if result.regions is not None:
        rows.append(("Annotated regions", regions_in_words(result.regions)))
    return rows


def _figure(mask: TissueMask, layer: UInt8 | None, picture: Overview | None) -> dict[str, Any]:
    rgb = within((picture or mask.overview).rgb, _OVERVIEW_PX)
    height, width = rgb.shape[:2]
    bar = scale_bar(mask)
    return {
        "overview": jpeg_uri(rgb, _OVERVIEW_QUALITY),
        "layer": None if layer is None else png_uri(within(layer, _OVERVIEW_PX, smooth=False)),
        "width": width,
        "height": height,
        "max_width": round(_FIGURE_HEIGHT_PX * width / height),
        "bar_pct": round(100 * bar.share, 3),
        "bar_label": bar.label,
    }


def _legend(result: SlideResult) -> list[dict[str, str]]:
    percentages = result.call.percentages if result.call and result.call_from == "patches" else {}
    entries = []
    for name in tumour_classes(result.model.classes):
        known = percentages.get(name)
        entries.append(
            {"text": name, "colour": hex_of(name), "share": "" if known is None else f"{known:.1f} % of tumour"}
        )
    if OTHER in result.model.classes:
        entries.append({"text": in_words(OTHER), "colour": "#cdced0", "share": ""})
    return entries


def _examples(examples: Examples, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    shown = []
    for name in (*tumour_classes(classes), OTHER):
        patches = examples.get(name, ())[:EXAMPLES_PER_CLASS]
        if patches:
            tiles = [
                {"x": x, "y": y, "uri": jpeg_uri(within(rgb, _EXAMPLE_PX), _EXAMPLE_QUALITY)}
                for x, y, rgb in patches
            ]
            shown.append({"name": in_words(name), "colour": hex_of(name), "tiles": tiles})
    return shown


def _computed_by(model: ModelInfo) -> str:
    text = f"{model.runtime}, {model.precision}"
    if model.augmentation == "none":
        return text
    return f"{text}, averaged over {'four' if model.augmentation == 'flips' else 'eight'} orientations"


def _provenance(result: SlideResult) -> list[tuple[str, str]]:
    reader, white, stain, model = result.reader, result.white_point, result.stain, result.model
    rows = [("File", result.path), ("Modality", {"ihc": "IHC", "he": "H&E"}.get(result.modality, result.modality))]
    if reader is not None:
        requested = (
            "" if reader.backend == reader.backend_requested else f" (requested: {reader.backend_requested})"
        )
        width, height = reader.dimensions
        rows += [
            ("Reader", reader.backend + requested),
            ("Size", f"{width} × {height} px"),
            ("Microns per pixel", f"{reader.mpp:.6g}, from {reader.mpp_source}"),
        ]
    if result.tissue_mm2 is not None:
        rows.append(("Tissue", f"{result.tissue_mm2:.2f} mm²"))
    if reader is not None:
        rows.append(("Patches", f"{result.n_patches} scored, {result.tumour_patches} of them tumour"))
    if result.sample is not None:
        rows.append(("Sampled", sample_in_words(result.sample)))
    if result.regions is not None:
        rows.append(("Annotated regions", regions_in_words(result.regions)))
    if result.unreadable_fraction is not None:
        rows.append(("Unreadable patches", f"{100 * result.unreadable_fraction:.2f} %"))
    if result.pct_complete_membrane is not None:
        rows.append(("Cells with complete membrane", f"{result.pct_complete_membrane:.1f} %"))
    if white is not None:
        levels = ", ".join(f"{level:.0f}" for level in white.rgb)
        source = "empty glass" if white.source == "background" else "brightest pixels, since no glass was found"
        rows.append(("White point (RGB)", f"{levels}, from {source}"))
    if stain is not None:
        rows.append(("Stain correction", stain.method + (f" ({stain.note})" if stain.note else "")))
    return [
        *rows,
        ("Model", f"{model.name}; {model.patch_px} px at {model.mpp:g} µm/px; classes {', '.join(model.classes)}"),
        ("Model sha256", model.sha256),
        ("Computed by", _computed_by(model)),
        ("Calibration", result.calibration),
        ("Software", f"wsi-her2 {result.version}"),
        ("Fingerprint", result.fingerprint or "none"),
    ]
