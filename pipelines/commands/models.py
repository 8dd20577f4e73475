"""Commands on classifiers of patches."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import JsonOption, Modality, Precision
from pipelines.commands.terminal import (
    at_work,
    errors_explained,
    print_mapping,
)

models_app = typer.Typer(help="Classifiers of patches.", no_args_is_help=True)


class ExportFormat(StrEnum):
    """Formats of other runtimes."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCHSCRIPT = "torchscript"


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

    with errors_explained():
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

    with errors_explained():
        described = describe_model(name)
    print_mapping(described, as_json)


@models_app.command("cards")
def models_cards(
    output: Annotated[Path, typer.Option("-o", "--output", help="Markdown to write.", show_default=False)],
    folder: Annotated[Path | None, typer.Argument(help="Also the bundles in this folder.")] = None,
) -> None:
    """The cards of all classifiers as one page."""
    from pipelines.model_cards import write_model_cards

    with errors_explained():
        count = write_model_cards(output, folder)
    typer.echo(f"{count} cards: {output}")


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

    with errors_explained(), at_work("importing, quantising, comparing with torch"):
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
    print_mapping({"bundle": str(output), **described}, as_json)


@models_app.command("quantise")
def models_quantise(
    bundle: BundleArgument,
    output: NewBundleOption,
    calibration: CalibrationOption = None,
    as_json: JsonOption = False,
) -> None:
    """A copy of a bundle whose int8 graph is made on your own images."""
    from pipelines.models import describe_model, quantise

    with errors_explained(), at_work("quantising"):
        quantise(bundle, output, calibration)
        described = describe_model(str(output))
    print_mapping({"bundle": str(output), **described}, as_json)


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

    with errors_explained(), at_work("exporting"):
        source = bundle_path(bundle) or bundle
        exported = export_bundle(read_bundle(source), form.value, output, precision.value)
    described = {
        "files": [str(path) for path in exported.files],
        "max_difference": exported.max_difference,
    }
    print_mapping(described, as_json)
