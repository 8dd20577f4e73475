"""`evaluate`: the calls of a run beside a ground truth, as a table, figures for programs and a page."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.agreement.evaluation_page import write_evaluation_page
from pipelines.results import write_json
from wsi_her2.atomic import text_beside
from wsi_her2.errors import DatasetError
from wsi_her2.learning.agreement import Agreement, ComparedSlide, measure_agreement
from wsi_her2.learning.datasets.grades import parse_grade
from wsi_her2.learning.datasets.truth import case_name, is_truth_table, read_slide_labels, read_truth
from wsi_her2.reports.slide_table import guarded, unguarded
from wsi_her2.scoring.rule import SCORES, Score

TABLE_FILE, FIGURES_FILE, PAGE_FILE = "evaluation.csv", "evaluation.json", "evaluation.html"

_TABLE = "slides.csv"
_TRUTH_FILES = "*.truth.json"
_STAIN = re.compile(r"(.+)_(HER2|HE)", re.IGNORECASE)
_PERCENTAGES = ("pct_0", "pct_1", "pct_2", "pct_3")


@dataclass(frozen=True)
class Truth:
    """What is true of a slide."""

    score: Score
    case: str
    percentages: tuple[float, ...] | None = None
    complete_pct: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A run beside a truth.

    Attributes
    ----------
    compared : tuple of ComparedSlide
    without_truth : tuple of str
        Slides of the run of which the truth says nothing.
    without_result : tuple of str
        Slides or cases of the truth that the run does not hold.
    notes : tuple of str
        What was wrong with the truth.
    """

    compared: tuple[ComparedSlide, ...]
    without_truth: tuple[str, ...]
    without_result: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a comparison found, and the page that shows it."""

    comparison: Comparison
    agreement: Agreement
    page: Path


def evaluate_run(results: Path, truth: Path, output: Path | None = None, points: Path | None = None) -> Evaluation:
    """Compare a run with a ground truth and write what came out.

    Parameters
    ----------
    results : pathlib.Path
        Output folder of `score`, or a `slides.csv`.
    truth : pathlib.Path
        A table with Warwick's columns, a table with `slide_id` and `her2_score`, or a folder with the truth files
        of digital slides.
    output : pathlib.Path, optional
        Folder for `evaluation.csv`, `evaluation.json` and `evaluation.html`; by default `evaluation` beside the
        table.
    points : pathlib.Path, optional
        CSV of four rows (truth) by four columns (call): what a contest awards.

    Raises
    ------
    DatasetError
        Something cannot be read, or no slide is in both.
    OSError
        The files cannot be written.
    """
    comparison = compare_run(results, truth)
    agreement = measure_agreement(comparison.compared, None if points is None else _read_points(points))
    folder = output or (results if results.is_dir() else results.parent) / "evaluation"
    evaluation = Evaluation(comparison, agreement, folder / PAGE_FILE)
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / TABLE_FILE, comparison.compared)
    write_json(folder / FIGURES_FILE, described(evaluation))
    write_evaluation_page(folder / PAGE_FILE, evaluation)
    return evaluation


def compare_run(results: Path, truth: Path) -> Comparison:
    """Put the slides of a run beside their truth; parameters and errors as of `evaluate_run`."""
    table = results / _TABLE if results.is_dir() else results
    rows = _read_rows(table)
    truth_of, names, notes = _read_truth(truth)
    compared, without, met = [], [], set()
    for row in rows:
        name, known = truth_of(row["slide_id"])
        if known is None:
            without.append(row["slide_id"])
            continue
        met.add(name)
        compared.append(_compared(row, known))
    if not compared:
        raise DatasetError(
            f"{truth}: has no slide of {table}. The run has {_some(row['slide_id'] for row in rows)}; the truth "
            f"has {_some(names)}."
        )
    return Comparison(tuple(compared), tuple(without), tuple(sorted(set(names) - met)), notes)


def described(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation for JSON; null where a figure is not defined."""
    agreement = evaluation.agreement
    return {
        "slides": agreement.slides,
        "cases": agreement.cases,
        "assessed": agreement.assessed,
        "figures": {
            name: [None if not math.isfinite(v) else round(v, 5) for v in (e.value, e.low, e.high)]
            for name, e in agreement.estimates.items()
        },
        "scores": list(SCORES),
        "confusion": agreement.confusion.tolist(),
        "confidence": [vars(part) for part in agreement.bins],
        "without_truth": list(evaluation.comparison.without_truth),
        "without_result": list(evaluation.comparison.without_result),
        "notes": list(evaluation.comparison.notes),
    }


