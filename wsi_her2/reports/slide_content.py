"""What the reports of one slide say: everything a person needs to judge its call, in words and pictures.

`report.html` and the PDF are drawn from this and from nothing else, so that they cannot say different things.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from wsi_her2.cells.summary import CellSummary
from wsi_her2.reports.chart import Chart, percentage_chart
from wsi_her2.reports.heatmap import scale_bar
from wsi_her2.reports.images import as_uri, encode_jpeg, encode_png, within
from wsi_her2.reports.palette import OTHER, colour_of, hex_of, in_words, text_on, tumour_classes
from wsi_her2.reports.review_words import ReportedReview
from wsi_her2.reports.wording import (
    Clause,
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
from wsi_her2.scoring.result import ModelInfo, SlideResult
from wsi_her2.scoring.rule import Thresholds
from wsi_her2.scoring.second_opinion import SecondOpinion
from wsi_her2.slides.grid import patch_side_px0
from wsi_her2.slides.slide import Overview
from wsi_her2.slides.tissue import TissueMask

UInt8 = npt.NDArray[np.uint8]
Examples = Mapping[str, Sequence[tuple[int, int, UInt8]]]

EXAMPLES_PER_CLASS = 6
_OVERVIEW_PX, _OVERVIEW_QUALITY = 1600, 82
_EXAMPLE_PX, _EXAMPLE_QUALITY = 256, 90
_FIGURE_HEIGHT_PX = 640
_FIGURE_HEIGHT_MM, _BESIDE_HEIGHT_MM = 110, 85

_CARD_ON_TOP = ("Card", "Trained on", "Validated on", "Validated")

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
    "Cells are found by their nuclei; a network tells those of the tumour from stroma, inflammation and vessels, "
    "and errs. Cells cut without their nucleus are missed. The faintest staining is not told from haze."
)
_CELLS_REST_ON = (
    "the network that says whether a cell counts and of which class it is was fitted on digital phantoms, not on "
    "tissue of patients"
)
_LIMIT_OF_HE = (
    "Scored on H&E: HER2 is estimated from morphology, not measured. "
    "Immunohistochemistry or ISH is needed to know."
)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a report.

    Attributes
    ----------
    pixels : uint8 H x W x 3 or 4
        RGB of tissue, or RGBA of what was drawn.
    quality : int or None
        Of the JPEG; None for lossless PNG.
    """

    pixels: UInt8
    quality: int | None = None

    @cached_property
    def encoded(self) -> bytes:
        """The file."""
        return encode_png(self.pixels) if self.quality is None else encode_jpeg(self.pixels, self.quality)

    @property
    def uri(self) -> str:
        """The file as a data URI."""
        return as_uri(self.encoded, "png" if self.quality is None else "jpeg")


@dataclass(frozen=True)
class Verdict:
    """The call in words. `clauses` is empty where the thresholds do not lead to it."""

    label: str
    is_score: bool
    colour: str
    ink: str
    group: str
    her2_low: str
    confidence: str
    confidence_words: str
    margin: str
    h_score: str | None
    explanation: str
    branch: str
    clauses: list[Clause]
    chart: Chart


@dataclass(frozen=True)
class CellClass:
    """Counted cells of a class: percent, its interval, and percent of the patches where the call is of patches."""

    name: str
    colour: str
    value: str
    interval: str
    patches: str


@dataclass(frozen=True)
class Tile:
    """A field of the slide, by its top-left corner in level-0 pixels."""

    x: int
    y: int
    picture: Picture


@dataclass(frozen=True)
class CountedCells:
    """What the counted cells say. `beside`: whether the call is of patches, so that both can be compared."""

    count: str
    where: str
    complete: str
    complete_interval: str
    classes: list[CellClass]
    scale: str
    beside: bool
    rests_on: str
    views: list[Tile]


@dataclass(frozen=True)
class Figure:
    """The overview, and the classes to lie over it.

    Sizes are in pixels, widths on paper (alone, and beside the reasons) in millimetres, the scale bar in percent
    of the width.
    """

    overview: Picture
    layer: Picture | None
    width: int
    height: int
    max_width: int
    print_mm: int
    beside_mm: int
    bar_pct: float
    bar_label: str


