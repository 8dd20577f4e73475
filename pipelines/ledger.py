"""The record of a run: rows of `slides.csv` as slides finish, `run.json`, and the page over all results."""

from __future__ import annotations

import csv
import json
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import psutil

from pipelines.fingerprint import software_version
from pipelines.results import read_results, write_json
from wsi_her2.errors import OutputError
from wsi_her2.reports.run_page import write_run_page
from wsi_her2.reports.slide_table import SLIDE_COLUMNS, SlideRow, slide_row, write_slides_csv
from wsi_her2.scoring.result import SlideResult

SLIDES_FILE, RUN_FILE, PAGE_FILE = "slides.csv", "run.json", "index.html"


def describe_machine() -> dict[str, Any]:
    """The machine as `run.json` records it."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


@dataclass
class Ledger:
    """Writes `slides.csv` and `run.json` while a run goes on; a context manager.

    While it goes on `slides.csv` has a row per slide in the order in which they finish, so that nothing is lost
    when it is interrupted. At the end it is written anew from all results in the folder, in the order of their
    identifiers, so that it does not depend on which worker was faster.
    """

    output: Path
    run: dict[str, Any] = field(default_factory=dict)
    _rows: TextIO | None = None
    _added: dict[str, SlideResult] = field(default_factory=dict)

    def __enter__(self) -> Ledger:
        try:
            self._rows = (self.output / SLIDES_FILE).open("w", newline="", encoding="utf-8")
            csv.writer(self._rows).writerow(SLIDE_COLUMNS)
            self._rows.flush()
            self._write_run("running")
        except OSError as error:
            raise _cannot_write(self.output, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rows is not None:
            self._rows.close()
        try:
            self._write_run("finished" if kind is None else "interrupted")
            write_summaries(self.output, self._added.values())
        except OSError as cause:
            if kind is None:
                raise _cannot_write(self.output, cause) from cause

    def add(self, result: SlideResult) -> None:
        """Write the row of a slide that has just finished."""
        if self._rows is None:
            raise RuntimeError("the ledger is not open")
        self._added[result.slide_id] = result
        row = slide_row(result)
        try:
            csv.writer(self._rows).writerow([row[column] for column in SLIDE_COLUMNS])
            self._rows.flush()
        except OSError as error:
            raise _cannot_write(self.output, error) from error

    def _write_run(self, state: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.run.setdefault("started", now)
        self.run.update(state=state, **({} if state == "running" else {"ended": now}))
        write_json(self.output / RUN_FILE, self.run)


def earlier_model(output: Path) -> dict[str, Any] | None:
    """The model that an earlier run into a folder used; None where there was none."""
    try:
        model = json.loads((output / RUN_FILE).read_bytes()).get("model")
    except (OSError, ValueError, AttributeError):
        return None
    return model if isinstance(model, dict) else None


def describe_run(
    argv: Sequence[str], config: dict[str, Any], model: dict[str, Any], workers: int
) -> dict[str, Any]:
    """What `run.json` says besides its times."""
    return {
        "version": software_version(),
        "argv": list(argv),
        "config": config,
        "model": model,
        "workers": workers,
        "machine": describe_machine(),
    }


def write_summaries(output: Path, newest: Iterable[SlideResult] = ()) -> int:
    """Write `slides.csv` and `index.html` from all results in a folder.

    Parameters
    ----------
    output : pathlib.Path
    newest : iterable of SlideResult, optional
        Results that stand whether or not the folder could hold them, as when the disk is full.

    Returns
    -------
    int
        How many slides they list, in the order of their identifiers.
    """
    by_slide = {result.slide_id: SlideRow.of(result) for result in chain(read_results(output), newest)}
    rows = [by_slide[slide_id] for slide_id in sorted(by_slide)]
    write_slides_csv(output / SLIDES_FILE, rows)
    write_run_page(output / PAGE_FILE, rows, {"version": software_version()})
    return len(rows)


def _cannot_write(output: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{output}: the results cannot be written ({error.strerror or error}). Finished slides are kept: free "
        "space, then run the same command again."
    )


def command_line() -> list[str]:
    """The command as it was given."""
    return list(sys.argv)
