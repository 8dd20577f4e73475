"""`train` of the network that grades cells, on digital slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import Progress

from pipelines.cluster import available_cores
from pipelines.fingerprint import software_version
from wsi_her2.errors import OutputError
from wsi_her2.learning.settings import GradingFit
from wsi_her2.models.extras import need
from wsi_her2.phantom.composition import LookName

if TYPE_CHECKING:
    from wsi_her2.learning.cell_views import CellSlides, FieldViews

_DRAWN = "rendered-cells"


class CellTraining(BaseModel):
    """How the network for cells is fitted.

    `looks` are the laboratories and scanners to draw, `slides` digital slides of `side_mm` in all;
    `held_out_slides` more of other seeds are what the network is measured on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cells"]
    looks: tuple[LookName, ...] = Field(min_length=1)
    slides: int = Field(ge=4)
    held_out_slides: int = Field(ge=4)
    side_mm: float = Field(0.45, ge=0.2, le=2)
    seed: int = Field(ge=0)
    fit: GradingFit = GradingFit()


def train_cells(
    settings: CellTraining, output: Path, workers: int | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Fit the network for cells and write its file.

    Parameters
    ----------
    settings : CellTraining
    output : pathlib.Path
        The ONNX file to write. What is drawn is kept beside it, so that an interrupted training goes on.
    workers : int, optional
        Processes; one per core by default. The result does not depend on it.
    console : rich.console.Console, optional
        Where progress goes; stderr by default.

    Returns
    -------
    dict
        The card of the network.

    Raises
    ------
    OutputError, MissingExtra
    """
    for package in ("torch", "onnxscript"):
        need(package, "fitting the network for cells")
    from wsi_her2.learning.cell_grading import fit_grading, measure_grading, write_grader
    from wsi_her2.learning.cell_views import CellSlides

    fitted, held_out = (
        CellSlides(count, settings.looks, seed, settings.side_mm)
        for count, seed in ((settings.slides, settings.seed), (settings.held_out_slides, settings.seed + 1000))
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with Progress(console=console or Console(stderr=True)) as progress:
            views, others = (
                _drawn(slides, output.parent / _DRAWN, workers or available_cores(), progress)
                for slides in (fitted, held_out)
            )
            bar = progress.add_task("epochs", total=settings.fit.epochs)
            network = fit_grading(
                views,
                settings.fit,
                lambda _, loss: progress.update(bar, advance=1, description=f"epochs (loss {loss:.3f})"),
            )
        graded = measure_grading(network, others)
        card = {
            "origin": "convolutions around the nucleus and over neighbours, fitted on digital phantoms",
            "trained_on": f"{sum(int((field.classes >= 0).sum()) for field in views)} tumour cells of "
            f"{settings.slides} digital phantoms (looks: {', '.join(settings.looks)}; seed {settings.seed}), no "
            "tissue of patients",
            "checked_on": f"{settings.held_out_slides} digital phantoms of another seed: "
            f"{100 * graded.accuracy:.0f} % of the tumour cells of a slide of the right class, "
            f"{100 * graded.tumour:.0f} % of all that was taken for a nucleus rightly told to be of the tumour or "
            "not; see docs/cells.md",
            "confusion": graded.confusion,
            "validated": False,
            "version": software_version(),
        }
        write_grader(network, card, output)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error
    return card


def _drawn(slides: CellSlides, folder: Path, workers: int, progress: Progress) -> list[FieldViews]:
    from wsi_her2.learning.cell_views import drawn_views

    bar = progress.add_task("slides", total=slides.count)
    return drawn_views(slides, folder, workers, lambda done, _: progress.update(bar, completed=done))
