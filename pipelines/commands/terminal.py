"""What commands say: tables, errors with what to do, a sign of life."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from wsi_her2.scoring.result import SlideResult

EXIT_SOME_NOT_SCORED, EXIT_WRONG_INPUT, EXIT_INTERRUPTED = 1, 2, 130


@contextmanager
def errors_explained() -> Iterator[None]:
    """Turn what this package raises into a line on stderr and an exit code; anything else is a bug and shows."""
    from wsi_her2.errors import HER2Error

    try:
        yield
    except HER2Error as error:
        typer.echo(f"wsi-her2: {error}", err=True)
        raise typer.Exit(EXIT_WRONG_INPUT) from error
    except KeyboardInterrupt as error:
        typer.echo(
            "wsi-her2: interrupted. Finished slides and blocks are kept; the same command continues.", err=True
        )
        raise typer.Exit(EXIT_INTERRUPTED) from error


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Take SIGTERM, with which schedulers of clusters and services end a program, for Ctrl-C."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


@contextmanager
def at_work(doing: str) -> Iterator[None]:
    """A sign of life on stderr where a person is looking."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(doing):
        yield


def print_results(results: list[SlideResult], output: Path, as_json: bool) -> None:
    """The table of a run on stdout, and where its files lie; as JSON the rows of `slides.csv`."""
    from wsi_her2.reports.slide_table import slide_row

    rows = [slide_row(result) for result in results]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("slide", "call", "group", "sure", "0 %", "1+ %", "2+ %", "3+ %", "H-score"):
        table.add_column(
            heading,
            justify="left" if heading in ("slide", "group") else "right",
            no_wrap=heading != "slide",
            overflow="fold",
        )
    for result, row in zip(results, rows, strict=True):
        if result.status == "scored":
            shown = [result.slide_id, row["her2_score"], row["her2_group"], row["confidence"]]
            call = result.call
            percentages = (
                [call.percentages.get(grade) for grade in ("0", "1+", "2+", "3+")] if call else [None] * 4
            )
            shown += [_one_decimal(pct) for pct in (*percentages, call.h_score if call else None)]
            table.add_row(*(Text(cell) for cell in shown))
    if table.rows:
        console.print(table)
    if any(result.status == "scored" and result.calibration == "none" for result in results):
        typer.echo("Uncalibrated: the cut-offs are not this laboratory's, so compare slides by their H-score.")
    for result in results:
        if result.status != "scored":
            typer.echo(f"{result.slide_id}: {result.status.replace('_', ' ')}: {result.reason}")
    typer.echo(f"Table:  {output / 'slides.csv'}")
    typer.echo(f"Report: {output / 'index.html'}")
    typer.echo("Research use only.")


def _one_decimal(number: float | None) -> str:
    return "" if number is None else f"{number:.1f}"


def print_mapping(described: dict[str, Any], as_json: bool) -> None:
    """Names and values in two columns on stdout, or as JSON."""
    if as_json:
        typer.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    width = max(len(key) for key in described)
    for key, value in described.items():
        for index, line in enumerate(value if isinstance(value, list) else [value]):
            typer.echo(f"{key if index == 0 else '':<{width}}  {line}")
