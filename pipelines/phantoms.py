"""`phantom`: draw digital slides and say what is true of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cluster import available_cores
from wsi_her2.errors import ConfigurationError, OutputError
from wsi_her2.phantom import PhantomSpec, render_phantom
from wsi_her2.phantom.composition import SCORES


def draw_slides(
    output: Path,
    *,
    scores: Sequence[str],
    fractions: str | None,
    workers: int | None,
    cell_format: str,
    **asked: Any,
) -> list[dict[str, Any]]:
    """Draw a slide for each score, or one for the given shares of cells.

    Parameters
    ----------
    output : pathlib.Path
        Folder; each slide is named by its score and seed.
    scores : sequence of str
        All four when empty.
    fractions : str or None
        Four shares, separated by commas; they decide the score.
    workers : int or None
        Processes; one per core by default.
    cell_format : {'parquet', 'csv'}
    **asked
        The other fields of `PhantomSpec`.

    Returns
    -------
    list of dict
        `slide`, `score`, `percentages`, `tumour_cells`, `pct_complete_membrane` and `tissue_mm2` of each.

    Raises
    ------
    ConfigurationError, PhantomError, OutputError
    """
    if fractions is not None and scores:
        raise ConfigurationError("give --score or --fractions, not both: the fractions decide the score")
    if cell_format not in ("parquet", "csv"):
        raise ConfigurationError(f"--cells is parquet or csv, not {cell_format!r}")
    if fractions is not None:
        specs = {"fractions": PhantomSpec(score=None, class_fractions=_shares(fractions), **asked)}
    else:
        specs = {
            f"score{score.replace('+', 'plus')}": PhantomSpec(score=score, **asked)  # type: ignore[arg-type]
            for score in (scores or SCORES)
        }
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error
    drawn = []
    for name, spec in specs.items():
        path = output / f"phantom_{name}_{spec.modality}_seed{spec.seed}.tif"
        truth = render_phantom(
            spec,
            path,
            workers=workers or available_cores(),
            cell_format=cell_format,  # type: ignore[arg-type]
        )
        drawn.append(
            {
                "slide": str(path),
                "score": truth.score,
                "percentages": dict(zip(SCORES, truth.percentages, strict=True)),
                "tumour_cells": truth.tumour_cells,
                "pct_complete_membrane": truth.pct_complete_membrane,
                "tissue_mm2": truth.tissue_mm2,
            }
        )
    return drawn


def _shares(text: str) -> tuple[float, float, float, float]:
    try:
        first, second, third, fourth = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"--fractions takes four numbers separated by commas, not {text!r}") from error
    return first, second, third, fourth
