"""`index.html`: all slides of a run on one page, which holds for ten thousand and more."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, tee
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from wsi_her2.reports.outliers import Outliers, OutlierSearch
from wsi_her2.reports.pages import write_page
from wsi_her2.reports.palette import colour_of, hex_of, text_on
from wsi_her2.reports.reading_ahead import read_ahead
from wsi_her2.reports.run_figures import CONFIDENCE_EDGES, LABELS, Cause, RunFigures, label_of
from wsi_her2.reports.slide_table import SlideRow

PER_PAGE = 50
"""Slides that the page shows at a time, and that stand there without JavaScript."""

FEW = 200
"""Up to so many slides all stand there without JavaScript, and maps, each of megabytes, are shown unasked."""

_MOST_CAUSES = 40
_STATUS_LABELS = ("not assessable", "failed")
_NEUTRAL = ("#e4e8ec", "#16212c")
_TABLE = "slides.csv"


@dataclass(frozen=True)
class _Column:
    """A column of the table: name in the data and in the page's address, heading, and how it is compared."""

    name: str
    heading: str
    kind: str
    title: str = ""


_COLUMNS = (
    _Column("slide", "Slide", "text"),
    _Column("result", "Result", "rank"),
    _Column("review", "Review", "most", "Two ways of calling the slide disagree: somebody must look"),
    _Column("confidence", "Confidence", "number", "Share of resamples of the tissue with the same score"),
    _Column("h_score", "H\N{NON-BREAKING HYPHEN}score", "number", "0 to 300"),
    _Column("pct_0", "%\N{NO-BREAK SPACE}0", "number"),
    _Column("pct_1", "%\N{NO-BREAK SPACE}1+", "number"),
    _Column("pct_2", "%\N{NO-BREAK SPACE}2+", "number"),
    _Column("pct_3", "%\N{NO-BREAK SPACE}3+", "number"),
    _Column("complete", "% complete", "number", "Counted tumour cells with complete membrane staining"),
    _Column("tumour", "Tumour patches", "number"),
    _Column("tissue", "Tissue mm²", "number"),
)
_DATA = (
    *(column.name for column in _COLUMNS),
    "path",
    "group",
    "reason",
    "disagreement",
    "causes",
    "report",
    "heatmap",
)
"""What the data holds of a slide, in order."""

_SPANNED = 8
"""Columns in which a slide without a call has nothing but the reason: from `review` to `complete`."""


def write_run_page(path: Path, rows: Iterable[SlideRow], run: Mapping[str, Any]) -> None:
    """Write the page of a run.

    It links to `<slide_id>/report.html` and shows `<slide_id>/heatmap.png` beside it, each only where that file
    lies there already, so that no link leads nowhere; write the page after the slides' files. The table is shown
    page by page from data that the page carries. Without JavaScript its first page stands there, or all of it
    where it has at most `FEW` rows.

    Parameters
    ----------
    path : pathlib.Path
        In the folder that holds the slides' folders.
    rows : iterable of SlideRow
        In the order in which they are first shown. Read once; only what the page shows is kept, as text.
    run : mapping
        What is known of the run, as in `run.json`. Plain values become rows of a table, nested ones are shown as
        JSON.
    """
    figures, search = RunFigures(), OutlierSearch()
    plain: list[dict[str, Any]] = []
    lines: list[str] = []
    for row, files in _with_files(rows, path.parent):
        values = _values(row, figures.add(row), files)
        search.add(row)
        lines.append(_as_json(values))
        if len(plain) < FEW:
            plain.append(dict(zip(_DATA, values, strict=True)))
    if len(lines) > FEW:
        del plain[PER_PAGE:]
    outliers = search.found()
    unscored = [(label, figures.labels[label]) for label in _STATUS_LABELS if figures.labels[label]]
    context = {
        "columns": _COLUMNS,
        "labels": LABELS,
        "colours": {label: _colours(label) for label in LABELS},
        "plain": plain,
        "maps": len(lines) <= FEW,
        "spanned": _SPANNED,
        "figures": figures,
        "scored": figures.slides - sum(count for _, count in unscored),
        "unscored": unscored,
        "calls": _bars([(label, figures.labels[label], {"result": label}) for label in LABELS]),
        "confidences": _bars(_confidences(figures)),
        "causes": _causes(figures.causes),
        "outliers": [(found, _address({"outlier": found.key})) for found in outliers],
        "data": _data(figures.causes, outliers, lines, maps=len(lines) <= FEW),
        "table": _TABLE if path.with_name(_TABLE).is_file() else "",
        "run": [(str(key), _shown(value)) for key, value in run.items()],
        "whole": _whole,
        "tenths": _tenths,
    }
    # Pictures lie beside the page; browsers differ in whether 'self' covers files, so both are named.
    write_page(path, "run.html.j2", "run.js", context, images="'self' file:")


