"""The record of a run: rows of `slides.csv` as slides finish, `run.json`, and the page over all results."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from pydantic import ValidationError

from pipelines.configuration import RunConfig
from pipelines.fingerprint import software_version
from pipelines.results import add_rows, cannot_write, read_results, write_json
from pipelines.slide_claims import Claims
from wsi_her2.bounded_file import read_bounded
from wsi_her2.reports.run_page import write_run_page
from wsi_her2.reports.slide_table import SLIDE_COLUMNS, SlideRow, write_slides_csv
from wsi_her2.scoring.result import SlideResult

SLIDES_FILE, RUN_FILE, PAGE_FILE = "slides.csv", "run.json", "index.html"

_MAX_RUN_FILE_BYTES = 4_000_000
"""Of `run.json`, which names the inputs of a run and may be somebody else's."""


def describe_machine() -> dict[str, Any]:
    """The machine as `run.json` records it."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


@dataclass
class Record:
    """Writes `slides.csv` and `run.json` while a run goes on; a context manager.

    While it goes on, `slides.csv` has a row for each slide that has a result, in the order in which they finish.
    At the end it is written anew from all results in the folder, in the order of their identifiers, so that it
    does not depend on which worker was faster.
    """

    output: Path
    claims: Claims
    run: dict[str, Any] = field(default_factory=dict)
    _added: dict[str, SlideRow] = field(default_factory=dict)
    _refreshed_at: int = 0

    def __enter__(self) -> Record:
        try:
            self._write_run("running")
            self.refresh()
        except OSError as error:
            raise cannot_write(self.output, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._write_run("finished" if kind is None else "interrupted")
            self.refresh()
        except OSError as cause:
            if kind is None:
                raise cannot_write(self.output, cause) from cause

    def add(self, result: SlideResult) -> None:
        """Write the row of a slide that has just finished."""
        row = self._added[result.slide_id] = SlideRow.of(result)
        with self.claims.tables():
            add_rows(self.output / SLIDES_FILE, SLIDE_COLUMNS, [list(row.texts().values())])

    @property
    def is_behind(self) -> bool:
        """Whether slides have finished since `index.html` was written."""
        return len(self._added) != self._refreshed_at

    def refresh(self) -> None:
        """Write `slides.csv` and `index.html` from all results in the folder."""
        self._refreshed_at = len(self._added)
        with self.claims.tables():
            write_summaries(self.output, self._added.values())

    def _write_run(self, state: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.run.setdefault("started", now)
        self.run.update(state=state, **({} if state == "running" else {"ended": now}))
        write_json(self.output / RUN_FILE, self.run)


def earlier_model(output: Path) -> dict[str, Any] | None:
    """The model that an earlier run into a folder used; None where there was none."""
    model = _recorded(output).get("model")
    return model if isinstance(model, dict) else None


def run_state(output: Path) -> str:
    """'running', 'finished' or 'interrupted', as the newest run into a folder says; '' where it does not."""
    return str(_recorded(output).get("state", ""))


def run_config(output: Path) -> RunConfig:
    """Settings of the newest run into a folder; the defaults where it does not say."""
    try:
        return RunConfig.model_validate(_recorded(output)["config"])
    except (KeyError, ValidationError):
        return RunConfig()


def _recorded(output: Path) -> dict[str, Any]:
    try:
        recorded = json.loads(read_bounded(output / RUN_FILE, _MAX_RUN_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def describe_run(argv: Sequence[str], config: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """What `run.json` says besides its times and the number of workers."""
    return {
        "version": software_version(),
        "argv": list(argv),
        "config": config,
        "model": model,
        "scheduler": config["compute"]["scheduler"] or "local",
        "machine": describe_machine(),
    }


def write_summaries(output: Path, newest: Iterable[SlideRow] = ()) -> int:
    """Write `slides.csv` and `index.html` from all results in a folder.

    Parameters
    ----------
    output : pathlib.Path
    newest : iterable of SlideRow, optional
        Rows that stand whether or not the folder could hold their results, as when the disk is full.

    Returns
    -------
    int
        How many slides they list, in the order of their identifiers.
    """
    by_slide = {row.slide_id: row for row in chain(map(SlideRow.of, read_results(output)), newest)}
    rows = [by_slide[slide_id] for slide_id in sorted(by_slide)]
    write_slides_csv(output / SLIDES_FILE, rows)
    write_run_page(output / PAGE_FILE, rows, {"version": software_version()})
    return len(rows)


def command_line() -> list[str]:
    """The command as it was given."""
    return list(sys.argv)
