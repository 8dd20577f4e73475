"""The common noun of learning: a `Dataset` of `Example` records, read one picture at a time.

A data set holds where pictures lie and what is true of them, never pixels of files and never an open handle, so
that it can be sent to any number of worker processes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.errors import DatasetError
from wsi_her2.models.classifier import Modality
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.white_point import white_table

Float32 = npt.NDArray[np.float32]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

_SHARES_SUM_WITHIN = 1e-3


class Pixels(Protocol):
    """Where the picture of an example comes from: small, picklable, opened when it is read."""

    def read(self) -> RGB:
        """The picture (uint8 H x W x 3)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled picture.

    Attributes
    ----------
    id : str
        Unique in its data set, and the same whenever and wherever the data are read.
    source : str
        Name of the data set that it comes from.
    group : str
        What must stay on one side of a split: the patient, case, slide or scene. Two examples with the same group
        belong together even if they come from different data sets.
    label : str or tuple of float
        A class, or the share of each class, in the order of `Dataset.classes`, adding up to 1.
    pixels : Pixels
    modality : {'ihc', 'he'}
    part : {'train', 'validation', 'test'} or None
        Where whoever published the data put it.
    mpp : float or None
        Microns per pixel, where it is known.
    magnification : int or None
        As published, where it is published instead of a scale.
    white_point : tuple of float or None
        Grey levels of the empty glass of the slide, where they are known.
    """

    id: str
    source: str
    group: str
    label: str | tuple[float, ...]
    pixels: Pixels
    modality: Modality
    part: Part | None = None
    mpp: float | None = None
    magnification: int | None = None
    white_point: tuple[float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled pictures of one modality.

    Attributes
    ----------
    name : str
    classes : tuple of str
        In the order of the columns of `targets`.
    modality : {'ihc', 'he'}
    examples : tuple of Example
    white_corrected : bool
        Whether `read` scales the white point of an example to 255, which is what `score` does to IHC patches
        before it classifies them. Examples of unknown white point stay as they are.

    Raises
    ------
    DatasetError
        Classes or identifiers repeat, a label is not one of the classes or not shares of them, or an example is
        of another modality.
    """

    name: str
    classes: tuple[str, ...]
    modality: Modality
    examples: tuple[Example, ...]
    white_corrected: bool = False

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise DatasetError(f"{self.name}: classes must be there and differ, not {self.classes}")
        known = set(self.classes)
        seen: set[str] = set()
        for example in self.examples:
            where = f"{self.name}: example {example.id!r}"
            if example.id in seen:
                raise DatasetError(f"{where} is there twice; identifiers must differ")
            seen.add(example.id)
            if example.modality != self.modality:
                raise DatasetError(f"{where} is {example.modality}, the data set is {self.modality}")
            wrong = _wrong_label(example.label, known, len(self.classes))
            if wrong:
                raise DatasetError(f"{where}: {wrong}")

    def __len__(self) -> int:
        return len(self.examples)

    def read(self, index: int) -> RGB:
        """The picture of an example (uint8 H x W x 3).

        Raises
        ------
        DatasetError, SlideReadError, StoreError
            It cannot be decoded; the message names the file.
        """
        example = self.examples[index]
        pixels = example.pixels.read()
        if self.white_corrected and example.white_point is not None:
            return np.asarray(cv2.LUT(pixels, white_table(example.white_point)), np.uint8)
        return pixels

    @cached_property
    def targets(self) -> Float32:
        """Share of each class in each example (float32 N x K, rows sum to 1)."""
        targets = np.zeros((len(self), len(self.classes)), np.float32)
        column = {name: index for index, name in enumerate(self.classes)}
        for row, example in zip(targets, self.examples, strict=True):
            if isinstance(example.label, str):
                row[column[example.label]] = 1
            else:
                row[:] = np.asarray(example.label, np.float64) / sum(example.label)
        return targets

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The group of each example."""
        return tuple(example.group for example in self.examples)

    @property
    def ids(self) -> tuple[str, ...]:
        """The identifier of each example."""
        return tuple(example.id for example in self.examples)

    @property
    def mpp(self) -> float | None:
        """Microns per pixel, None where they differ or are not known."""
        scales = {example.mpp for example in self.examples}
        return scales.pop() if len(scales) == 1 else None

    def subset(self, indices: Iterable[int]) -> Dataset:
        """The data set of some of the examples, in the order given."""
        return replace(self, examples=tuple(self.examples[int(index)] for index in indices))

    def describe(self) -> dict[str, Any]:
        """What the data set is, for headers and cards: counts, sources, and a sha256 of ids, groups and labels."""
        rows = sorted([example.id, example.group, label_text(example.label)] for example in self.examples)
        content = json.dumps([list(self.classes), rows], ensure_ascii=True).encode()
        return {
            "name": self.name,
            "classes": list(self.classes),
            "modality": self.modality,
            "examples": len(self),
            "groups": len(set(self.groups)),
            "sources": sorted({example.source for example in self.examples}),
            "sha256": hashlib.sha256(content).hexdigest(),
        }


def combine(
    datasets: Sequence[Dataset], *, name: str = "combined", classes: Sequence[str] | None = None
) -> Dataset:
    """Put data sets together.

    Groups keep their names, so that a patient whose pictures are in two of them is still one group. Identifiers
    get the name of their data set in front.

    Parameters
    ----------
    datasets : sequence of Dataset
    name : str
    classes : sequence of str, optional
        Needed where the classes of the data sets differ; must hold all of them.

    Raises
    ------
    DatasetError
        There is none, two have the same name, they differ in modality or white point correction, or a class of
        one is missing.
    """
    if not datasets:
        raise DatasetError(f"{name}: there is no data set to put together")
    first = datasets[0]
    if len({dataset.name for dataset in datasets}) < len(datasets):
        raise DatasetError(f"{name}: two data sets have the same name; give each its own with name=")
    if any((d.modality, d.white_corrected) != (first.modality, first.white_corrected) for d in datasets):
        raise DatasetError(f"{name}: the data sets differ in modality or in white point correction")
    wanted = first.classes if classes is None else tuple(classes)
    for dataset in datasets:
        missing = [each for each in dataset.classes if each not in wanted]
        if missing or (classes is None and dataset.classes != wanted):
            raise DatasetError(
                f"{name}: {dataset.name} has the classes {', '.join(dataset.classes)}, asked for are "
                f"{', '.join(wanted)}. Pass classes= with all the classes in the order that you want."
            )
    examples = tuple(
        replace(example, id=f"{dataset.name}:{example.id}", label=_relaid(example.label, dataset.classes, wanted))
        for dataset in datasets
        for example in dataset.examples
    )
    return Dataset(name, wanted, first.modality, examples, first.white_corrected)


def label_text(label: str | tuple[float, ...]) -> str:
    """A label as text: the class, or the shares with six digits, separated by semicolons."""
    return label if isinstance(label, str) else ";".join(f"{share:.6f}" for share in label)


def _wrong_label(label: str | tuple[float, ...], classes: set[str], count: int) -> str | None:
    if isinstance(label, str):
        return None if label in classes else f"the label {label!r} is not one of {', '.join(sorted(classes))}"
    if len(label) != count:
        return f"{len(label)} shares for {count} classes"
    if not all(math.isfinite(share) and share >= 0 for share in label):
        return f"shares must be numbers from 0 on, not {label}"
    if abs(sum(label) - 1) > _SHARES_SUM_WITHIN:
        return f"shares must add up to 1, not to {sum(label):g}"
    return None


def _relaid(
    label: str | tuple[float, ...], classes: tuple[str, ...], wanted: tuple[str, ...]
) -> str | tuple[float, ...]:
    if isinstance(label, str) or classes == wanted:
        return label
    share = dict(zip(classes, label, strict=True))
    return tuple(share.get(name, 0.0) for name in wanted)
