"""How far calls, percentages and tissue masks are from the truth of digital slides.

    python benchmarks/accuracy.py -o OUT [--table docs/accuracy.md]

Draws a grid of digital slides (scores and their borders, looks, sizes; seeds that no classifier was fitted on),
scores them with the installed pipeline and compares each with its truth. With WSI_HER2_TEST_DATA set it also
scores the real cores in that folder, whose score is one pathologist's. OUT keeps the slides, the results and
`errors.csv` with a row per slide; --table writes the summary as a page.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from pipelines.cluster import available_cores
from pipelines.configuration import load_config
from pipelines.run.score import score
from wsi_her2.models.loading import load_classifier
from wsi_her2.phantom import PhantomSpec, render_phantom
from wsi_her2.scoring.call import call_slide
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.store import PatchStore

SCORES = ("0", "1+", "2+", "3+")
LOOKS = ("random", "oesophagus_tma", "nanozoomer", "aperio", "bluish")
SIZES_MM = (0.9, 1.5)
BORDERS = {
    "8% 1+": (0.92, 0.08, 0.0, 0.0),
    "12% 1+": (0.88, 0.12, 0.0, 0.0),
    "8% 2+": (0.62, 0.30, 0.08, 0.0),
    "12% 2+": (0.58, 0.30, 0.12, 0.0),
    "8% 3+": (0.30, 0.30, 0.32, 0.08),
    "12% 3+": (0.28, 0.30, 0.30, 0.12),
}
FIRST_SEED = 90_000
PATCHES = {"cells.mode": "none"}
"""Calls from the classifier's own patches; `benchmarks/cells.py` has those from counted cells."""


@dataclass(frozen=True)
class Row:
    """A slide's truth beside what was found."""

    slide: str
    group: str
    look: str
    size_mm: float
    truth: str
    call: str
    status: str
    true_pct: tuple[float, ...]
    found_pct: tuple[float, ...]
    true_h_score: float
    h_score: float
    tissue_error_pct: float
    tissue_overlap: float

    @property
    def pct_error(self) -> float:
        """Mean absolute error of the four percentages, in points."""
        return float(np.abs(np.subtract(self.true_pct, self.found_pct)).mean())


def grid() -> dict[str, tuple[str, PhantomSpec]]:
    """Slides to draw: name -> group and specification."""
    specs = {}
    seed = FIRST_SEED
    for size in SIZES_MM:
        for look in LOOKS:
            for grade in SCORES:
                name = f"{grade.replace('+', 'plus')}_{look}_{size:g}mm"
                specs[name] = (
                    grade,
                    PhantomSpec(score=grade, look=look, width_mm=size, height_mm=size, seed=seed),
                )
                seed += 1
    for number, (name, shares) in enumerate(BORDERS.items()):
        spec = PhantomSpec(score=None, class_fractions=shares, look=LOOKS[number % len(LOOKS)], seed=seed + number)
        specs[f"border_{name.replace('%', 'pct').replace('+', 'plus').replace(' ', '_')}"] = ("border", spec)
    return specs


def draw(folder: Path) -> list[Path]:
    """Draw the slides that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (_, spec) in grid().items():
        path = folder / f"{name}.tif"
        if not path.exists():
            render_phantom(spec, path, workers=available_cores())
        paths.append(path)
    return paths


def with_corrected_percentages(row: Row, output: Path) -> Row:
    """The same row, had the counts been corrected by the classifier's confusion matrix."""
    classifier = load_classifier()
    if row.status != "scored" or classifier.confusion is None:
        return row
    store = PatchStore.open(output / row.slide / "patches.zarr")
    call = call_slide(
        store.probabilities, store.classes, weights=store.tissue, confusion=np.asarray(classifier.confusion)
    )
    found = tuple(call.percentages[grade] for grade in SCORES)
    return replace(row, call=call.score or "", found_pct=found, h_score=call.h_score or 0.0)


def compare(result: SlideResult, output: Path, slides: Path) -> Row:
    """Put a result beside the truth of its slide."""
    group, spec = grid()[result.slide_id]
    truth = json.loads((slides / f"{result.slide_id}.truth.json").read_text())
    true_pct = tuple(truth["percentages"][grade] for grade in SCORES)
    call = result.call
    found = tuple(call.percentages[grade] for grade in SCORES) if call else (float("nan"),) * 4
    store = PatchStore.open(output / result.slide_id / "patches.zarr")
    mask = store.read_overview()
    drawn = np.zeros(mask.tissue.shape, np.uint8)
    for feature in truth["outlines"]["features"]:
        if feature["properties"]["classification"]["name"] == "tissue":
            corners = [
                np.rint(np.asarray(ring) / mask.overview.downsample).astype(np.int32)
                for ring in feature["geometry"]["coordinates"]
            ]
            cv2.fillPoly(drawn, corners, 1)
    both, either = (mask.tissue & (drawn > 0)).sum(), (mask.tissue | (drawn > 0)).sum()
    return Row(
        slide=result.slide_id,
        group=group,
        look=spec.look,
        size_mm=spec.width_mm,
        truth=truth["score"],
        call=(call.score or "") if call else "",
        status=result.status,
        true_pct=true_pct,
        found_pct=found,
        true_h_score=true_pct[1] + 2 * true_pct[2] + 3 * true_pct[3],
        h_score=call.h_score if call and call.h_score is not None else float("nan"),
        tissue_error_pct=100 * (mask.area_mm2 / truth["tissue_mm2"] - 1),
        tissue_overlap=float(both / max(either, 1)),
    )


