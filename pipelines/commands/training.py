"""Commands that fit classifiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import JsonOption
from pipelines.commands.terminal import (
    errors_explained,
    print_mapping,
)


def train(
    config: Annotated[str, typer.Argument(help="Name of a preset, or a YAML file.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="File (membrane) or folder (network) to write.", show_default=False),
    ],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that draw, threads that train; one per core by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a classifier as a configuration says. A network's training that was interrupted goes on."""
    from pipelines.training.train import train as run_train

    with errors_explained():
        card = run_train(config, output, workers)
    shown = card if as_json else {key: value for key, value in card.items() if not isinstance(value, dict)}
    print_mapping({"file": str(output), **shown}, as_json)


def study(
    config: Annotated[str, typer.Argument(help="Name of a preset, or a YAML file.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; one per core by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train and test every network of the publication's study; a run that was interrupted goes on."""
    from pipelines.training.study import run_study

    with errors_explained():
        results = run_study(config, output, workers)
    if as_json:
        typer.echo(json.dumps(results, indent=2))
        return
    for result in results:
        figures = [
            f"{part} {result[part]['metrics']['accuracy'][0]:.3f}" for part in ("test", "external") if result[part]
        ]
        typer.echo(f"{result['name']}: accuracy {', '.join(figures)}")
    typer.echo(f"Report: {output / 'report.html'}")
