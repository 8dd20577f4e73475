"""`index.html`: all slides of a run on one page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from wsi_her2.reports.pages import write_page
from wsi_her2.reports.palette import colour_of, hex_of, text_on
from wsi_her2.scoring.result import SlideResult

_STATUS_WORDS = {"not_assessable": "not assessable", "failed": "failed"}
_LABELS = ("0", "1+", "2+", "3+", "negative", "positive", "not assessable", "failed")
_NEUTRAL = ("#e4e8ec", "#16212c")


def write_run_page(path: Path, rows: Iterable[SlideResult], run: Mapping[str, Any]) -> None:
    """Write the page of a run.

    It links to `<slide_id>/report.html` and shows `<slide_id>/heatmap.png` beside it, each only where that file
    lies there already, so that no link leads nowhere; write the page after the slides' files. Tables of thousands
    of slides are shown page by page; without JavaScript all rows stand there, in the order given.

    Parameters
    ----------
    path : pathlib.Path
        In the folder that holds the slides' folders.
    rows : iterable of SlideResult
        Read once; only what the table shows is kept.
    run : mapping
        What is known of the run, as in `run.json`. Plain values become rows of a table, nested ones are shown as
        JSON.
    """
    entries = [_entry(result, path.parent) for result in rows]
    counts = Counter(entry["label"] for entry in entries)
    context = {
        "entries": entries,
        "total": len(entries),
        "counts": [(label, counts[label], *_colours(label)) for label in _LABELS if counts[label]],
        "uncalibrated": sum(entry["uncalibrated"] for entry in entries),
        "run": [(str(key), _shown(value)) for key, value in run.items()],
    }
    # Pictures lie beside the page; browsers differ in whether 'self' covers files, so both are named.
    write_page(path, "run.html.j2", "run.js", context, images="'self' file:")


def _entry(result: SlideResult, folder: Path) -> dict[str, Any]:
    call = result.call
    label = (call.score or call.group) if call else _STATUS_WORDS.get(result.status, result.status)
    # Non-Unicode file names survive in a URL byte by byte.
    base = quote(result.slide_id, safe="", errors="surrogateescape")
    percentages = call.percentages if call else {}
    background, ink = _colours(label)
    return {
        "id": result.slide_id,
        "path": result.path,
        "label": label,
        "background": background,
        "ink": ink,
        "rank": _LABELS.index(label) if label in _LABELS else len(_LABELS),
        "group": call.group if call else "",
        "confidence": f"{100 * call.confidence:.0f} %" if call else "",
        "h_score": "" if call is None or call.h_score is None else f"{call.h_score:.0f}",
        "shares": [f"{percentages[name]:.1f}" if name in percentages else "" for name in ("0", "1+", "2+", "3+")],
        "tumour": str(result.tumour_patches) if result.status != "failed" else "",
        "reason": result.reason or _review(result),
        "uncalibrated": call is not None and result.calibration == "none",
        "report": f"{base}/report.html" if _lies_in(folder, result.slide_id, "report.html") else "",
        "heatmap": f"{base}/heatmap.png" if _lies_in(folder, result.slide_id, "heatmap.png") else "",
    }


def _review(result: SlideResult) -> str:
    second = result.second_opinion
    return f"Needs review. {second.explanation}." if second is not None and second.review else ""


def _lies_in(folder: Path, slide_id: str, name: str) -> bool:
    if slide_id in ("", ".", "..") or "/" in slide_id or "\\" in slide_id:
        return False
    try:
        return (folder / slide_id / name).is_file()
    except (OSError, ValueError):
        # A name that no file can have (too long, or with a null) has no file.
        return False


def _colours(label: str) -> tuple[str, str]:
    return _NEUTRAL if label in _STATUS_WORDS.values() else (hex_of(label), text_on(colour_of(label)))


def _shown(value: object) -> str:
    if isinstance(value, bool | int | float | str) or value is None:
        return str(value)
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)
