"""Commands on the machine itself."""

from __future__ import annotations

import json

import typer

from pipelines.commands.options import JsonOption
from pipelines.commands.terminal import (
    EXIT_SOME_NOT_SCORED,
)


def doctor(as_json: JsonOption = False) -> None:
    """What works on this machine, what does not, and the line that installs it."""
    from pipelines.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            typer.echo(f"{finding.state:<8} {finding.subject:<{width}}  {finding.detail}")
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(EXIT_SOME_NOT_SCORED)