@dataclass(frozen=True)
class LegendEntry:
    """A colour of the heatmap."""

    text: str
    colour: str
    share: str


@dataclass(frozen=True)
class ExampleGroup:
    """Patches of a class."""

    name: str
    colour: str
    tiles: list[Tile]


@dataclass(frozen=True)
class GateWords:
    """A reason of the gate, with what was measured and the limit."""

    message: str
    measured: str
    limit: str
    code: str


@dataclass(frozen=True)
class SlideContent:
    """All that a report of a slide says.

    Attributes
    ----------
    result : SlideResult
    status : str
    verdict : Verdict or None
        None unless scored.
    review : ReportedReview or None
        What a person said of it; None where nobody did.
    calibration : str
        On whose DAB scale the call stands; empty without a call.
    uncalibrated : bool
    card_on_top : list of (label, text)
        What the model was trained and validated on, and what the counting of cells rests on: to be read before any
        percentage.
    card : list of (label, text)
        All that the model says of itself.
    second : SecondOpinion or None
    cells : CountedCells or None
    looked_at : list of (label, text)
        What was counted and what was left out.
    gate : list of GateWords
    figure : Figure or None
    legend : list of LegendEntry
    examples : list of ExampleGroup
    side_px0 : int or None
        Side of a patch in level-0 pixels.
    provenance : list of (label, text)
    limits : list of str
    """

    result: SlideResult
    status: str
    verdict: Verdict | None
    review: ReportedReview | None
    calibration: str
    uncalibrated: bool
    card_on_top: list[tuple[str, str]]
    card: list[tuple[str, str]]
    second: SecondOpinion | None
    cells: CountedCells | None
    looked_at: list[tuple[str, str]]
    gate: list[GateWords]
    figure: Figure | None
    legend: list[LegendEntry]
    examples: list[ExampleGroup]
    side_px0: int | None
    provenance: list[tuple[str, str]]
    limits: list[str]


def slide_content(
    result: SlideResult,
    mask: TissueMask | None,
    layer: UInt8 | None,
    examples: Examples,
    *,
    cell_views: Sequence[tuple[int, int, UInt8]] = (),
    thresholds: Thresholds | None = None,
    picture: Overview | None = None,
    review: ReportedReview | None = None,
) -> SlideContent:
    """Put together what the report of a slide says.

    Parameters
    ----------
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
    review : ReportedReview, optional
        The review in force.
    """
    thresholds = thresholds or Thresholds()
    card, cells = card_statements(result.model.card), _cells(result, cell_views)
    return SlideContent(
        result=result,
        status=status_in_words(result.status),
        verdict=_verdict(result, thresholds),
        review=review,
        calibration=calibration_in_words(result.calibration) if result.call else "",
        uncalibrated=result.calibration == "none",
        card_on_top=[
            *((label, text) for label, text in card if label in _CARD_ON_TOP),
            *([("Counted cells", cells.rests_on)] if cells is not None else []),
        ],
        card=card,
        second=result.second_opinion,
        cells=cells,
        looked_at=_looked_at(result, mask),
        gate=[GateWords(str(r.message), f"{r.measured:.3g}", f"{r.limit:.3g}", r.code) for r in result.gate],
        figure=_figure(mask, layer, picture) if mask is not None else None,
        legend=_legend(result),
        examples=_examples(examples, result.model.classes),
        side_px0=_side_px0(result),
        provenance=_provenance(result),
        limits=[
            *([_LIMIT_OF_HE] if result.modality == "he" else []),
            _LIMIT_OF_CELLS if result.call_from == "cells" else _LIMIT_OF_PATCHES,
            *_LIMITS,
        ],
    )


