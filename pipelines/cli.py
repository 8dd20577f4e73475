"""The command line. Only what parsing needs is imported here: `--help` must answer at once."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wsi_her2.scoring.result import SlideResult

EXIT_SOME_NOT_SCORED, EXIT_WRONG_INPUT, EXIT_INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help="HER2 scoring of whole-slide images: a call of 0, 1+, 2+ or 3+ to check by eye. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Classifiers of patches.", no_args_is_help=True)
app.add_typer(models_app, name="models")


class Modality(StrEnum):
    """Stains that a classifier can be for."""

    IHC = "ihc"
    HE = "he"


class Runtime(StrEnum):
    """What computes a network."""

    AUTO = "auto"
    TORCH = "torch"
    ONNX = "onnx"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """Of a network's numbers."""

    FP32 = "fp32"
    INT8 = "int8"


class Augmentation(StrEnum):
    """Orientations of a patch that are averaged: one, four, eight."""

    NONE = "none"
    FLIPS = "flips"
    TURNS = "turns"


class CellMode(StrEnum):
    """Where cells are counted."""

    SAMPLE = "sample"
    ALL = "all"
    NONE = "none"


class SamplingMode(StrEnum):
    """How many patches are scored."""

    FULL = "full"
    ADAPTIVE = "adaptive"


class RunExport(StrEnum):
    """What `export` writes; the keys of `pipelines.export.EXPORTS`."""

    REVIEWS = "reviews"
    TRUTH = "truth"
    REGIONS = "regions"
    PDF = "pdf"
    OME_TIFF = "ome-tiff"
    QUPATH = "qupath"
    SPATIALDATA = "spatialdata"


class ExportFormat(StrEnum):
    """Formats of other runtimes."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCHSCRIPT = "torchscript"


MppOption = Annotated[
    float | None, typer.Option("--mpp", help="Microns per level-0 pixel; overrides what the files say.")
]
ConfigOption = Annotated[
    str | None, typer.Option("--config", help="YAML file, or the name of a preset; see configs/default.yaml.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
SlideArgument = Annotated[str, typer.Argument(help="A slide file, or its URL.", show_default=False)]


@app.command()
def score(
    inputs: Annotated[
        # Text, because a path takes the two slashes of a URL for one.
        list[str],
        typer.Argument(help="Slide files, folders of slides, and URLs of both.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="Name of a classifier, a model bundle, or a file.")] = None,
    modality: Annotated[Modality | None, typer.Option(help="What the slides are stained with.")] = None,
    mpp: MppOption = None,
    roi: Annotated[
        list[Path] | None,
        typer.Option(help="GeoJSON of regions, named like its slide, or a folder of them; repeatable."),
    ] = None,
    lab: Annotated[
        str | None, typer.Option(help="Name or file of a laboratory profile that `calibrate` made.")
    ] = None,
    runtime: Annotated[
        Runtime | None, typer.Option(help="What computes a network; auto: the fastest on this machine.")
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of a network's numbers.")] = None,
    tta: Annotated[
        Augmentation | None, typer.Option(help="Average a network over 1, 4 or 8 orientations of a patch.")
    ] = None,
    cells: Annotated[
        CellMode | None, typer.Option(help="Count cells in a sample of the tumour, in all of it, or not.")
    ] = None,
    sampling: Annotated[
        SamplingMode | None,
        typer.Option(help="Score all patches, or an even sample until the call of all is sure to be the same."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; one per core by default.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address or file of a running Dask scheduler.")] = None,
    store_patches: Annotated[
        bool | None, typer.Option("--store-patches/--no-store-patches", help="Keep pixels in patches.zarr.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Score again what an earlier run has scored.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first slide that fails.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C: score slides as they appear in the folders.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score slides: a table, a report and a heatmap for each."""
    from pipelines.configuration import load_config
    from pipelines.run import score as run_score

    with _errors_explained():
        settings = load_config(
            config,
            {
                "model": model,
                "modality": modality.value if modality else None,
                "mpp": mpp,
                "lab": lab,
                "regions.files": [path.resolve() for path in roi] if roi else None,
                "runtime": runtime.value if runtime else None,
                "precision": precision.value if precision else None,
                "tta": tta.value if tta else None,
                "store_patches": store_patches,
                "cells.mode": cells.value if cells else None,
                "sampling.mode": sampling.value if sampling else None,
                "compute.workers": workers,
                "compute.scheduler": scheduler,
            },
        )
        with _ended_in_order():
            summary = run_score(inputs, output, settings, fresh=fresh, fail_fast=fail_fast, watch=watch)
    _print_results(list(summary.results), summary.output, as_json)
    if not summary.all_scored:
        raise typer.Exit(EXIT_SOME_NOT_SCORED)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for slides and results.")] = Path(
        "demo-out"
    ),
) -> None:
    """Make small slides, score them, print the table and where the report lies."""
    from pipelines.demo import run_demo

    with _errors_explained():
        summary, truths = run_demo(output)
    _print_results(list(summary.results), summary.output, as_json=False)
    typer.echo("\nTruth beside call (digital slides, drawn here; no patient's tissue):")
    calls = {result.slide_id: result.call for result in summary.results}
    for name, truth in truths.items():
        call = calls.get(name)
        called = call.score if call is not None else "refused"
        typer.echo(f"  {name:<16} truth {truth:<12} call {called}")
    typer.echo("Calls are often a class off while DAB is not on a laboratory's own scale: see docs/accuracy.md.")


