"""Stain correction: decided and fitted once per slide, applied to all its patches.

On IHC the DAB density is the measurement, so it is never rescaled: the white point is put to 255, and on
request the stains' *hues* are turned to a reference while their densities stay. On H&E the stain carries no
grade, so whole-slide normalisation is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.errors import StainFitError
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.density import HEMATOXYLIN_DAB, StainVectors, Vector, density_table
from wsi_her2.slides.normalisation import (
    REFERENCE_LAB,
    REFERENCE_MAXIMA,
    REFERENCE_VECTORS,
    concentration_maxima,
    lab_statistics,
    macenko_vectors,
    stained,
    vahadane_vectors,
)
from wsi_her2.slides.white_point import WhitePoint, white_table

IhcMethod = Literal["white-point", "align-hues", "none"]
HeMethod = Literal["macenko", "vahadane", "reinhard", "white-point", "none"]


@dataclass(frozen=True)
class StainSettings:
    """What is done to the stain.

    Attributes
    ----------
    ihc : {'white-point', 'align-hues', 'none'}
    he : {'macenko', 'vahadane', 'reinhard', 'white-point', 'none'}
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    ihc: IhcMethod = "white-point"
    he: HeMethod = "macenko"


@dataclass(frozen=True)
class StainCorrection:
    """A fitted correction: plain numbers, so that it travels as JSON.

    Attributes
    ----------
    method : str
        What is done.
    white : tuple of float
        White point of the slide in grey levels.
    note : str
        Why another method was used than the one asked for; empty otherwise.
    density_matrix : tuple of tuple of float, optional
        Maps a density column vector to the corrected one (3 x 3).
    lab : tuple, optional
        Mean and deviation of L*a*b* in the slide, then in the reference.
    """

    method: str
    white: Vector
    note: str = ""
    density_matrix: tuple[Vector, Vector, Vector] | None = None
    lab: tuple[Vector, Vector, Vector, Vector] | None = None

    def apply(self, rgb: RGB) -> RGB:
        """Correct pixels.

        Parameters
        ----------
        rgb : uint8 H x W x 3 or N x H x W x 3

        Returns
        -------
        uint8, of the shape of `rgb`
            White point at 255, except with method 'none'.
        """
        if self.method == "none" or rgb.size == 0:
            return rgb
        if rgb.ndim == 4:
            return self.apply(rgb.reshape(-1, *rgb.shape[2:])).reshape(rgb.shape)
        if self.density_matrix is not None:
            density = cv2.LUT(rgb, density_table(self.white))
            turned = cv2.transform(density, np.asarray(self.density_matrix, np.float32))
            intensity = cv2.exp(turned * np.float32(-np.log(10.0)))
            return np.asarray(cv2.convertScaleAbs(intensity, alpha=255.0), np.uint8)
        white = np.asarray(cv2.LUT(rgb, white_table(self.white)), np.uint8)
        return white if self.lab is None else _match_lab(white, self.lab)


def fit_stain(
    sample: RGB, white: WhitePoint, modality: str, settings: StainSettings | None = None
) -> StainCorrection:
    """Fit the correction of a slide.

    Parameters
    ----------
    sample : uint8 N x 3
        Pixels of the slide's tissue. Used by the methods that fit more than the white point.
    white : WhitePoint
    modality : {'ihc', 'he'}
    settings : StainSettings, optional

    Returns
    -------
    StainCorrection
        Where the sample cannot carry the fit, the white-point correction, with the reason in `note`.
    """
    if modality not in ("ihc", "he"):
        raise ValueError(f"modality is 'ihc' or 'he', not {modality!r}")
    settings = settings or StainSettings()
    method = settings.ihc if modality == "ihc" else settings.he
    try:
        if method not in ("white-point", "none") and sample.size == 0:
            raise StainFitError("no pixels were sampled")
        if method == "align-hues":
            return _fit_hues(sample, white.rgb)
        if method in ("macenko", "vahadane"):
            return _fit_densities(sample, white.rgb, method)
        if method == "reinhard":
            return _fit_lab(sample, white.rgb)
    except StainFitError as error:
        return StainCorrection("white-point", white.rgb, note=f"{method} was not fitted: {error}")
    return StainCorrection(method, white.rgb)


