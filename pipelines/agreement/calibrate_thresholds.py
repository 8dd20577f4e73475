"""`calibrate` on slides of known score: the borders of the rule and the confidence, as a configuration."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from pipelines.agreement.evaluate import compare_run
from wsi_her2.atomic import text_beside
from wsi_her2.errors import DatasetError, OutputError
from wsi_her2.learning.threshold_fit import ThresholdFit, fit_thresholds
from wsi_her2.scoring.rule import SCORES


def calibrate_thresholds(results: Path, truth: Path, output: Path) -> tuple[ThresholdFit, list[str]]:
    """Fit borders and temperature on a run with a ground truth, and write them for `score --config`.

    Parameters
    ----------
    results : pathlib.Path
        Output folder of `score`, or its `slides.csv`; scored with the usual borders.
    truth : pathlib.Path
        See `pipelines.agreement.evaluate.evaluate_run`.
    output : pathlib.Path
        YAML file.

    Returns
    -------
    tuple of ThresholdFit and list of str
        And what it means, in sentences, which also stand in the file.

    Raises
    ------
    DatasetError
        No slide has both, or they are too few.
    OutputError
        The file cannot be written.
    """
    compared = [
        slide
        for slide in compare_run(results, truth).compared
        if slide.call is not None and slide.found_percentages is not None and slide.confidence is not None
    ]
    try:
        fit = fit_thresholds(
            np.array([slide.found_percentages for slide in compared], np.float64).reshape(-1, len(SCORES)),
            np.array([SCORES.index(slide.truth) for slide in compared], np.int64),
            np.array([slide.confidence for slide in compared], np.float64),
            [slide.case for slide in compared],
        )
    except ValueError as error:
        raise DatasetError(f"{results}: {len(compared)} slides have a call and a truth; {error}") from error
    said = _in_words(fit)
    settings = {"thresholds": asdict(fit.thresholds), "confidence": {"temperature": fit.temperature}}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with text_beside(output) as stream:
            stream.write(
                "# Borders of the rule and temperature of the confidence, fitted by `wsi-her2 calibrate`.\n"
            )
            stream.write("".join(f"# {sentence}\n" for sentence in said))
            stream.write(yaml.safe_dump(settings, sort_keys=False))
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error
    return fit, said


def _in_words(fit: ThresholdFit) -> list[str]:
    verdict = (
        "Fitted borders help on slides that the fit did not see."
        if fit.helped
        else "Fitted borders do not help on slides that the fit did not see: keep the guideline's."
    )
    return [
        f"{fit.slides} slides of {fit.cases} cases: {fit.right_before} calls were right with the borders before, "
        f"{fit.right_within} with the fitted ones, {fit.right_held_out} with borders fitted on the other folds.",
        f"Classes that calls are off, summed: {fit.off_before} before, {fit.off_within} with the fitted borders, "
        f"{fit.off_held_out} on held-out folds.",
        verdict,
        f"Confidence (mean surprise at a call being right or wrong): {fit.confidence_loss_before:.3f} before, "
        f"{fit.confidence_loss_held_out:.3f} on held-out folds with a temperature of {fit.temperature:g}.",
    ]