def _verdict(result: SlideResult, thresholds: Thresholds) -> Verdict | None:
    call = result.call
    if call is None:
        return None
    label = call.score or call.group
    colour = colour_of(label)
    return Verdict(
        label=label,
        is_score=call.score is not None,
        colour=hex_of(label),
        ink=text_on(colour),
        group=group_in_words(call),
        her2_low=her2_low_in_words(call),
        confidence=f"{100 * call.confidence:.1f} %",
        confidence_words=confidence_in_words(call),
        margin=margin_in_words(call),
        h_score=None if call.h_score is None else f"{call.h_score:.0f}",
        explanation=call.explanation,
        branch=call.branch,
        clauses=clauses(call, thresholds),
        chart=percentage_chart(call, thresholds.positive_over_pct),
    )


def _cells(result: SlideResult, views: Sequence[tuple[int, int, UInt8]]) -> CountedCells | None:
    cells, call = result.cells, result.call
    if cells is None or call is None:
        return None
    low, high = cells.complete_interval
    other = call if result.call_from == "patches" else None
    classes = [
        CellClass(
            name,
            hex_of(name),
            f"{cells.call.percentages[name]:.1f} %",
            "{:.1f} to {:.1f}".format(*cells.call.intervals[name]),
            f"{other.percentages[name]:.1f} %" if other is not None and name in other.percentages else "",
        )
        for name in cells.call.percentages
    ]
    where = f"all {cells.patches:,}" if cells.sampling == "all" else f"{cells.patches:,}"
    return CountedCells(
        count=f"{cells.cells:,}",
        where=f"{where} patches that may hold tumour, {cells.measured_mm2:.2f} mm²",
        complete=f"{cells.pct_complete_membrane:.1f} %",
        complete_interval=f"{low:.1f} to {high:.1f} %",
        classes=classes,
        scale=_scale_in_words(cells),
        beside=other is not None,
        rests_on=_CELLS_REST_ON,
        views=[Tile(x, y, Picture(rgb, _EXAMPLE_QUALITY)) for x, y, rgb in views],
    )


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
            + (f"; cells in {result.cells.patches:,} that may hold tumour" if result.cells is not None else ""),
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


def _figure(mask: TissueMask, layer: UInt8 | None, picture: Overview | None) -> Figure:
    rgb = within((picture or mask.overview).rgb, _OVERVIEW_PX)
    height, width = rgb.shape[:2]
    bar = scale_bar(mask)
    return Figure(
        overview=Picture(rgb, _OVERVIEW_QUALITY),
        layer=None if layer is None else Picture(within(layer, _OVERVIEW_PX, smooth=False)),
        width=width,
        height=height,
        max_width=round(_FIGURE_HEIGHT_PX * width / height),
        print_mm=round(_FIGURE_HEIGHT_MM * width / height),
        beside_mm=round(_BESIDE_HEIGHT_MM * width / height),
        bar_pct=round(100 * bar.share, 3),
        bar_label=bar.label,
    )


def _legend(result: SlideResult) -> list[LegendEntry]:
    percentages = result.call.percentages if result.call and result.call_from == "patches" else {}
    entries = []
    for name in tumour_classes(result.model.classes):
        known = percentages.get(name)
        share = "" if known is None else f"{known:.1f} % of tumour"
        entries.append(LegendEntry(name, hex_of(name), share))
    if OTHER in result.model.classes:
        entries.append(LegendEntry(in_words(OTHER), "#cdced0", ""))
    return entries


def _examples(examples: Examples, classes: tuple[str, ...]) -> list[ExampleGroup]:
    shown = []
    for name in (*tumour_classes(classes), OTHER):
        patches = examples.get(name, ())[:EXAMPLES_PER_CLASS]
        if patches:
            tiles = [Tile(x, y, Picture(within(rgb, _EXAMPLE_PX), _EXAMPLE_QUALITY)) for x, y, rgb in patches]
            shown.append(ExampleGroup(in_words(name), hex_of(name), tiles))
    return shown


def _side_px0(result: SlideResult) -> int | None:
    if result.reader is None:
        return None
    return patch_side_px0(result.model.patch_px, result.model.mpp, result.reader.mpp)


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