def summary(rows: list[Row], title: str) -> str:
    """A line of the table."""
    scored = [row for row in rows if row.status == "scored"]
    right = sum(row.call == row.truth for row in scored)
    near = sum(abs(SCORES.index(row.call) - SCORES.index(row.truth)) <= 1 for row in scored)
    error = np.mean([row.pct_error for row in scored]) if scored else float("nan")
    h_error = np.mean([abs(row.h_score - row.true_h_score) for row in scored]) if scored else float("nan")
    tissue = np.mean([abs(row.tissue_error_pct) for row in rows])
    overlap = np.mean([row.tissue_overlap for row in rows])
    return (
        f"| {title} | {len(rows)} | {len(scored)} | {right} | {near} | {error:.1f} | {h_error:.0f} | "
        f"{tissue:.1f} | {overlap:.3f} |"
    )


def table(rows: list[Row], corrected: list[Row]) -> str:
    """The summary as a Markdown table."""
    lines = [
        "| slides | drawn | scored | call right | within one class | percentages, mean error (points) "
        "| H-score, mean error | tissue area, mean error (%) | tissue overlap (IoU) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    usual = [row for row in rows if row.group != "border"]
    for grade in SCORES:
        lines.append(summary([row for row in usual if row.truth == grade], f"score {grade}"))
    for look in LOOKS:
        lines.append(summary([row for row in usual if row.look == look], f"look {look}"))
    for size in SIZES_MM:
        lines.append(summary([row for row in usual if row.size_mm == size], f"{size:g} x {size:g} mm"))
    lines.append(summary([row for row in rows if row.group == "border"], "at the guideline's borders"))
    lines.append(summary(rows, "**all**"))
    lines.append(summary(corrected, "all, with `percentages: corrected`"))
    return "\n".join(lines)


def confusion(rows: list[Row]) -> str:
    """Truth against call."""
    lines = ["| truth \\ call | 0 | 1+ | 2+ | 3+ | not scored |", "|---|---|---|---|---|---|"]
    for grade in SCORES:
        of_grade = [row for row in rows if row.truth == grade]
        counts = [sum(row.call == other for row in of_grade) for other in SCORES]
        lines.append(f"| {grade} | {' | '.join(map(str, counts))} | {sum(row.call == '' for row in of_grade)} |")
    return "\n".join(lines)


def cores(output: Path) -> str | None:
    """The real cores: the pathologist's score beside the call."""
    data = os.environ.get("WSI_HER2_TEST_DATA")
    if not data:
        return None
    found = score(
        sorted((Path(data) / "slides").glob("ihc_core_score*.tif")), output, load_config(None, PATCHES), fresh=True
    )
    lines = [
        "| core | pathologist | call | confidence | 0 % | 1+ % | 2+ % | 3+ % | H-score | tumour patches of all |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in found.results:
        call, name = result.call, result.slide_id.removeprefix("ihc_core_score")
        truth = name.split("_")[0] + ("+" if name[0] != "0" else "")
        if call is None or call.h_score is None:
            lines.append(f"| {name} | {truth} | {result.status}: {result.reason} | | | | | | | |")
            continue
        shares = " | ".join(f"{call.percentages[grade]:.1f}" for grade in SCORES)
        lines.append(
            f"| {name} | {truth} | {call.score} | {call.confidence:.2f} | {shares} | {call.h_score:.0f} | "
            f"{result.tumour_patches} of {result.n_patches} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Draw, score, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="Markdown page to write")
    arguments = parser.parse_args()
    slides, results = arguments.output / "slides", arguments.output / "results"
    run = score(draw(slides), results, load_config(None, PATCHES), fresh=True)
    rows = [compare(result, results, slides) for result in run.results]
    with (arguments.output / "errors.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row.__dataclass_fields__)
        writer.writerows([getattr(row, name) for name in Row.__dataclass_fields__] for row in rows)
    classifier = load_classifier()
    page = [
        "# Accuracy of the bundled classifier",
        "",
        f"Written by `python benchmarks/accuracy.py -o OUT --table docs/accuracy.md`. Classifier "
        f"`{classifier.name}`, sha256 `{classifier.sha256[:16]}`. {classifier.card['trained_on']}.",
        "",
        "## Digital slides",
        "",
        "Seeds that were not used for fitting. Agreement on digital slides says nothing about tissue.",
        "",
        table(rows, [with_corrected_percentages(row, results) for row in rows]),
        "",
        confusion(rows),
        "",
    ]
    real = cores(arguments.output / "cores")
    if real is not None:
        page += [
            "## Real cores",
            "",
            "Five tissue-microarray cores of oesophageal adenocarcinoma (bozeklab/HER2-overexpression,",
            "Apache-2.0); the score is a pathologist's. They were not used for fitting, but the measures that",
            "enter the regressions were chosen with a look at them, so they are no independent test.",
            "",
            real,
            "",
        ]
    text = "\n".join(page)
    print(text)
    if arguments.table:
        arguments.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