@app.command()
def info(slide: SlideArgument, mpp: MppOption = None, as_json: JsonOption = False) -> None:
    """What a slide file is: backend, levels, microns per pixel and where that number came from."""
    from pipelines.slide_info import describe_slide

    with _errors_explained():
        described = describe_slide(slide, mpp)
    _print_mapping(described, as_json)


@app.command()
def tissue(
    slide: SlideArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write.", show_default=False)],
    mpp: MppOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where the tissue is: the mask over the overview, as PNG."""
    from pipelines.slide_info import draw_tissue

    with _errors_explained():
        described = draw_tissue(slide, output, mpp, config)
    _print_mapping(described, as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Output folder of a run.", show_default=False)],
    pdf: Annotated[bool, typer.Option("--pdf", help="Beside each report.html a report.pdf.")] = False,
) -> None:
    """Make reports, heatmaps, `slides.csv` and `index.html` again, with reviews, without scoring anything."""
    from pipelines.rebuild import rebuild_reports

    with _errors_explained():
        page, count = rebuild_reports(folder, pdf=pdf)
    typer.echo(f"{count} slides: {page}")


@app.command()
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

    with _errors_explained(), _ended_in_order():
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


@app.command()
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
    from pipelines.export import ExportOptions
    from pipelines.export import export as run_export

    with _errors_explained():
        exported = run_export(folder, what.value, output, ExportOptions(reviewer, consensus, probabilities))
    for note in exported.notes:
        typer.echo(f"wsi-her2: {note}", err=True)
    typer.echo(f"{exported.written}: {exported.path}")
    if exported.then:
        typer.echo(f"Next: {exported.then}")


@app.command()
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
    from pipelines.evaluate import described, evaluate_run

    with _errors_explained():
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


@app.command()
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
    with _errors_explained():
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

    from pipelines.calibrate_thresholds import calibrate_thresholds

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
    from pipelines.calibrate_lab import calibrate_lab

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


@app.command()
def phantom(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the slides.", show_default=False)],
    score: Annotated[list[str] | None, typer.Option(help="Repeat for more slides; all four by default.")] = None,
    fractions: Annotated[
        str | None, typer.Option(help="Instead of a score: shares of 0, 1+, 2+ and 3+ cells, as 0.5,0.3,0.2,0.")
    ] = None,
    width_mm: Annotated[float, typer.Option(min=0.05, max=60, help="Width of a slide.")] = 1.5,
    height_mm: Annotated[float, typer.Option(min=0.05, max=60, help="Height of a slide.")] = 1.5,
    mpp: Annotated[float, typer.Option(min=0.1, max=2, help="Microns per pixel.")] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds make equal slides.")] = 0,
    look: Annotated[str, typer.Option(help="Scanner and laboratory: random, nanozoomer, aperio, ...")] = "random",
    outline: Annotated[str, typer.Option(help="core, biopsy or resection.")] = "core",
    modality: Annotated[Modality, typer.Option(help="Stain.")] = Modality.IHC,
    tumour_share: Annotated[float, typer.Option(min=0.01, max=0.8, help="Share of tumour in the tissue.")] = 0.45,
    artefact: Annotated[list[str] | None, typer.Option(help="pen, dust, blur, fold, ...; repeatable.")] = None,
    cells: Annotated[str, typer.Option(help="Format of the table of cells: parquet or csv.")] = "parquet",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per core by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw digital slides whose truth is known to the cell, with the truth beside each."""
    from pipelines.phantoms import draw_slides

    with _errors_explained():
        drawn = draw_slides(
            output,
            scores=score or (),
            fractions=fractions,
            workers=workers,
            cell_format=cells,
            width_mm=width_mm,
            height_mm=height_mm,
            mpp=mpp,
            seed=seed,
            look=look,
            outline=outline,
            modality=modality.value,
            tumour_share=tumour_share,
            artefacts=tuple(artefact or ()),
        )
    if as_json:
        typer.echo(json.dumps(drawn, indent=2))
        return
    for slide in drawn:
        shares = ", ".join(f"{grade} {pct:.1f} %" for grade, pct in slide["percentages"].items())
        typer.echo(f"{slide['slide']}: {slide['score']} ({shares} of {slide['tumour_cells']} tumour cells)")


@app.command()
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
    from pipelines.train import train as run_train

    with _errors_explained():
        card = run_train(config, output, workers)
    shown = card if as_json else {key: value for key, value in card.items() if not isinstance(value, dict)}
    _print_mapping({"file": str(output), **shown}, as_json)


@app.command()
def study(
    config: Annotated[str, typer.Argument(help="Name of a preset, or a YAML file.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; one per core by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train and test every network of the publication's study; a run that was interrupted goes on."""
    from pipelines.study import run_study

    with _errors_explained():
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


@app.command()
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


BundleArgument = Annotated[
    Path, typer.Argument(help="Name of a bundled network, or folder of a model bundle.", show_default=False)
]
NewBundleOption = Annotated[Path, typer.Option("-o", "--output", help="Folder to make.", show_default=False)]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(help="Folder of images to quantise on and measure agreement on; digital phantoms by default."),
]


@models_app.command("list")
def models_list(
    folder: Annotated[Path | None, typer.Argument(help="Also the bundles in this folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bundled classifiers, and the bundles in a folder."""
    from pipelines.models import list_models

    with _errors_explained():
        rows = list_models(folder)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        state = "" if row["trained"] else "  not trained: no calls"
        typer.echo(f"{row['name']}  {row['modality']}  {', '.join(row['classes'])}{state}")


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="Name of a classifier, a model bundle, or a file.")],
    as_json: JsonOption = False,
) -> None:
    """The card of a classifier: classes, scale, what it was trained on, what was measured of it."""
    from pipelines.models import describe_model

    with _errors_explained():
        described = describe_model(name)
    _print_mapping(described, as_json)


@models_app.command("cards")
def models_cards(
    output: Annotated[Path, typer.Option("-o", "--output", help="Markdown to write.", show_default=False)],
    folder: Annotated[Path | None, typer.Argument(help="Also the bundles in this folder.")] = None,
) -> None:
    """The cards of all classifiers as one page."""
    from pipelines.model_cards import write_model_cards

    with _errors_explained():
        count = write_model_cards(output, folder)
    typer.echo(f"{count} classifiers: {output}")


@models_app.command("import-keras")
def models_import_keras(
    file: Annotated[Path, typer.Argument(help="Whole-model file of Keras (.h5).", show_default=False)],
    output: NewBundleOption,
    arch: Annotated[
        str | None, typer.Option(help="pruneff1 ... pruneff5 or ather2: what the file must be; read from it else.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the outputs in their order, as 0,1+,2+,3+.", show_default=False)
    ] = None,
    mpp: Annotated[float | None, typer.Option(min=0.05, max=20, help="um/px of the training images.")] = None,
    modality: Annotated[Modality, typer.Option(help="Stain of the training images.")] = Modality.IHC,
    trained_on: Annotated[
        str | None, typer.Option(help="The training data in words; without it no call is produced.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the bundle; the folder's by default.")] = None,
    int8: Annotated[bool, typer.Option("--int8/--no-int8", help="Also make a graph in int8.")] = True,
    calibration: CalibrationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a model bundle from a file that the published training scripts saved."""
    from pipelines.models import describe_model, import_keras

    with _errors_explained(), _at_work("importing, quantising, comparing with torch"):
        import_keras(
            file,
            output,
            arch=arch,
            classes=tuple(part.strip() for part in classes.split(",")) if classes else None,
            mpp=mpp,
            modality=modality.value,
            trained_on=trained_on,
            name=name,
            int8=int8,
            calibration=calibration,
        )
        described = describe_model(str(output))
    _print_mapping({"bundle": str(output), **described}, as_json)


@models_app.command("quantise")
def models_quantise(
    bundle: BundleArgument,
    output: NewBundleOption,
    calibration: CalibrationOption = None,
    as_json: JsonOption = False,
) -> None:
    """A copy of a bundle whose int8 graph is made on your own images."""
    from pipelines.models import describe_model, quantise

    with _errors_explained(), _at_work("quantising"):
        quantise(bundle, output, calibration)
        described = describe_model(str(output))
    _print_mapping({"bundle": str(output), **described}, as_json)


@models_app.command("export")
def models_export(
    bundle: BundleArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.", show_default=False)],
    form: Annotated[ExportFormat, typer.Option("--format", help="Of the file.")] = ExportFormat.ONNX,
    precision: Annotated[Precision, typer.Option(help="Of the numbers.")] = Precision.FP32,
    as_json: JsonOption = False,
) -> None:
    """A bundle's network for another runtime, preprocessing inside, checked after writing."""
    from wsi_her2.models.bundle import read_bundle
    from wsi_her2.models.export import export_bundle
    from wsi_her2.models.loading import bundle_path

    with _errors_explained(), _at_work("exporting"):
        source = bundle_path(bundle) or bundle
        exported = export_bundle(read_bundle(source), form.value, output, precision.value)
    described = {
        "files": [str(path) for path in exported.files],
        "max_difference": exported.max_difference,
    }
    _print_mapping(described, as_json)


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


@contextmanager
def _errors_explained() -> Iterator[None]:
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
def _ended_in_order() -> Iterator[None]:
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
def _at_work(doing: str) -> Iterator[None]:
    """A sign of life on stderr where a person is looking."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(doing):
        yield


def _print_results(results: list[SlideResult], output: Path, as_json: bool) -> None:
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


def _print_mapping(described: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    width = max(len(key) for key in described)
    for key, value in described.items():
        for index, line in enumerate(value if isinstance(value, list) else [value]):
            typer.echo(f"{key if index == 0 else '':<{width}}  {line}")


if __name__ == "__main__":
    main()
