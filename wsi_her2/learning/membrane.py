"""Fitting the membrane scorer on digital phantoms.

Patches are drawn with the share of tumour in each and of each class among its tumour cells. Two regressions
are fitted to what is measured of them: a logistic one for tumour, an ordered logistic one for the staining
grade, both to soft targets. The confusion matrix says what the scorer makes of each true class, so that
proportions can be corrected for it; it is measured on scenes that the regressions never saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, nnls

from wsi_her2.models.classifier import GRADES, OTHER
from wsi_her2.models.membrane.measures import MEASURES, MembraneScale, measure_patches
from wsi_her2.models.membrane.scorer import TRANSFORMS, Feature, Regression
from wsi_her2.phantom import iter_patches
from wsi_her2.phantom.composition import LookName
from wsi_her2.scoring.proportions import TUMOUR_FROM
from wsi_her2.slides.white_point import white_table

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

PATCH_PX = 128
_DRAWN_MPP = 0.25
"""Patches are drawn as a 40x scanner sees them and then averaged down, which is how slides are read."""

UNDECIDED_SHARE = 0.08
"""Patches with more in-situ or normal epithelium are left out: by its look it cannot be told from tumour."""

TUMOUR_MEASURES = {
    "nuclear_share": "linear",
    "round_nuclear_share": "linear",
    "nuclear_contrast": "log",
    "edge_isotropy": "linear",
    "fill_ratio": "linear",
    "blank_share": "linear",
    "completeness": "sqrt",
}
"""What tells tumour: its nuclei and its texture, hardly its staining, so that negative tumour is found as well."""

GRADE_MEASURES = {
    "ridge_p95": "log",
    "cytoplasm_ridge_p90": "log",
    "ridge_ratio": "log",
    "completeness": "sqrt",
    "thickness_um": "linear",
}
"""What tells the grade: how strong thin DAB structures are, whether they enclose cells, how wide they are."""


@dataclass(frozen=True, eq=False)
class MeasuredPatches:
    """Measured patches and what is true of them.

    Attributes
    ----------
    measures : float32 N x M
    tumour_area : float32 N
        Share of the patch covered by invasive tumour.
    class_shares : float32 N x 4
        Of 0, 1+, 2+ and 3+ among its tumour cells; all 0 without tumour.
    undecided : bool N
        Too much in-situ or normal epithelium to say.
    scene : int64 N
        Patches of one scene belong together.
    """

    measures: Float32
    tumour_area: Float32
    class_shares: Float32
    undecided: npt.NDArray[np.bool_]
    scene: npt.NDArray[np.int64]

    def __getitem__(self, rows: npt.NDArray[np.bool_]) -> MeasuredPatches:
        """The examples of some rows (bool N)."""
        return MeasuredPatches(
            self.measures[rows],
            self.tumour_area[rows],
            self.class_shares[rows],
            self.undecided[rows],
            self.scene[rows],
        )

    def __len__(self) -> int:
        return len(self.scene)

    def renumbered(self, first: int) -> MeasuredPatches:
        """The same with scenes numbered from another first number on."""
        return replace(self, scene=self.scene + first)


@dataclass(frozen=True)
class Fit:
    """A fitted scorer and how well it does on scenes that it never saw.

    Attributes
    ----------
    regression : Regression
    confusion : tuple of tuple of float
        5 x 5, rows true.
    held_out : dict of str to float
        `tumour_accuracy`, and over tumour patches `grade_accuracy` and `grade_accuracy_pure` (patches of which
        more than three quarters are of one class).
    """

    regression: Regression
    confusion: tuple[tuple[float, ...], ...]
    held_out: dict[str, float]


def draw_examples(count: int, looks: Sequence[LookName], seed: int, workers: int = 1) -> Iterator[MeasuredPatches]:
    """Draw phantom patches and measure them, scene after scene.

    Parameters
    ----------
    count : int
        Patches in all.
    looks : sequence of str
        Looks to draw from.
    seed : int
    workers : int
        Processes that draw; the examples do not depend on it.

    Yields
    ------
    MeasuredPatches
    --------
    """
    unknown = set(looks) - set(get_args(LookName))
    if unknown:
        raise ValueError(f"no such looks: {', '.join(sorted(unknown))}; there are {', '.join(get_args(LookName))}")
    drawn_px = round(PATCH_PX * MembraneScale().mpp / _DRAWN_MPP)
    for batch in iter_patches(count, patch_px=drawn_px, mpp=_DRAWN_MPP, seed=seed, looks=looks, workers=workers):
        patches = np.stack(
            [
                cv2.resize(
                    cv2.LUT(pixels, white_table(tuple(white))), (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA
                )
                for pixels, white in zip(batch.pixels, batch.white, strict=True)
            ]
        )
        yield MeasuredPatches(
            measures=measure_patches(np.asarray(patches, np.uint8)),
            tumour_area=batch.tumour_area,
            class_shares=batch.fractions,
            undecided=(batch.in_situ_area > UNDECIDED_SHARE) | (batch.normal_area > UNDECIDED_SHARE),
            scene=batch.scene,
        )


def join(parts: Sequence[MeasuredPatches]) -> MeasuredPatches:
    """Put examples together; scenes of different parts must have different numbers."""
    return MeasuredPatches(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("measures", "tumour_area", "class_shares", "undecided", "scene")
        )
    )


def fit_membrane_scorer(examples: MeasuredPatches, *, penalty: float = 1e-3, held_out_every: int = 4) -> Fit:
    """Fit the two regressions and measure the confusion matrix.

    Parameters
    ----------
    examples : MeasuredPatches
    penalty : float
        Weight of the squared coefficients, against features that repeat each other.
    held_out_every : int
        Every such scene is held out: the regressions do not see it, the confusion matrix is measured on it.

    Returns
    -------
    Fit
    """
    decided = examples[~examples.undecided]
    held_out = decided.scene % held_out_every == 0
    seen, unseen = decided[~held_out], decided[held_out]
    features = _features(seen.measures, {**TUMOUR_MEASURES, **GRADE_MEASURES})
    inputs = np.stack([feature.of(seen.measures) for feature in features], axis=1).astype(np.float64)
    for_tumour = np.array([feature.measure in TUMOUR_MEASURES for feature in features])
    for_grade = np.array([feature.measure in GRADE_MEASURES for feature in features])
    target = _tumour_target(seen.tumour_area)
    tumour_weights, intercept = _fit_logistic(inputs[:, for_tumour], target, penalty)
    counted = seen.class_shares.sum(axis=1) > 0
    grade_weights, cuts = _fit_ordered(
        inputs[counted][:, for_grade], seen.class_shares[counted].astype(np.float64), target[counted], penalty
    )
    regression = Regression(
        features=tuple(features),
        tumour_intercept=intercept,
        tumour_weights=_spread(tumour_weights, for_tumour),
        grade_weights=_spread(grade_weights, for_grade),
        grade_cuts=cuts,
        grade_slope=1.0,
    )
    return Fit(regression, _confusion(regression, unseen), _held_out(regression, unseen))


def describe(fit: Fit, name: str, card: dict[str, Any]) -> dict[str, Any]:
    """The content of a coefficients file, which `load_classifier` reads."""
    regression = fit.regression

    def rounded(values: Sequence[float]) -> list[float]:
        return [round(float(value), 5) for value in values]

    return {
        "kind": "membrane",
        "name": name,
        "classes": [OTHER, *GRADES],
        "patch_px": PATCH_PX,
        "mpp": MembraneScale().mpp,
        "modality": "ihc",
        "card": {**card, "held_out": {key: round(value, 4) for key, value in fit.held_out.items()}},
        "features": [
            {key: round(value, 5) if isinstance(value, float) else value for key, value in asdict(feature).items()}
            for feature in regression.features
        ],
        "tumour": {
            "intercept": round(regression.tumour_intercept, 5),
            "weights": rounded(regression.tumour_weights),
        },
        "grade": {
            "weights": rounded(regression.grade_weights),
            "cuts": rounded(regression.grade_cuts),
            "slope": regression.grade_slope,
        },
        "confusion": [rounded(row) for row in fit.confusion],
    }


def _tumour_target(area: Float32) -> Float64:
    return np.clip(area.astype(np.float64) / (2 * TUMOUR_FROM), 0, 1)


def _features(measures: Float32, transforms: dict[str, str]) -> list[Feature]:
    """Bounds from the bulk of the examples, centre and scale from the transformed values."""
    features = []
    for name, transform in transforms.items():
        values = measures[:, MEASURES.index(name)].astype(np.float64)
        low, high = np.percentile(values, (0.5, 99.5))
        if transform == "log":
            low = max(low, 1e-3)
        high = max(high, low + 1e-6)
        transformed = TRANSFORMS[transform](np.clip(values, low, high).astype(np.float32))
        features.append(
            Feature(
                measure=name,
                transform=transform,  # type: ignore[arg-type]
                low=float(low),
                high=float(high),
                centre=float(transformed.mean()),
                scale=max(float(transformed.std()), 1e-6),
            )
        )
    return features


def _fit_logistic(inputs: Float64, target: Float64, penalty: float) -> tuple[Float64, float]:
    def loss(parameters: Float64) -> tuple[float, Float64]:
        log_odds = inputs @ parameters[:-1] + parameters[-1]
        probability = _logistic(log_odds)
        # log(1 + exp(z)) - t z is the cross-entropy of a soft target, in a form that does not overflow.
        value = (np.logaddexp(0, log_odds) - target * log_odds).mean() + penalty * (parameters[:-1] ** 2).sum()
        wrong = (probability - target) / len(target)
        gradient = np.append(inputs.T @ wrong + 2 * penalty * parameters[:-1], wrong.sum())
        return float(value), gradient

    found = minimize(loss, np.zeros(inputs.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return found[:-1], float(found[-1])


def _fit_ordered(
    inputs: Float64, shares: Float64, weight: Float64, penalty: float
) -> tuple[Float64, tuple[float, float, float]]:
    """Ordered logistic regression (McCullagh 1980); cuts as a first one and logs of the steps between them."""
    count = inputs.shape[1]

    def cuts_of(parameters: Float64) -> Float64:
        steps = np.exp(parameters[count + 1 :])
        return np.cumsum(np.concatenate([parameters[count : count + 1], steps]))

    def loss(parameters: Float64) -> float:
        grade = inputs @ parameters[:count]
        above = _logistic(grade[:, None] - cuts_of(parameters))
        edges = np.concatenate([np.ones((len(grade), 1)), above, np.zeros((len(grade), 1))], axis=1)
        probability = np.maximum(edges[:, :-1] - edges[:, 1:], 1e-7)
        fit = -(weight[:, None] * shares * np.log(probability)).sum() / weight.sum()
        return float(fit + penalty * (parameters[:count] ** 2).sum())

    start = np.concatenate([np.full(count, 0.1), [-1.0, 0.0, 0.0]])
    found = minimize(loss, start, method="L-BFGS-B", options={"maxiter": 500}).x
    cut_1, cut_2, cut_3 = (float(cut) for cut in cuts_of(found))
    return found[:count], (cut_1, cut_2, cut_3)


def _confusion(regression: Regression, unseen: MeasuredPatches) -> tuple[tuple[float, ...], ...]:
    """Of each true class, the share that is assigned to each class, per unit of tumour area.

    A patch holds several classes, so the assigned ones are regressed on the true composition: non-negative
    least squares for each assigned class, rows then scaled to sum to 1.
    """
    assigned = np.eye(len(GRADES) + 1)[regression.probabilities(unseen.measures).argmax(axis=1)]
    tumour = _tumour_target(unseen.tumour_area)[:, None]
    truth = np.concatenate([1 - tumour, tumour * unseen.class_shares], axis=1)
    columns = [nnls(truth, assigned[:, index])[0] for index in range(assigned.shape[1])]
    matrix = np.stack(columns, axis=1)
    matrix /= np.maximum(matrix.sum(axis=1, keepdims=True), 1e-9)
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _held_out(regression: Regression, unseen: MeasuredPatches) -> dict[str, float]:
    probabilities = regression.probabilities(unseen.measures)
    is_tumour = unseen.tumour_area >= TUMOUR_FROM
    grade = probabilities[:, 1:].argmax(axis=1)
    right = grade == unseen.class_shares.argmax(axis=1)
    pure = is_tumour & (unseen.class_shares.max(axis=1) > 0.75)
    return {
        "tumour_accuracy": float(((probabilities[:, 0] < 0.5) == is_tumour).mean()),
        "grade_accuracy": float(right[is_tumour].mean()),
        "grade_accuracy_pure": float(right[pure].mean()),
        "patches": float(len(unseen)),
    }


def _spread(weights: Float64, chosen: npt.NDArray[np.bool_]) -> tuple[float, ...]:
    spread = np.zeros(len(chosen))
    spread[chosen] = weights
    return tuple(float(value) for value in spread)


def _logistic(log_odds: Float64) -> Float64:
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -60, 60))), np.float64)
