"""`train` of the membrane scorer: two regressions on digital phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import Progress

from pipelines.cluster import available_cores
from pipelines.fingerprint import software_version
from wsi_her2.atomic import text_beside
from wsi_her2.errors import OutputError
from wsi_her2.learning.membrane import MeasuredPatches, describe, draw_examples, fit_membrane_scorer, join
from wsi_her2.phantom.composition import LookName


class MembraneTraining(BaseModel):
    """How the membrane scorer is fitted.

    `looks` are the laboratories and scanners to draw, `patches_per_look` patches of each; `penalty` weighs the
    squared coefficients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["membrane"]
    name: str = Field(min_length=1)
    looks: tuple[LookName, ...] = Field(min_length=1)
    patches_per_look: int = Field(ge=200)
    seed: int = Field(ge=0)
    penalty: float = Field(1e-3, ge=0)


def train_membrane(
    settings: MembraneTraining, output: Path, workers: int | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Fit a membrane scorer and write its file.

    Parameters
    ----------
    settings : MembraneTraining
    output : pathlib.Path
        The JSON file to write.
    workers : int, optional
        Processes; one per core by default. The result does not depend on it.
    console : rich.console.Console, optional
        Where progress goes; stderr by default.

    Returns
    -------
    dict
        The card of the classifier.

    Raises
    ------
    OutputError
    """
    fit = fit_membrane_scorer(_draw(settings, workers or available_cores(), console), penalty=settings.penalty)
    card = {
        "origin": "two regressions on measures of membrane staining, fitted on digital phantoms",
        "trained_on": f"{settings.patches_per_look * len(settings.looks)} patches of digital phantoms "
        f"(looks: {', '.join(settings.looks)}; seed {settings.seed}), no tissue of patients",
        "checked_on": "digital phantoms and five tissue-microarray cores; see docs/accuracy.md",
        "validated": False,
        "version": software_version(),
    }
    content = describe(fit, settings.name, card)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with text_beside(output) as stream:
            stream.write(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error
    written: dict[str, Any] = content["card"]
    return written


def _draw(settings: MembraneTraining, workers: int, console: Console | None) -> MeasuredPatches:
    """MeasuredPatches of each look; each look has scenes of its own."""
    parts: list[MeasuredPatches] = []
    with Progress(console=console or Console(stderr=True)) as progress:
        bar = progress.add_task("patches", total=settings.patches_per_look * len(settings.looks))
        for number, look in enumerate(settings.looks):
            drawn = []
            for part in draw_examples(settings.patches_per_look, (look,), settings.seed + number, workers):
                drawn.append(part)
                progress.advance(bar, len(part))
            parts.append(join(drawn).renumbered(number * settings.patches_per_look))
    return join(parts)
