"""Commands that hold calls against truths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import JsonOption, MppOption
from pipelines.commands.terminal import (
    errors_explained,
)


def evaluate(
    results: Annotated[
        Path, typer.Argument(help="Output folder of a run, or its slides.csv.", show_default=False)
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            help="Table (Warwick's columns, or slide_id and her2_score), or a folder of digital slides.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; `evaluation` in the run by default.")
    ] = None,
    points: Annotated[
        Path | None, typer.Option(help="CSV of 4 x 4 points: rows truth, columns call, 0 to 3+.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """How far the calls agree with a ground truth: figures with intervals, a table, a page."""
    from pipelines.agreement.evaluate import described, evaluate_run

    with errors_explained():
        evaluation = evaluate_run(results, truth, output, points)
    if as_json:
        typer.echo(json.dumps(described(evaluation), indent=2))
        return
    agreement = evaluation.agreement
    typer.echo(f"{agreement.slides} slides with a truth, {agreement.assessed} with a call")
    width = max(map(len, agreement.estimates))
    for name, estimate in agreement.estimates.items():
        if str(estimate) != "-":
            typer.echo(f"{name:<{width}}  {estimate}")
    typer.echo(f"Page: {evaluation.page}")


def calibrate(
    controls: Annotated[
        Path | None, typer.Option(help="Folder with folders 0, 1+, 2+ and 3+ of slides or images: a profile.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Instead: output folder of a run, to fit the borders of the rule on.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="The truth of that run, as `evaluate` takes it.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Keep the profile under this name, for `score --lab NAME`.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write: a profile, or a configuration.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Classifier that the profile is for.")] = None,
    mpp: MppOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a laboratory profile on controls, or borders on labelled slides; cross-validated."""
    with errors_explained():
        if (controls is None) == (results is None) or (results is None) != (truth is None):
            raise typer.BadParameter(
                "name --controls for a laboratory profile, or --results and --truth for borders"
            )
        if results is not None and truth is not None:
            _calibrate_borders(results, truth, output, as_json)
        elif controls is not None:
            _calibrate_lab(controls, name, output, model, mpp, as_json)


def _calibrate_borders(results: Path, truth: Path, output: Path | None, as_json: bool) -> None:
    from dataclasses import asdict

    from pipelines.agreement.calibrate_thresholds import calibrate_thresholds

    if output is None:
        raise typer.BadParameter("name the configuration to write with -o")
    fit, said = calibrate_thresholds(results, truth, output)
    if as_json:
        typer.echo(json.dumps({"file": str(output), **asdict(fit)}, indent=2))
        return
    typer.echo("\n".join(said))
    typer.echo(f"Configuration: {output} (score --config {output})")


def _calibrate_lab(
    controls: Path, name: str | None, output: Path | None, model: str | None, mpp: float | None, as_json: bool
) -> None:
    from pipelines.agreement.calibrate_lab import calibrate_lab

    path, profile, table = calibrate_lab(controls, name, output, model, mpp)
    if as_json:
        typer.echo(json.dumps({"file": str(path), "profile": profile.model_dump(), "controls": table}, indent=2))
        return
    for row in table:
        typer.echo(
            f"{row['control']}: is {row['score']}; uncalibrated {row['uncalibrated']}, with the profile "
            f"{row['calibrated']}, with one fitted on the other controls {row['held_out']}"
        )
    for said in profile.statements.values():
        typer.echo(said)
    typer.echo(f"Profile: {path} (score --lab {profile.name if name and not output else path})")
