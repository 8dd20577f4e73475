"""Tables of what is true: a case's score, or a slide's class."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from wsi_her2.bounded_file import read_bounded
from wsi_her2.errors import DatasetError, MissingExtra
from wsi_her2.learning.datasets.findings import Finding, error, warning
from wsi_her2.learning.datasets.grades import parse_grade
from wsi_her2.messages import shortened

_CASE = ("caseno", "case no", "case number", "case")
_SCORE = ("her2 score", "her2score", "score")
_COMPLETE = "percentage cells with complete membrane staining"
_SLIDE = ("slide id", "slide", "slide name")
_LABEL = ("label", "class", "her2 score", "score")
_PERCENTAGES = ("pct 0", "pct 1", "pct 2", "pct 3")
_SLIDE_COMPLETE = ("pct complete membrane",)
_GROUP = ("group", "patient", "case", "caseno", "case no")


_MAX_BYTES = 20_000_000
_MAX_ROWS, _MAX_COLUMNS = 100_000, 1000
"""Of a table; a row of Warwick's has three columns and some 20 bytes."""


@dataclass(frozen=True)
class CaseTruth:
    """What a ground-truth table says of a case.

    Attributes
    ----------
    case : str
        As `case_name` writes it.
    grade : {'0', '1+', '2+', '3+'}
    pct_complete_membrane : float or None
        Percent of cells with complete membrane staining, whatever its intensity.
    """

    case: str
    grade: str
    pct_complete_membrane: float | None


@dataclass(frozen=True)
class SlideTruth:
    """What a table says of a slide: its class, and the patient or case and the percentages where it says them too.

    Attributes
    ----------
    slide, label : str
    group : str or None
        Patient or case.
    percentages : tuple of float or None
        Of 0, 1+, 2+ and 3+ in the tumour.
    pct_complete_membrane : float or None
    """

    slide: str
    label: str
    group: str | None
    percentages: tuple[float, ...] | None = None
    pct_complete_membrane: float | None = None


def case_name(text: str) -> str:
    """A case as it is compared: without blanks around it, numbers without leading zeros."""
    name = text.strip().removesuffix(".0")
    return name.lstrip("0") or "0" if name.isascii() and name.isdigit() else name


def is_truth_table(path: Path) -> bool:
    """Whether a table is about cases and their scores rather than about slides."""
    columns = _columns(_read_table(path))
    return _first(columns, _SLIDE) is None and _first(columns, _CASE) is not None


def read_truth(path: str | Path) -> tuple[dict[str, CaseTruth], tuple[Finding, ...]]:
    """Read a ground-truth table with Warwick's columns.

    `CaseNo`, `HeR2 SCORE` and `PERCENTAGE CELLS WITH COMPLETE MEMBRANE STAINING IRRESPECTIVE OF INTENSITY`, in any
    case and spacing; the percentages may be missing. Scores are 0 to 3, with or without a plus.

    Parameters
    ----------
    path : str or pathlib.Path
        A CSV file (comma, semicolon or tab), or XLSX where openpyxl is installed.

    Returns
    -------
    truths : dict of str to CaseTruth
    findings : tuple of Finding
        Rows that cannot be used, cases that are there twice.

    Raises
    ------
    DatasetError
        The table cannot be read, or columns are missing.
    MissingExtra
        An XLSX file without openpyxl.
    """
    path = Path(path)
    table = _read_table(path)
    columns = _columns(table)
    case_column, score_column = _first(columns, _CASE), _first(columns, _SCORE)
    if case_column is None or score_column is None:
        raise DatasetError(f"{path}: the columns are {_named(table)}; needed are CaseNo and HeR2 SCORE")
    complete = next((column for key, column in columns.items() if key.startswith(_COMPLETE)), None)
    truths: dict[str, CaseTruth] = {}
    contradicted: set[str] = set()
    findings: list[Finding] = []
    for line, row in zip(range(2, len(table) + 2), table.to_dict("records"), strict=True):
        case, score = case_name(str(row[case_column])), str(row[score_column]).strip()
        grade = parse_grade(score)
        if not case and not score:
            continue
        if not case or grade is None:
            wrong = f"line {line}: case {case!r} with the score {score!r}; a score is 0, 1+, 2+ or 3+"
            findings.append(error("bad-row", path, wrong))
            continue
        percent = None
        if complete is not None and str(row[complete]).strip():
            percent = _percent(str(row[complete]))
            if percent is None:
                findings.append(
                    warning(
                        "bad-percentage",
                        path,
                        f"line {line}: {row[complete]!r} is no percentage; taken as unknown",
                    )
                )
        if case in truths and truths[case].grade != grade:
            contradicted.add(case)
            findings.append(error("duplicate-case", path, f"line {line}: case {case} has two scores; left out"))
        elif case in truths:
            findings.append(
                warning("duplicate-case", path, f"line {line}: case {case} is there twice, with one score")
            )
        else:
            truths[case] = CaseTruth(case, grade, percent)
    return {case: truth for case, truth in truths.items() if case not in contradicted}, tuple(findings)


