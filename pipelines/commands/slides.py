"""Commands that take slides, or make them."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import ConfigOption, JsonOption, Modality, MppOption, Precision, SlideArgument
from pipelines.commands.terminal import (
    EXIT_SOME_NOT_SCORED,
    ended_in_order,
    errors_explained,
    print_mapping,
    print_results,
)


class Runtime(StrEnum):
    """What computes a network."""

    AUTO = "auto"
    TORCH = "torch"
    ONNX = "onnx"
    OPENVINO = "openvino"


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
    from pipelines.run.score import score as run_score

    with errors_explained():
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
        with ended_in_order():
            summary = run_score(inputs, output, settings, fresh=fresh, fail_fast=fail_fast, watch=watch)
    print_results(list(summary.results), summary.output, as_json)
    if not summary.all_scored:
        raise typer.Exit(EXIT_SOME_NOT_SCORED)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for slides and results.")] = Path(
        "demo-out"
    ),
) -> None:
    """Make small slides, score them, print the table and where the report lies."""
    from pipelines.demo import run_demo

    with errors_explained():
        summary, truths = run_demo(output)
    print_results(list(summary.results), summary.output, as_json=False)
    typer.echo("\nTruth beside call (digital slides, drawn here; no patient's tissue):")
    calls = {result.slide_id: result.call for result in summary.results}
    for name, truth in truths.items():
        call = calls.get(name)
        called = call.score if call is not None else "refused"
        typer.echo(f"  {name:<16} truth {truth:<12} call {called}")
    typer.echo(
        "Calls are often a class off while DAB is not on a laboratory's own scale: "
        "`wsi-her2 calibrate --controls` makes a profile of it."
    )


def info(slide: SlideArgument, mpp: MppOption = None, as_json: JsonOption = False) -> None:
    """What a slide file is: backend, levels, microns per pixel and where that number came from."""
    from pipelines.slide_info import describe_slide

    with errors_explained():
        described = describe_slide(slide, mpp)
    print_mapping(described, as_json)


def tissue(
    slide: SlideArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write.", show_default=False)],
    mpp: MppOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where the tissue is: the mask over the overview, as PNG."""
    from pipelines.slide_info import draw_tissue

    with errors_explained():
        described = draw_tissue(slide, output, mpp, config)
    print_mapping(described, as_json)


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

    with errors_explained():
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