def _values(row: SlideRow, causes: tuple[int, ...], files: frozenset[str]) -> tuple[Any, ...]:
    """A slide in the order of `_DATA`, rounded as it is shown, so that what looks equal sorts as equal."""
    label = label_of(row)
    # Names that are not valid Unicode survive in a URL byte by byte.
    base = quote(row.slide_id, safe="", errors="surrogateescape")
    return (
        row.slide_id,
        LABELS.index(label) if label in LABELS else len(LABELS),
        1 if row.review else 0,
        _rounded(row.confidence, 3),
        _rounded(row.h_score, 0),
        *(_rounded(pct, 1) for pct in (row.pct_0, row.pct_1, row.pct_2, row.pct_3)),
        _rounded(row.pct_complete_membrane, 1),
        row.tumour_patches,
        _rounded(row.tissue_mm2, 1),
        row.path,
        row.her2_group if row.her2_group and row.her2_group != label else "",
        row.reason,
        row.disagreement,
        causes,
        f"{base}/report.html" if "report.html" in files else "",
        f"{base}/heatmap.png" if "heatmap.png" in files else "",
    )


def _with_files(rows: Iterable[SlideRow], folder: Path) -> Iterator[tuple[SlideRow, frozenset[str]]]:
    """Each row and the names of the files in its slide's folder."""
    first, second = tee(rows)
    return zip(first, read_ahead(lambda row: _files_of(folder, row.slide_id), second), strict=True)


def _files_of(folder: Path, slide_id: str) -> frozenset[str]:
    if slide_id in ("", ".", "..") or "/" in slide_id or "\\" in slide_id:
        return frozenset()
    try:
        return frozenset(file.name for file in (folder / slide_id).iterdir())
    except (OSError, ValueError):
        # A name that no folder can have (too long, or with a null) has no files.
        return frozenset()


def _data(causes: list[Cause], outliers: list[Outliers], lines: list[str], *, maps: bool) -> Iterator[Any]:
    """The page's data as JSON, in parts that the template puts out as they are."""
    from markupsafe import Markup

    colours = [_colours(label) for label in LABELS]
    head = {"columns": _DATA, "labels": LABELS, "colours": colours, "maps": maps, "spanned": _SPANNED}
    yield Markup(f'{_as_json(head)[:-1]},"causes":{_as_json([(c.key, c.text) for c in causes])},')
    yield Markup(f'"outliers":{_as_json([(o.key, o.text, o.slides) for o in outliers])},"rows":[\n')
    for number, line in enumerate(lines):
        yield Markup(f"{',' if number else ''}{line}\n")
    yield Markup("]}")


def _as_json(value: object) -> str:
    """JSON that may stand in a script element: nothing in it can close the element or open a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _confidences(figures: RunFigures) -> Iterator[tuple[str, int, dict[str, str]]]:
    for place, (low, high) in enumerate(pairwise(CONFIDENCE_EDGES)):
        words = f"{100 * low:.0f} to {100 * high:.0f} %" if place else f"under {100 * high:.0f} %"
        yield words, figures.confidences[place], {"confidence": f"{low:g}-{high:g}"}


def _bars(counts: Iterable[tuple[str, int, dict[str, str]]]) -> list[dict[str, Any]]:
    found = [(label, count, wanted) for label, count, wanted in counts if count]
    total, most = sum(count for _, count, _ in found), max((count for _, count, _ in found), default=1)
    return [
        {
            "label": label,
            "count": count,
            "share": f"{100 * count / total:.1f} %",
            "length": round(100 * count / most, 1),
            "address": _address(wanted),
        }
        for label, count, wanted in found
    ]


def _causes(causes: list[Cause]) -> dict[str, Any]:
    ranked = sorted(causes, key=lambda cause: -cause.count)
    shown = [(cause, _address({"cause": cause.key})) for cause in ranked[:_MOST_CAUSES]]
    return {"shown": shown, "more": len(causes) - len(shown)}


def _address(wanted: Mapping[str, str]) -> str:
    return f"#{urlencode(wanted)}"


def _colours(label: str) -> tuple[str, str]:
    return _NEUTRAL if label in _STATUS_LABELS else (hex_of(label), text_on(colour_of(label)))


def _rounded(value: float | None, decimals: int) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(value, decimals) if decimals else round(value)


def _whole(value: float | None) -> str:
    # As the page's script rounds, so that it changes nothing that stood there before.
    return "" if value is None else str(math.floor(value + 0.5))


def _tenths(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _shown(value: object) -> str:
    if isinstance(value, bool | int | float | str) or value is None:
        return str(value)
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)
