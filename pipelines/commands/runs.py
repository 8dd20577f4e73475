"""Commands that take the folder of a run: to look at it, to review it, to hand it on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.terminal import (
    ended_in_order,
    errors_explained,
)


class RunExport(StrEnum):
    """What `export` writes; the keys of `pipelines.exports.export.EXPORTS`."""

    REVIEWS = "reviews"
    TRUTH = "truth"
    REGIONS = "regions"
    PDF = "pdf"
    OME_TIFF = "ome-tiff"
    QUPATH = "qupath"
    SPATIALDATA = "spatialdata"


def report(
    folder: Annotated[Path, typer.Argument(help="Output folder of a run.", show_default=False)],
    pdf: Annotated[bool, typer.Option("--pdf", help="Beside each report.html a report.pdf.")] = False,
) -> None:
    """Make reports, heatmaps, `slides.csv` and `index.html` again, with reviews, without scoring anything."""
    from pipelines.exports.rebuild import rebuild_reports

    with errors_explained():
        page, count = rebuild_reports(folder, pdf=pdf)
    typer.echo(f"{count} slides: {page}")


def view(
    folder: Annotated[Path, typer.Argument(help="Output folder of a run.", show_default=False)],
    host: Annotated[
        str, typer.Option(help="Name or number to listen on; beyond this machine a token is asked for.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 0,
    token: Annotated[str | None, typer.Option(help="What a browser has to show; made up where needed.")] = None,
    slides: Annotated[
        Path | None, typer.Option(help="Folder in which slides lie that were moved since they were scored.")
    ] = None,
    reviewer: Annotated[str | None, typer.Option(help="Name that reviews carry; yours by default.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the pages in a browser.")] = True,
) -> None:
    """Look at a run's slides and review their calls in a browser, until Ctrl-C."""
    from pipelines.review.server import serve

    with errors_explained(), ended_in_order():
        serve(
            folder,
            host=host,
            port=port,
            token=token,
            slides=slides,
            reviewer=reviewer,
            open_browser=browser,
            say=typer.echo,
        )


def export(
    folder: Annotated[Path, typer.Argument(help="Output folder of a run.", show_default=False)],
    what: Annotated[
        RunExport,
        typer.Argument(
            help="reviews: a CSV of all. truth: a table for `evaluate` and `calibrate`, of the scores that were "
            "signed. regions: GeoJSON of the regions that were drawn, for `score --roi`. pdf: a report for each "
            "slide. ome-tiff: maps of the classes that lie over the slides. qupath: a script that loads the run "
            "into a project. spatialdata: patches and cells for Python.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File or folder to write.", show_default=False)],
    reviewer: Annotated[
        str | None, typer.Option(help="Only what this reviewer signed (reviews, truth) or drew (regions).")
    ] = None,
    consensus: Annotated[
        bool, typer.Option("--consensus", help="truth: only scores that most of a slide's reviewers gave.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="ome-tiff: beside the classes their probabilities.")
    ] = False,
) -> None:
    """Write what a run holds in a form that other programs take."""
    from pipelines.exports.export import ExportOptions
    from pipelines.exports.export import export as run_export

    with errors_explained():
        exported = run_export(folder, what.value, output, ExportOptions(reviewer, consensus, probabilities))
    for note in exported.notes:
        typer.echo(f"wsi-her2: {note}", err=True)
    typer.echo(f"{exported.written}: {exported.path}")
    if exported.then:
        typer.echo(f"Next: {exported.then}")