def read_slide_labels(path: str | Path) -> tuple[dict[str, SlideTruth], tuple[Finding, ...]]:
    """Read a table of slides: `slide_id`, `label` (or `class`, `her2_score`) and, if known, `group` or `patient`.

    `pct_0`, `pct_1`, `pct_2`, `pct_3` and `pct_complete_membrane` are read where they are. Labels that mean a
    grade are written `0`, `1+`, `2+` or `3+`. Raises as `read_truth` does.
    """
    path = Path(path)
    table = _read_table(path)
    columns = _columns(table)
    slide_column, label_column = _first(columns, _SLIDE), _first(columns, _LABEL)
    group_column = _first(columns, _GROUP)
    if slide_column is None or label_column is None:
        raise DatasetError(f"{path}: the columns are {_named(table)}; needed are slide_id and label")
    shares = [_first(columns, (name,)) for name in _PERCENTAGES]
    complete_column = _first(columns, _SLIDE_COMPLETE)
    truths: dict[str, SlideTruth] = {}
    contradicted: set[str] = set()
    findings: list[Finding] = []
    for line, row in zip(range(2, len(table) + 2), table.to_dict("records"), strict=True):
        slide, label = str(row[slide_column]).strip(), str(row[label_column]).strip()
        if not label or not slide:
            if label or slide:
                findings.append(error("bad-row", path, f"line {line}: slide {slide!r} with the label {label!r}"))
            continue
        group = str(row[group_column]).strip() if group_column is not None else ""
        read = [None if column is None else _percent(str(row[column])) for column in shares]
        percentages = tuple(share for share in read if share is not None)
        complete = None if complete_column is None else _percent(str(row[complete_column]))
        truth = SlideTruth(
            slide,
            parse_grade(label) or label,
            case_name(group) or None,
            percentages if len(percentages) == len(_PERCENTAGES) else None,
            complete,
        )
        if slide in truths and truths[slide] != truth:
            contradicted.add(slide)
            findings.append(
                error("duplicate-slide", path, f"line {line}: slide {slide} is there twice, differently")
            )
        truths.setdefault(slide, truth)
    return {slide: truth for slide, truth in truths.items() if slide not in contradicted}, tuple(findings)


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such table")
    try:
        content = read_bounded(path, _MAX_BYTES)
        if path.suffix.lower() in (".xlsx", ".xlsm"):
            if find_spec("openpyxl") is None:
                raise MissingExtra(
                    f"{path}: reading XLSX needs openpyxl (pip install openpyxl); or save it as CSV"
                )
            table = pd.read_excel(io.BytesIO(content), dtype=str)
        else:
            text = content.decode("utf-8-sig")
            header = text.partition("\n")[0]
            separator = max(",;\t", key=header.count)
            # Before it is parsed: the parser makes room for the widest row in every row.
            if max((line.count(separator) for line in io.StringIO(text)), default=0) >= _MAX_COLUMNS:
                raise ValueError(f"more than {_MAX_COLUMNS:,} columns")
            table = pd.read_csv(io.StringIO(text, newline=""), dtype=str, sep=separator, skip_blank_lines=False)
        if len(table) > _MAX_ROWS:
            raise ValueError(f"more than {_MAX_ROWS:,} rows")
    except (OSError, ValueError, KeyError, OverflowError, BadZipFile) as failed:
        if isinstance(failed, MissingExtra):
            raise
        why = failed.strerror if isinstance(failed, OSError) and failed.strerror else shortened(failed)
        raise DatasetError(f"{path}: cannot be read as a table ({why}); save it as CSV in UTF-8") from failed
    return table.fillna("")


def _columns(table: pd.DataFrame) -> dict[str, str]:
    """The columns by their names in small letters with single blanks."""
    return {re.sub(r"[^a-z0-9]+", " ", str(column).lower()).strip(): column for column in table.columns}


def _named(table: pd.DataFrame) -> str:
    return shortened(", ".join(map(str, table.columns)))


def _first(columns: dict[str, str], names: Sequence[str]) -> str | None:
    return next((columns[name] for name in names if name in columns), None)


def _percent(text: str) -> float | None:
    try:
        value = float(text.strip().removesuffix("%").replace(",", "."))
    except ValueError:
        return None
    return value if 0 <= value <= 100 else None
