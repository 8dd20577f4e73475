"""What every scorer of patches is: classes, a patch size, a scale, a modality, and `predict`."""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from wsi_her2.slides.backends import RGB

Modality = Literal["ihc", "he"]
Outputs = Literal["classes", "shares"]
Float32 = npt.NDArray[np.float32]

OTHER = "other"
"""Class of patches that are not invasive tumour."""

GRADES = ("0", "1+", "2+", "3+")
"""HER2 staining classes, in their order."""


class PatchClassifier(Protocol):
    """Anything that turns patches into class probabilities.

    Attributes
    ----------
    name : str
    sha256 : str
        Of the weights or coefficients, so that a result names exactly what made it.
    classes : tuple of str
        Names of the columns of `predict`.
    patch_px : int
        Side of a patch in pixels.
    mpp : float
        Scale of a patch, um/px.
    modality : {'ihc', 'he'}
    trained : bool
        False for weights that were never fitted to anything, or of which nobody says to what; they cannot produce
        a call.
    runtime : str
        What computes: 'numpy', 'torch', 'onnx' or 'openvino'.
    outputs : {'classes', 'shares'}
        What a row of `predict` is: the probabilities of what the patch is, or the share of the patch that each
        class is expected to cover.
    precision : str
        Of the numbers: 'fp32' or 'int8'.
    augmentation : str
        Orientations that are averaged: 'none', 'flips' or 'turns'.
    card : dict of str to object
        Origin, training data and measured agreement, for people.
    measure_names : tuple of str
        Names of the columns of `measure`; empty for a classifier that measures nothing.
    confusion : tuple of tuple of float or None
        Row: true class; column: share of it that is assigned to each class, or found as it. None where it was
        never measured.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def patch_px(self) -> int: ...  # noqa: D102
    @property
    def mpp(self) -> float: ...  # noqa: D102
    @property
    def modality(self) -> Modality: ...  # noqa: D102
    @property
    def trained(self) -> bool: ...  # noqa: D102
    @property
    def runtime(self) -> str: ...  # noqa: D102
    @property
    def outputs(self) -> Outputs: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def augmentation(self) -> str: ...  # noqa: D102
    @property
    def card(self) -> dict[str, object]: ...  # noqa: D102
    @property
    def measure_names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def confusion(self) -> tuple[tuple[float, ...], ...] | None: ...  # noqa: D102

    def predict(self, batch: RGB) -> Float32:
        """Class probabilities (float32 N x K, rows sum to 1) of raw RGB patches (uint8 N x H x W x 3)."""

    def predict_and_measure(self, batch: RGB) -> tuple[Float32, Float32]:
        """`predict`, and beside it what the classifier measured of each patch (float32 N x M)."""


def content_sha256(content: bytes) -> str:
    """Hexadecimal sha256 of a classifier's file."""
    return hashlib.sha256(content).hexdigest()
