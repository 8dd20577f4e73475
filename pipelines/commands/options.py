"""Options and choices that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Modality(StrEnum):
    """Stains that a classifier can be for."""

    IHC = "ihc"
    HE = "he"


class Precision(StrEnum):
    """Of a network's numbers."""

    FP32 = "fp32"
    INT8 = "int8"


MppOption = Annotated[
    float | None, typer.Option("--mpp", help="Microns per level-0 pixel; overrides what the files say.")
]
ConfigOption = Annotated[
    str | None, typer.Option("--config", help="YAML file, or the name of a preset; see configs/default.yaml.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
SlideArgument = Annotated[str, typer.Argument(help="A slide file, or its URL.", show_default=False)]
