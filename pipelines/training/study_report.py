"""The study's figures as a page, a table for programs, and pictures."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsi_her2.atomic import text_beside
from wsi_her2.learning.metrics import METRICS, Estimate
from wsi_her2.learning.pictures import draw_confusion
from wsi_her2.reports.pages import write_page

PUBLISHED = {"binary": (0.97, 1.0), "grades": (0.955, 0.985)}
"""Accuracy on patches that the publication reports (PLoS One 2025, abstract)."""

TABLE_FILE, PAGE_FILE = "study.csv", "report.html"

_IDENTITY = ("name", "architecture", "modality", "task", "pretrained", "parameters")
_TESTS = {
    "test": ("BCI, test part", "Patches of slides that training saw: the published split is by patch."),
    "external": ("Warwick", "Slides of cases that no training saw."),
}
_TASKS = {"grades": "four classes", "binary": "negative and positive"}


def write_study_report(output: Path, results: Sequence[dict[str, Any]], *, miniature: bool) -> None:
    """Write `study.csv`, `report.html` and the pictures over the results so far.

    Parameters
    ----------
    output : pathlib.Path
    results : sequence of dict
        As `study.run_study` makes them.
    miniature : bool
        Whether the data sets were drawn, which the page says.
    """
    with text_beside(output / TABLE_FILE) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = [f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")]
        writer.writerow([*_IDENTITY, "data", "images", "groups", *columns])
        for result in results:
            for part in ("validation", *_TESTS):
                if result.get(part):
                    writer.writerow(_csv_row(result, part))
    tables = []
    for task, words in _TASKS.items():
        for part, (data, note) in _TESTS.items():
            rows = [_row(result, part) for result in results if result["task"] == task and result.get(part)]
            if rows:
                tables.append((f"{data}: {words}", note, rows))
    context = {
        "results": results,
        "miniature": miniature,
        "tables": tables,
        "metric_names": [name.replace("_", " ") for name in METRICS],
        "accuracy_image": _accuracy_picture(results),
        "pruning_image": _pruning_picture(results),
        "confusions": [(result["name"], _confusion_picture(result, output)) for result in results],
    }
    write_page(output / PAGE_FILE, "study.html.j2", "study.js", context, images="data:")


def _estimate(measured: dict[str, Any], name: str) -> Estimate:
    return Estimate(*(float("nan") if value is None else float(value) for value in measured["metrics"][name]))


def _csv_row(result: dict[str, Any], part: str) -> list[Any]:
    measured = result[part]
    row = [result[key] for key in _IDENTITY]
    row += [part, measured["images"], measured["groups"]]
    for name in METRICS:
        row += ["" if value is None else value for value in measured["metrics"][name]]
    return row


def _row(result: dict[str, Any], part: str) -> dict[str, Any]:
    measured = result[part]
    low, high = PUBLISHED[result["task"]]
    return {
        "architecture": result["architecture"],
        "stain": {"ihc": "IHC", "he": "H&E"}[result["modality"]],
        "start": "pretrained" if result["pretrained"] else "new weights",
        "images": measured["images"],
        "groups": measured["groups"],
        "cells": [str(_estimate(measured, name)) for name in METRICS],
        "published": f"accuracy {low:g}-{high:g}",
    }


def _accuracy_picture(results: Sequence[dict[str, Any]]) -> str:
    from matplotlib.figure import Figure

    shown = [result for result in results if not result["sweep"]]
    figure = Figure(figsize=(10, 1.6 + 0.32 * max(1, len(shown))), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (task, words) in zip(panels, _TASKS.items(), strict=True):
        axes.axvspan(*PUBLISHED[task], color="0.88", zorder=0)
        names: list[str] = []
        for result in (result for result in shown if result["task"] == task):
            place = len(names)
            names.append(result["name"].replace(f"-{task}", ""))
            for part, shift, colour in (("test", -0.12, "C0"), ("external", 0.12, "C3")):
                if result.get(part):
                    estimate = _estimate(result[part], "accuracy")
                    bars = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
                    axes.errorbar(
                        estimate.value,
                        place + shift,
                        xerr=np.maximum(bars, 0),
                        fmt="o",
                        color=colour,
                        capsize=2,
                        label=_TESTS[part][0] if place == 0 else None,
                    )
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel(f"accuracy, {words}")
        axes.invert_yaxis()
        if names:
            axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _as_data(figure)


def _pruning_picture(results: Sequence[dict[str, Any]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    sweep = [
        result
        for result in results
        if result["architecture"].startswith("pruneff")
        and (result["modality"], result["task"]) == ("ihc", "grades")
        and (result["sweep"] or result["pretrained"])
    ]
    sweep.sort(key=lambda result: result["parameters"])
    for part, colour in (("test", "C0"), ("external", "C3")):
        points = [
            (result["parameters"] / 1e6, _estimate(result[part], "accuracy"))
            for result in sweep
            if result.get(part)
        ]
        if points:
            sizes = [size for size, _ in points]
            middle = np.array([estimate.value for _, estimate in points])
            bars = [middle - [e.low for _, e in points], [e.high for _, e in points] - middle]
            axes.errorbar(
                sizes, middle, yerr=np.maximum(bars, 0), fmt="o-", color=colour, capsize=2, label=_TESTS[part][0]
            )
    for result in sweep:
        axes.annotate(
            result["architecture"], (result["parameters"] / 1e6, 0.02), rotation=90, fontsize=7, ha="center"
        )
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("million parameters")
    axes.set_ylabel("accuracy, four classes")
    if sweep:
        axes.legend(frameon=False)
    return _as_data(figure)


def _confusion_picture(result: dict[str, Any], output: Path) -> str:
    """The matrix of the hardest test that there is."""
    part = next(part for part in ("external", "test", "validation") if result.get(part))
    path = output / result["name"] / f"confusion-{part}.png"
    measured = result[part]
    draw_confusion(np.asarray(measured["confusion"], np.float64), measured["classes"], part, path)
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _as_data(figure: Any) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
