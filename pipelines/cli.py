"""The command line. Only what parsing needs is imported here: `--help` must answer at once."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from pipelines.commands.agreement import calibrate, evaluate
from pipelines.commands.machine import doctor
from pipelines.commands.models import models_app
from pipelines.commands.runs import export, report, view
from pipelines.commands.slides import demo, info, phantom, score, tissue
from pipelines.commands.training import study, train

app = typer.Typer(
    help="HER2 scoring of whole-slide images: a call of 0, 1+, 2+ or 3+ to check by eye. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = (score, demo, info, tissue, report, view, export, evaluate, calibrate, phantom, train, study, doctor)
"""In the order in which `--help` lists them."""

for command in _COMMANDS:
    app.command()(command)
app.add_typer(models_app, name="models")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More log lines on stderr.")] = False,
) -> None:
    if version:
        from pipelines.fingerprint import software_version

        typer.echo(software_version())
        raise typer.Exit
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
