"""`demo`: a few digital slides of known truth, drawn on the spot and scored like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.cluster import available_cores
from pipelines.configuration import load_config
from pipelines.run.score import RunSummary, score
from wsi_her2.errors import OutputError
from wsi_her2.phantom import PhantomSpec, render_phantom

_COMMON = PhantomSpec(score="0", width_mm=1.1, height_mm=1.1, seed=7, look="nanozoomer")
_HETEROGENEOUS = (0.45, 0.20, 0.30, 0.05)

SLIDES: dict[str, PhantomSpec] = {
    "score_0": _COMMON,
    "score_1plus": replace(_COMMON, score="1+"),
    "score_2plus": replace(_COMMON, score="2+"),
    "score_3plus": replace(_COMMON, score="3+"),
    "heterogeneous": replace(_COMMON, score=None, class_fractions=_HETEROGENEOUS, clustering=1.0, seed=8),
    "h_and_e": replace(_COMMON, score="3+", modality="he"),
}
"""The demonstration: one slide per score, one in which the classes lie apart, and one that must be refused."""


def run_demo(output: Path) -> tuple[RunSummary, dict[str, str]]:
    """Draw the demonstration slides and score them.

    Parameters
    ----------
    output : pathlib.Path
        `slides` and `results` are made in it.

    Returns
    -------
    tuple of RunSummary and dict of str to str
        And the true score of each slide; 'must refuse' for the one on which HER2 cannot be seen.
    """
    slides = output / "slides"
    try:
        slides.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error
    truths: dict[str, str] = {}
    for name, spec in SLIDES.items():
        truth = render_phantom(spec, slides / f"{name}.tif", workers=available_cores(), cell_format="parquet")
        truths[name] = truth.score if spec.modality == "ihc" else "must refuse"
    summary = score([slides / f"{name}.tif" for name in SLIDES], output / "results", load_config(None))
    return summary, truths
