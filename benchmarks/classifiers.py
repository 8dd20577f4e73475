"""The classifiers side by side, on digital slides of looks that none was trained on, and on real cores.

    python benchmarks/classifiers.py -o OUT [BUNDLE...] [--table docs/classifiers.md]
        [--figure docs/classifiers.jpg] [--annotate DIR]

Draws 40 digital slides (scores and the guideline's borders; looks and seeds that the networks never saw in
training) and scores them with the membrane scorer and with each bundle. With WSI_HER2_TEST_DATA set it also scores
the real cores in that folder, whose score is one pathologist's. OUT keeps slides, results and `errors.csv`;
--figure shows the real cores with the heatmap of each classifier; --annotate writes a copy of each bundle whose
card says what was measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.cluster import available_cores
from pipelines.configuration import load_config
from pipelines.run.score import score
from wsi_her2.models.bundle import read_bundle
from wsi_her2.models.loading import MEMBRANE
from wsi_her2.models.packing import restate
from wsi_her2.phantom import PhantomSpec, render_phantom
from wsi_her2.phantom.composition import LookName
from wsi_her2.reports.palette import hex_of
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.slide import open_slide

SCORES = ("0", "1+", "2+", "3+")
HELD_OUT_LOOKS: tuple[LookName, ...] = ("oesophagus_tma", "bluish")
BORDERS = {
    "5pct_1plus": (0.95, 0.05, 0.0, 0.0),
    "16pct_1plus": (0.84, 0.16, 0.0, 0.0),
    "5pct_2plus": (0.60, 0.35, 0.05, 0.0),
    "8pct_2plus": (0.62, 0.30, 0.08, 0.0),
    "12pct_2plus": (0.58, 0.30, 0.12, 0.0),
    "16pct_2plus": (0.54, 0.30, 0.16, 0.0),
    "6pct_3plus": (0.30, 0.30, 0.34, 0.06),
    "14pct_3plus": (0.28, 0.29, 0.29, 0.14),
}
SIZE_MM = 1.2
FIRST_SEED = 95_000
PICTURE_PX = 700


@dataclass(frozen=True)
class Row:
    """A slide's truth beside what a classifier found."""

    classifier: str
    slide: str
    border: bool
    look: str
    truth: str
    call: str
    confidence: float
    true_pct: tuple[float, ...]
    found_pct: tuple[float, ...]

    @property
    def pct_error(self) -> float:
        """Mean absolute error of the four percentages, in points."""
        return float(np.abs(np.subtract(self.true_pct, self.found_pct)).mean())


def grid() -> dict[str, PhantomSpec]:
    """The 40 slides: 24 usual ones and 16 at the borders."""
    specs: dict[str, PhantomSpec] = {}
    seed = FIRST_SEED
    for look in HELD_OUT_LOOKS:
        for grade in SCORES:
            for number in range(3):
                specs[f"{grade.replace('+', 'plus')}_{look}_{number}"] = PhantomSpec(
                    score=grade,  # type: ignore[arg-type]
                    look=look,
                    width_mm=SIZE_MM,
                    height_mm=SIZE_MM,
                    seed=seed,
                )
                seed += 1
        for name, shares in BORDERS.items():
            specs[f"border_{name}_{look}"] = PhantomSpec(
                score=None, class_fractions=shares, look=look, width_mm=SIZE_MM, height_mm=SIZE_MM, seed=seed
            )
            seed += 1
    return specs