def _densities(sample: RGB, white: Vector) -> npt.NDArray[np.float64]:
    flat = np.ascontiguousarray(sample.reshape(1, -1, 3))
    return np.asarray(cv2.LUT(flat, density_table(white))[0], np.float64)


def _fit_densities(sample: RGB, white: Vector, method: str) -> StainCorrection:
    density = stained(_densities(sample, white))
    vectors = macenko_vectors(density) if method == "macenko" else vahadane_vectors(density)
    gain = REFERENCE_MAXIMA / concentration_maxima(density, vectors)
    matrix = REFERENCE_VECTORS.T @ np.diag(gain) @ np.linalg.pinv(vectors).T
    return StainCorrection(method, white, density_matrix=_rows(matrix))


def _fit_hues(sample: RGB, white: Vector) -> StainCorrection:
    """Turn the slide's own hematoxylin and DAB to the reference hues; concentrations stay as they are."""
    own = hematoxylin_dab_vectors(sample, white)
    matrix = HEMATOXYLIN_DAB.matrix().T @ own.unmixing()
    return StainCorrection("align-hues", white, density_matrix=_rows(matrix))


def hematoxylin_dab_vectors(sample: RGB, white: Vector = (255.0, 255.0, 255.0)) -> StainVectors:
    """Hues of hematoxylin and DAB in a sample of pixels (uint8 N x 3 or N x 1 x 3).

    Raises
    ------
    StainFitError
        There is too little stain, or none of the colour of one of the two.
    """
    density = stained(_densities(sample, white))
    reference = HEMATOXYLIN_DAB.matrix()
    hue = density / np.linalg.norm(density, axis=1, keepdims=True)
    # How far a pixel leans from hematoxylin to DAB; the purest twentieth on either side are the stains.
    lean = hue @ (reference[1] - reference[0])
    low, high = np.quantile(lean, (0.05, 0.95))
    blue, brown = np.median(hue[lean <= low], axis=0), np.median(hue[lean >= high], axis=0)
    for found, meant, stain in ((blue, reference[0], "hematoxylin"), (brown, reference[1], "DAB")):
        likeness = float(found @ meant / np.linalg.norm(found))
        if likeness < 0.95:
            raise StainFitError(f"no pixels of the colour of {stain} (likeness {likeness:.2f}, needed 0.95)")
    return StainVectors(_vector(blue), _vector(brown))


def _fit_lab(sample: RGB, white: Vector) -> StainCorrection:
    corrected = cv2.LUT(np.ascontiguousarray(sample.reshape(1, -1, 3)), white_table(white))[0]
    tissue = corrected[corrected.mean(axis=1) < 230]
    mean, deviation = lab_statistics(np.asarray(tissue, np.uint8))
    reference_mean, reference_deviation = REFERENCE_LAB
    lab = (_vector(mean), _vector(deviation), _vector(reference_mean), _vector(reference_deviation))
    return StainCorrection("reinhard", white, lab=lab)


def _match_lab(rgb: RGB, lab: tuple[Vector, Vector, Vector, Vector]) -> RGB:
    mean, deviation, target_mean, target_deviation = (np.asarray(row, np.float32) for row in lab)
    pixels = cv2.cvtColor((rgb / np.float32(255)).astype(np.float32), cv2.COLOR_RGB2LAB)
    moved = (pixels - mean) * (target_deviation / deviation) + target_mean
    # Glass stays glass: without this the background would take on the tint of the match.
    glass = np.clip((pixels[..., :1] - 90) / 8, 0, 1)
    blended = np.asarray(moved * (1 - glass) + pixels * glass, np.float32)
    back = cv2.cvtColor(blended, cv2.COLOR_LAB2RGB)
    return np.clip(np.rint(back * 255), 0, 255).astype(np.uint8)


def _vector(values: object) -> Vector:
    red, green, blue = (float(value) for value in values)  # type: ignore[attr-defined]
    return red, green, blue


def _rows(matrix: npt.NDArray[np.float64]) -> tuple[Vector, Vector, Vector]:
    first, second, third = (_vector(row) for row in matrix)
    return first, second, third
