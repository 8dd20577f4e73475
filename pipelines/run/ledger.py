"""`ledger.csv`: what was tried on which slide, when, where and with what end; lines are only ever added."""

from __future__ import annotations

import csv
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pipelines.results import add_rows
from pipelines.scheduling.causes import cause_of, reason_of
from pipelines.scheduling.events import Event, SlideDone, SlideFailed, SlideStarted, StepRetried
from pipelines.slide_claims import Claims
from wsi_her2.reports.slide_table import guarded, unguarded

LEDGER_FILE = "ledger.csv"
LEDGER_COLUMNS = (
    *("time", "run", "slide_id", "path", "state"),
    *("attempt", "step", "cause", "reason", "worker", "seconds"),
)
"""`state` is waiting, started, retried, reused, scored, not_assessable or failed; a slide stands where its last
line says. A `started` that nothing follows was cut off with its run."""


class Ledger:
    """The ledger of an output folder, as one run writes to it.

    Parameters
    ----------
    output : pathlib.Path
    claims : Claims
        Of the folder: several runs may write at once.
    """

    def __init__(self, output: Path, claims: Claims) -> None:
        self.run = secrets.token_hex(4)
        self._path = output / LEDGER_FILE
        self._claims = claims

    def names(self) -> dict[str, str]:
        """Path of each slide by its identifier, as runs into this folder have given them out."""
        try:
            with self._path.open(newline="", encoding="utf-8", errors="replace") as stream:
                return {
                    unguarded(row["slide_id"]): unguarded(row["path"])
                    for row in csv.DictReader(stream)
                    if row.get("slide_id") and row.get("path")
                }
        except FileNotFoundError:
            return {}

    def wait(self, slides: Iterable[tuple[str, str]]) -> None:
        """Note slides, by identifier and path, that are to be scored. The caller holds the tables.

        Raises
        ------
        OutputError
            The lines cannot be written.
        """
        add_rows(self._path, LEDGER_COLUMNS, [self._line(*slide, "waiting", {}) for slide in slides])

    def note(self, event: Event) -> None:
        """Note what an event says of a slide's fate; most say nothing.

        Raises
        ------
        OutputError
            The line cannot be written.
        """
        line = self._line_of(event)
        if line is not None:
            with self._claims.tables():
                add_rows(self._path, LEDGER_COLUMNS, [line])

    def _line_of(self, event: Event) -> list[str] | None:
        said: dict[str, object]
        match event:
            case SlideStarted():
                state, said = "started", {"attempt": event.attempt}
            case StepRetried():
                state, said = "retried", {"attempt": event.attempt, "step": event.step, "worker": event.worker}
                said |= {"cause": cause_of(event.error), "reason": reason_of(event.error)}
            case SlideDone(result=result):
                state = "reused" if event.reused else result.status
                said = {**_end(event), "reason": result.reason}
            case SlideFailed():
                state, said = "failed", {**_end(event), "cause": event.cause, "reason": reason_of(event.error)}
            case _:
                return None
        return self._line(event.task.slide_id, str(event.task.path), state, said)

    def _line(self, slide_id: str, path: str, state: str, said: Mapping[str, object]) -> list[str]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        known = {"time": now, "run": self.run, "slide_id": slide_id, "path": path, "state": state, **said}
        return [guarded(str(known.get(column, ""))) for column in LEDGER_COLUMNS]


def _end(event: SlideDone | SlideFailed) -> dict[str, object]:
    return {"attempt": event.attempt, "worker": event.worker, "seconds": f"{event.seconds:.2f}"}
