"""`ledger.csv`: what was tried on which slide, when, where and with what end; lines are only ever added."""

from __future__ import annotations

import csv
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pipelines.causes import cause_of, reason_of
from pipelines.claims import Claims
from pipelines.events import Event, SlideDone, SlideFailed, SlideStarted, StepRetried
from pipelines.results import cannot_write
from wsi_her2.reports.atomic import append_rows
from wsi_her2.reports.slide_table import guarded, unguarded

LEDGER_FILE = "ledger.csv"
LEDGER_COLUMNS = (
    *("time", "run", "slide_id", "path", "state", "attempt", "step", "cause", "reason", "worker", "seconds"),
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
        """Note slides, by identifier and path, that are to be scored. The caller holds the tables."""
        lines = [self._line(slide_id, path, "waiting") for slide_id, path in slides]
        append_rows(self._path, LEDGER_COLUMNS, lines)

    def note(self, event: Event) -> None:
        """Note what an event says of a slide's fate; most say nothing.

        Raises
        ------
        OutputError
            The line cannot be written.
        """
        line = self._line_of(event)
        if line is None:
            return
        try:
            with self._claims.tables():
                append_rows(self._path, LEDGER_COLUMNS, [line])
        except OSError as error:
            raise cannot_write(self._path.parent, error) from error

    def _line_of(self, event: Event) -> list[str] | None:
        slide = (event.task.slide_id, str(event.task.path))
        match event:
            case SlideStarted():
                return self._line(*slide, "started", event.attempt)
            case StepRetried():
                cause = cause_of(event.error)
                return self._line(
                    *slide, "retried", event.attempt, event.step, cause, reason_of(event.error), event.worker
                )
            case SlideDone():
                state = "reused" if event.reused else event.result.status
                reason = event.result.reason
                return self._line(
                    *slide, state, event.attempt, "", "", reason, event.worker, f"{event.seconds:.2f}"
                )
            case SlideFailed():
                said = (event.cause, reason_of(event.error), event.worker, f"{event.seconds:.2f}")
                return self._line(*slide, "failed", event.attempt, "", *said)
        return None

    def _line(
        self,
        slide_id: str,
        path: str,
        state: str,
        attempt: int | None = None,
        step: str = "",
        cause: str = "",
        reason: str = "",
        worker: str = "",
        seconds: str = "",
    ) -> list[str]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        tried = "" if attempt is None else str(attempt)
        return [
            *(now, self.run, guarded(slide_id), guarded(path), state, tried),
            *(step, cause, guarded(reason), guarded(worker), seconds),
        ]
