"""The membrane scorer: measures of a patch, two small regressions, class probabilities.

Nothing is learnt that cannot be read: a logistic regression says whether a patch holds tumour, an ordered
logistic regression on one staining grade says which class. The coefficients are data, in `coefficients.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from wsi_her2.errors import ClassifierError
from wsi_her2.messages import shortened
from wsi_her2.models.classifier import GRADES, OTHER, Float32, Modality, Outputs, content_sha256
from wsi_her2.models.membrane.measures import MEASURES, MembraneScale, measure_patches
from wsi_her2.slides.backends import RGB

TRANSFORMS: dict[str, Callable[[Float32], Float32]] = {
    "linear": lambda values: values,
    "log": np.log,
    "sqrt": np.sqrt,
}


@dataclass(frozen=True)
class Feature:
    """One input of the regressions: a measure, kept within bounds, transformed, centred and scaled.

    Attributes
    ----------
    measure : str
        One of `MEASURES`.
    transform : {'linear', 'log', 'sqrt'}
    low, high : float
        Bounds of the measure, so that a patch unlike any that the regression was fitted on does not run away.
    centre, scale : float
        Of the transformed measure.
    """

    measure: str
    transform: Literal["linear", "log", "sqrt"]
    low: float
    high: float
    centre: float
    scale: float

    def of(self, measures: Float32) -> Float32:
        """Values (float32 N) from measures (float32 N x M)."""
        values = np.clip(measures[:, MEASURES.index(self.measure)], np.float32(self.low), np.float32(self.high))
        transformed = TRANSFORMS[self.transform](values)
        return np.asarray((transformed - np.float32(self.centre)) / np.float32(self.scale), np.float32)


@dataclass(frozen=True)
class Regression:
    """Coefficients of the two regressions.

    Attributes
    ----------
    features : tuple of Feature
    tumour_intercept : float
    tumour_weights : tuple of float
        Log-odds of tumour.
    grade_weights : tuple of float
        The staining grade.
    grade_cuts : tuple of float
        Grades at which 0 turns into 1+, 1+ into 2+ and 2+ into 3+, ascending.
    grade_slope : float
        How sharp the borders are.
    """

    features: tuple[Feature, ...]
    tumour_intercept: float
    tumour_weights: tuple[float, ...]
    grade_weights: tuple[float, ...]
    grade_cuts: tuple[float, float, float]
    grade_slope: float

    def grade(self, measures: Float32) -> Float32:
        """Staining grade (float32 N) from measures (float32 N x M)."""
        return _weighted(self._inputs(measures), self.grade_weights)

    def probabilities(self, measures: Float32) -> Float32:
        """Probabilities of other, 0, 1+, 2+, 3+ (float32 N x 5) from measures (float32 N x M)."""
        inputs = self._inputs(measures)
        tumour = _logistic(_weighted(inputs, self.tumour_weights) + np.float32(self.tumour_intercept))
        grade = _weighted(inputs, self.grade_weights)
        above = [_logistic(np.float32(self.grade_slope) * (grade - np.float32(cut))) for cut in self.grade_cuts]
        share = np.stack([1 - above[0], above[0] - above[1], above[1] - above[2], above[2]], axis=1)
        return np.concatenate([(1 - tumour)[:, None], tumour[:, None] * share], axis=1).astype(np.float32)

    def _inputs(self, measures: Float32) -> Float32:
        return np.stack([feature.of(measures) for feature in self.features], axis=1)


@dataclass(frozen=True)
class MembraneScorer:
    """A `PatchClassifier` that needs no training; see the module and `wsi_her2.models.classifier`."""

    name: str
    sha256: str
    modality: Modality
    patch_px: int
    mpp: float
    regression: Regression
    scale: MembraneScale
    card: dict[str, object] = field(default_factory=dict)
    confusion: tuple[tuple[float, ...], ...] | None = None
    classes: tuple[str, ...] = (OTHER, *GRADES)
    measure_names: tuple[str, ...] = MEASURES
    trained: bool = True
    outputs: Outputs = "classes"
    runtime: str = "numpy"
    precision: str = "fp32"
    augmentation: str = "none"

    def predict(self, batch: RGB) -> Float32:
        """Class probabilities (float32 N x 5) of patches with the white point at 255 (uint8 N x H x W x 3)."""
        return self.predict_and_measure(batch)[0]

    def predict_and_measure(self, batch: RGB) -> tuple[Float32, Float32]:
        """Probabilities (float32 N x 5) and measures (float32 N x len(MEASURES)) of patches."""
        measures = measure_patches(batch, self.scale)
        return self.regression.probabilities(measures), measures


def membrane_scorer(content: bytes, source: str) -> MembraneScorer:
    """Build a scorer from the content of a coefficients file.

    Parameters
    ----------
    content : bytes
        JSON.
    source : str
        Where it came from, for messages.

    Raises
    ------
    ClassifierError
        The content is not a description of a membrane scorer.
    """
    try:
        described: dict[str, Any] = json.loads(content)
        if described["kind"] != "membrane":
            raise ValueError(f"kind is {described['kind']!r}, not 'membrane'")
        if tuple(described["classes"]) != (OTHER, *GRADES):
            raise ValueError(f"classes are {described['classes']}, not {[OTHER, *GRADES]}")
        if described["modality"] not in ("ihc", "he"):
            raise ValueError(f"modality is {described['modality']!r}, not 'ihc' or 'he'")
        mpp, patch_px = float(described["mpp"]), int(described["patch_px"])
        if not (0 < mpp < math.inf and patch_px > 0):
            raise ValueError(f"mpp {mpp:g} and patch_px {patch_px} must be positive")
        return MembraneScorer(
            name=str(described["name"]),
            sha256=content_sha256(content),
            modality=described["modality"],
            patch_px=patch_px,
            mpp=mpp,
            regression=_regression(described),
            scale=MembraneScale(mpp=mpp),
            card=dict(described.get("card", {})),
            confusion=_confusion(described.get("confusion")),
        )
    except KeyError as error:
        raise ClassifierError(f"{source}: {shortened(repr(error.args[0]))} is missing") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ClassifierError(
            f"{source}: not the coefficients of a membrane scorer: {shortened(error)}"
        ) from error


def _regression(described: dict[str, Any]) -> Regression:
    features = tuple(Feature(**feature) for feature in described["features"])
    for feature in features:
        if feature.measure not in MEASURES:
            raise ValueError(f"{feature.measure!r} is not a measure; there are {', '.join(MEASURES)}")
        if feature.transform not in TRANSFORMS:
            raise ValueError(f"{feature.transform!r} is not a transform; there are {', '.join(TRANSFORMS)}")
        if not feature.low < feature.high or not feature.scale > 0:
            raise ValueError(f"{feature.measure!r} needs low < high and a positive scale")
        if (feature.transform == "log" and feature.low <= 0) or (feature.transform == "sqrt" and feature.low < 0):
            raise ValueError(
                f"{feature.measure!r} cannot be transformed by {feature.transform} from {feature.low} on"
            )
    tumour, grade = described["tumour"], described["grade"]
    cut_1, cut_2, cut_3 = (float(cut) for cut in grade["cuts"])
    if not cut_1 < cut_2 < cut_3:
        raise ValueError(f"cuts {grade['cuts']} do not ascend")
    for weights in (tumour["weights"], grade["weights"]):
        if len(weights) != len(features):
            raise ValueError(f"{len(weights)} weights for {len(features)} features")
    if not features:
        raise ValueError("there are no features")
    numbers = [value for f in features for value in (f.low, f.high, f.centre, f.scale)]
    numbers += [*tumour["weights"], *grade["weights"], *grade["cuts"], tumour["intercept"], grade["slope"]]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("weights, cuts, intercept and slope must be finite numbers")
    if not grade["slope"] > 0:
        raise ValueError(f"slope {grade['slope']} must be positive, so that more staining means a higher class")
    return Regression(
        features=features,
        tumour_intercept=float(tumour["intercept"]),
        tumour_weights=tuple(float(weight) for weight in tumour["weights"]),
        grade_weights=tuple(float(weight) for weight in grade["weights"]),
        grade_cuts=(cut_1, cut_2, cut_3),
        grade_slope=float(grade["slope"]),
    )


def _confusion(described: Any) -> tuple[tuple[float, ...], ...] | None:
    if described is None:
        return None
    matrix = np.asarray(described, np.float64)
    size = len(GRADES) + 1
    if matrix.shape != (size, size) or (matrix < 0).any() or not np.allclose(matrix.sum(axis=1), 1, atol=1e-3):
        raise ValueError(f"confusion must be {size} rows of {size} shares that sum to 1")
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _weighted(inputs: Float32, weights: tuple[float, ...]) -> Float32:
    """Weighted sums of rows. Not a matrix product: its rounding depends on how many rows there are."""
    return np.asarray((inputs * np.asarray(weights, np.float32)).sum(axis=1), np.float32)


def _logistic(log_odds: Float32) -> Float32:
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -60, 60))), np.float32)