def draw(folder: Path) -> list[Path]:
    """Draw the slides that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, spec in grid().items():
        path = folder / f"{name}.tif"
        if not path.exists():
            render_phantom(spec, path, workers=available_cores())
        paths.append(path)
    return paths


def compare(classifier: str, result: SlideResult, slides: Path) -> Row:
    """Put a result beside the truth of its slide."""
    truth = json.loads((slides / f"{result.slide_id}.truth.json").read_text())
    call = result.call
    return Row(
        classifier=classifier,
        slide=result.slide_id,
        border=result.slide_id.startswith("border"),
        look=grid()[result.slide_id].look,
        truth=truth["score"],
        call=(call.score or "") if call else "",
        confidence=call.confidence if call else float("nan"),
        true_pct=tuple(truth["percentages"][grade] for grade in SCORES),
        found_pct=tuple(call.percentages[grade] for grade in SCORES) if call else (float("nan"),) * 4,
    )


def summary(rows: list[Row], classifier: str) -> str:
    """A line of the table of digital slides."""
    mine = [row for row in rows if row.classifier == classifier]
    right = sum(row.call == row.truth for row in mine)
    usual = [row for row in mine if not row.border]
    borders = [row for row in mine if row.border]
    near = sum(row.call != "" and abs(SCORES.index(row.call) - SCORES.index(row.truth)) <= 1 for row in mine)
    error = float(np.nanmean([row.pct_error for row in mine]))
    return (
        f"| {classifier} | {right} of {len(mine)} | {sum(r.call == r.truth for r in usual)} of {len(usual)} "
        f"| {sum(r.call == r.truth for r in borders)} of {len(borders)} | {near} of {len(mine)} | {error:.1f} |"
    )


def cores_table(by_classifier: dict[str, list[SlideResult]]) -> str:
    """The real cores: the pathologist's score beside the calls."""
    lines = [
        "| core | pathologist | classifier | call | sure | 0 % | 1+ % | 2+ % | 3+ % | H-score | tumour patches |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for results in zip(*by_classifier.values(), strict=True):
        for classifier, result in zip(by_classifier, results, strict=True):
            name = result.slide_id.removeprefix("ihc_core_score")
            truth = name[0] + ("+" if name[0] != "0" else "")
            call = result.call
            if call is None or call.h_score is None:
                lines.append(f"| {name} | {truth} | {classifier} | {result.reason} | | | | | | | |")
                continue
            shares = " | ".join(f"{call.percentages[grade]:.1f}" for grade in SCORES)
            lines.append(
                f"| {name} | {truth} | {classifier} | {call.score} | {call.confidence:.2f} | {shares} "
                f"| {call.h_score:.0f} | {result.tumour_patches} of {result.n_patches} |"
            )
    return "\n".join(lines)


def draw_cores(
    slides: list[Path], by_classifier: dict[str, list[SlideResult]], results: dict[str, Path], target: Path
) -> None:
    """A row for each core: the core as it is, and the heatmap of each classifier with its call."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = ("core", *by_classifier)
    figure, axes = pyplot.subplots(
        len(slides), len(columns), figsize=(3.1 * len(columns), 3.3 * len(slides)), layout="constrained"
    )
    for row, path in enumerate(slides):
        slide = open_slide(path)
        mpp = slide.mpp * max(slide.dimensions) / PICTURE_PX
        size = (round(extent * slide.mpp / mpp) for extent in slide.dimensions)
        core = slide.read(0, 0, *size, mpp)
        truth = path.stem.removeprefix("ihc_core_score")
        axes[row, 0].imshow(core)
        axes[row, 0].set_title(f"{truth}\npathologist {truth[0]}{'+' if truth[0] != '0' else ''}", fontsize=10)
        for column, (name, found) in enumerate(by_classifier.items(), 1):
            result = found[row]
            heatmap = pyplot.imread(results[name] / result.slide_id / "heatmap.png")
            # The legend below the tissue is the same in all of them.
            axes[row, column].imshow(heatmap[: round(heatmap.shape[1] * core.shape[0] / core.shape[1])])
            call = result.call
            said = f"{call.score} ({call.confidence:.2f})" if call else "no call: " + result.gate[0].code
            axes[row, column].set_title(f"{name}\n{said.replace('_', ' ')}", fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    patches = [pyplot.Rectangle((0, 0), 1, 1, color=hex_of(name)) for name in SCORES]
    figure.legend(patches, SCORES, loc="outside lower center", ncols=len(SCORES), frameon=False)
    figure.savefig(target, dpi=110, pil_kwargs={"quality": 82})
    pyplot.close(figure)


def statements(rows: list[Row], cores: list[SlideResult]) -> dict[str, str]:
    """What was measured of one classifier, for its card."""
    right = sum(row.call == row.truth for row in rows)
    error = float(np.nanmean([row.pct_error for row in rows]))
    said = {
        "on_digital_slides": f"{len(rows)} slides of looks and seeds that training never saw: the call is right "
        f"in {right}, percentages are off by {error:.1f} points on average"
    }
    if cores:
        found = [
            f"{result.slide_id.removeprefix('ihc_core_score')}: "
            + (str(result.call.score) if result.call else f"no call, {result.gate[0].code.replace('_', ' ')}")
            for result in cores
        ]
        said["on_real_cores"] = (
            f"{len(cores)} tissue-microarray cores, named by the pathologist's score: {'; '.join(found)}"
        )
    return said


def main() -> None:
    """Draw, score, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--annotate", type=Path, help="folder for bundles whose cards say what was measured")
    parser.add_argument("--figure", type=Path, help="JPEG of the real cores to write")
    parser.add_argument("--table", type=Path, help="Markdown page to write")
    options = parser.parse_args()
    slides = draw(options.output / "slides")
    models = {MEMBRANE: MEMBRANE} | {read_bundle(path).card.name: str(path) for path in options.bundles}
    data = os.environ.get("WSI_HER2_TEST_DATA")
    paths = sorted((Path(data) / "slides").glob("ihc_core_score*.tif")) if data else []
    rows: list[Row] = []
    cores: dict[str, list[SlideResult]] = {}
    for name, model in models.items():
        config = load_config(None, {"model": model, "cells.mode": "none"})
        run = score(slides, options.output / name, config)
        rows += [compare(name, result, options.output / "slides") for result in run.results]
        if data:
            cores[name] = list(score(paths, options.output / f"{name}-cores", config).results)
    if data and options.figure:
        folders = {name: options.output / f"{name}-cores" for name in cores}
        draw_cores(paths, cores, folders, options.figure)
    with (options.output / "errors.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row.__dataclass_fields__)
        writer.writerows([getattr(row, name) for name in Row.__dataclass_fields__] for row in rows)
    for path in options.bundles if options.annotate else ():
        bundle = read_bundle(path)
        name = bundle.card.name
        mine = [row for row in rows if row.classifier == name]
        restate(bundle, options.annotate / name, statements(mine, cores.get(name, [])))
    page = [
        "# The classifiers side by side",
        "",
        "Written by `python benchmarks/classifiers.py -o OUT BUNDLE... --table docs/classifiers.md`.",
        "",
        "## Digital slides",
        "",
        f"Looks {' and '.join(HELD_OUT_LOOKS)}, which the networks never saw in training; the membrane scorer was",
        "fitted on these looks too, with other seeds. Agreement on digital slides says nothing about tissue.",
        "",
        "| classifier | call right | usual slides | at the guideline's borders | within one class "
        "| percentages, mean error (points) |",
        "|---|---|---|---|---|---|",
        *(summary(rows, name) for name in models),
        "",
    ]
    if cores:
        page += [
            "## Real cores",
            "",
            "Five tissue-microarray cores of oesophageal adenocarcinoma (bozeklab/HER2-overexpression,",
            "Apache-2.0); the score is one pathologist's. No classifier was fitted to them, but the measures of",
            "the membrane scorer and the augmentation of the networks were chosen with them in view: five cores",
            "are no independent test.",
            "",
            cores_table(cores),
            "",
            *(
                (f"![The cores with the heatmaps of the classifiers]({options.figure.name})", "")
                if options.figure
                else ()
            ),
        ]
    text = "\n".join(page)
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
