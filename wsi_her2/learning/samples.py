"""Training samples: a patch, the shares of its classes, and where it is known a label for every few microns."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.learning.fields import LABEL_PX, Fields, class_shares
from wsi_her2.slides.backends import RGB

Sample = dict[str, npt.NDArray[np.generic]]


class Examples(Protocol):
    """Images with soft labels, as every data set of `wsi_her2.learning.datasets` has them."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> RGB:
        """An image (uint8 H x W x 3)."""


class FieldSamples:
    """Patches cut from rendered fields, anew in each epoch or always at the same place.

    A sequence of `image` (uint8 H x H x 3), `target` (float32 5) and `labels` (int64 H/16 x H/16).

    Parameters
    ----------
    fields : Fields
    patch_px : int
        A multiple of `LABEL_PX`.
    seed : int, optional
        Of the random places; None for the middle.
    per_field : int
        Samples of each field in an epoch.
    """

    def __init__(self, fields: Fields, patch_px: int, seed: int | None, per_field: int = 1) -> None:
        if patch_px % LABEL_PX or patch_px > fields.settings.field_px:
            raise ValueError(f"patches of {patch_px} px cannot be cut from fields along steps of {LABEL_PX} px")
        self._fields, self._patch_px, self._seed, self._per_field = fields, patch_px, seed, per_field
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._fields) * self._per_field

    def __getitem__(self, index: int) -> Sample:
        field = index % len(self._fields)
        steps = self._patch_px // LABEL_PX
        free = self._fields.labels.shape[1] - steps
        if self._seed is None:
            row = column = free // 2
        else:
            rng = np.random.default_rng([self._seed, self.epoch, index])
            row, column = (int(value) for value in rng.integers(free + 1, size=2))
        labels = self._fields.labels[field, row : row + steps, column : column + steps]
        y, x = row * LABEL_PX, column * LABEL_PX
        image = self._fields.pixels[field, y : y + self._patch_px, x : x + self._patch_px]
        return {
            "image": np.array(image),
            "target": class_shares(labels),
            "labels": labels.astype(np.int64),
        }


class JoinedSamples:
    """Several sequences of samples as one.

    Parameters
    ----------
    parts : sequences of samples
        With the same keys.
    """

    def __init__(self, *parts: FieldSamples) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def epoch(self) -> int:
        """Of all parts."""
        return self._parts[0].epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        for part in self._parts:
            part.epoch = epoch

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part][index - int(self._ends[part]) + len(self._parts[part])]


class ImageSamples:
    """Whole images of a data set, brought to the size of a patch.

    A sequence of `image` (uint8 H x H x 3) and `target` (float32 K).

    Parameters
    ----------
    examples : Examples
    rows : int64 N
        Which of them.
    targets : float32 N x K
        Of these, soft or one of K.
    patch_px : int
    """

    def __init__(
        self, examples: Examples, rows: npt.NDArray[np.int64], targets: npt.NDArray[np.float32], patch_px: int
    ) -> None:
        self._examples, self._rows, self._targets, self._patch_px = examples, rows, targets, patch_px
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return {
            "image": fitted(self._examples.read(int(self._rows[index])), self._patch_px),
            "target": self._targets[index],
        }


def fitted(image: RGB, side_px: int) -> RGB:
    """The whole of an image as a square of another size: what its label speaks of must stay in view."""
    height, width = image.shape[:2]
    if (height, width) == (side_px, side_px):
        return np.ascontiguousarray(image)
    shrinking = height * width > side_px * side_px
    resized = cv2.resize(
        image, (side_px, side_px), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    )
    return np.asarray(resized, np.uint8)