def _read_rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{table}: no table of results ({error}). Name the output folder of `score`."
        ) from error
    if not rows or "slide_id" not in rows[0] or "her2_score" not in rows[0]:
        raise DatasetError(f"{table}: no table of results: it needs the columns slide_id and her2_score, and rows")
    return [row | {"slide_id": unguarded(row["slide_id"])} for row in rows]


def _read_truth(path: Path) -> tuple[Callable[[str], tuple[str, Truth | None]], list[str], tuple[str, ...]]:
    """What is true of a slide by its id (with the name it has in the truth), all names, and notes."""
    truths: dict[str, Truth] = {}
    notes: tuple[str, ...] = ()
    if path.is_dir():
        for file in sorted(path.glob(_TRUTH_FILES)):
            truths[file.name.removesuffix(_TRUTH_FILES[1:])] = _of_digital_slide(file)
        if not truths:
            raise DatasetError(f"{path}: holds no {_TRUTH_FILES}; name a table of the truth instead")
    elif is_truth_table(path):
        cases, findings = read_truth(path)
        notes = tuple(map(str, findings))
        for case, known in cases.items():
            truths[case] = Truth(_score(known.grade), case, None, known.pct_complete_membrane)

        def by_case(slide: str) -> tuple[str, Truth | None]:
            match = _STAIN.fullmatch(slide)
            case = case_name(match[1] if match else slide)
            return case, truths.get(case)

        return by_case, list(truths), notes
    else:
        labels, findings = read_slide_labels(path)
        notes = tuple(map(str, findings))
        wrong = sorted(slide for slide, label in labels.items() if parse_grade(label.label) is None)
        notes += tuple(f"{slide}: {labels[slide].label!r} is no score; left out" for slide in wrong)
        for slide, label in labels.items():
            if slide not in wrong:
                # Who makes the table of slides.csv takes over how that guards its texts against spreadsheets.
                truths[unguarded(slide)] = Truth(
                    _score(label.label), label.group or slide, label.percentages, label.pct_complete_membrane
                )
    return lambda slide: (slide, truths.get(slide)), list(truths), notes


def _of_digital_slide(file: Path) -> Truth:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        name = file.name.removesuffix(_TRUTH_FILES[1:])
        shares = tuple(float(content["percentages"][score]) for score in SCORES)
        return Truth(_score(content["score"]), name, shares, float(content["pct_complete_membrane"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{file}: not the truth of a digital slide ({error!r})") from error


def _score(text: str) -> Score:
    if text not in SCORES:
        raise DatasetError(f"{text!r} is no score; a score is {', '.join(SCORES)}")
    return text


def _compared(row: dict[str, str], truth: Truth) -> ComparedSlide:
    found = [_number(row.get(name)) for name in _PERCENTAGES]
    known = tuple(value for value in found if value is not None)
    call = row["her2_score"] if row["her2_score"] in SCORES else None
    return ComparedSlide(
        slide_id=row["slide_id"],
        case=truth.case,
        truth=truth.score,
        call=call,
        confidence=_number(row.get("confidence")) if call else None,
        reason="" if call else unguarded(row.get("reason") or row.get("status") or "no call"),
        true_percentages=truth.percentages,
        found_percentages=known if call and len(known) == len(SCORES) else None,
        true_complete_pct=truth.complete_pct,
        found_complete_pct=_number(row.get("pct_complete_membrane")) if call else None,
    )


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read_points(path: Path) -> npt.NDArray[np.float64]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [[float(cell) for cell in row] for row in csv.reader(stream) if any(row)]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: no table of points ({error})") from error
    if len(rows) != len(SCORES) or any(len(row) != len(SCORES) for row in rows):
        raise DatasetError(
            f"{path}: points are numbers in four rows (truth 0 to 3+) and four columns (call 0 to 3+), no titles"
        )
    return np.array(rows)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "none"


def _write_table(path: Path, compared: Iterable[ComparedSlide]) -> None:
    with text_beside(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            (
                "slide_id",
                "case",
                "truth",
                "call",
                "right",
                "confidence",
                "percentage_error",
                "true_complete_membrane",
                "found_complete_membrane",
                "reason",
            )
        )
        for slide in compared:
            writer.writerow(
                (
                    guarded(slide.slide_id),
                    guarded(slide.case),
                    slide.truth,
                    slide.call or "",
                    "" if slide.call is None else str(slide.call == slide.truth).lower(),
                    _cell(slide.confidence, 3),
                    _cell(slide.percentage_error, 2),
                    _cell(slide.true_complete_pct, 2),
                    _cell(slide.found_complete_pct, 2),
                    guarded(slide.reason),
                )
            )


def _cell(value: float | None, decimals: int) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{decimals}f}"
