"""What a network is trained on: a section of its configuration, and the samples that the section stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import Progress, TaskID

from wsi_her2.errors import ConfigurationError
from wsi_her2.learning.datasets import (
    Dataset,
    PatchPlan,
    Reading,
    read_bci,
    read_breakhis,
    read_folder,
    read_stores,
    read_warwick,
)
from wsi_her2.learning.fields import FIELD_CLASSES, FieldSettings, rendered_fields
from wsi_her2.learning.samples import FieldSamples, ImageSamples, JoinedSamples
from wsi_her2.learning.splits import check_split, split_by_group, write_split
from wsi_her2.models.calibration import CALIBRATION_PATCHES, HELD_OUT_PATCHES, CalibrationPatches, phantom_patches
from wsi_her2.models.classifier import Modality, Outputs
from wsi_her2.phantom.composition import LookName

FIELDS = "rendered-fields"
"""Beside the trainings, so that several share what was rendered."""

SPLIT_FILE, FINDINGS_FILE = "split.csv", "data-findings.txt"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PhantomSlides(_Section):
    """Digital slides with some fields of each: they hold what a slide holds beside its tumour."""

    count: int = Field(ge=1)
    validation_count: int = Field(ge=1)
    fields: int = Field(12, ge=2)
    seed: int = Field(0, ge=0)


class PhantomsData(_Section):
    """Digital phantoms, rendered once: `count` fields to train on and `validation_count` to select by.

    Both parts have scenes of their own, and `slides` of their own where they are asked for. `per_field` patches of
    each field make an epoch.
    """

    kind: Literal["phantoms"]
    looks: tuple[LookName, ...] = Field(min_length=1)
    count: int = Field(ge=8)
    validation_count: int = Field(ge=8)
    slides: PhantomSlides | None = None
    field_px: int = Field(512, ge=64)
    per_field: int = Field(2, ge=1)
    seed: int = Field(0, ge=0)


class _Images(_Section):
    """Images on disk; what was not published as a part of its own is divided, by group."""

    folder: Path
    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.0, ge=0, lt=1)
    split_seed: int = Field(0, ge=0)


class BciData(_Images):
    """BCI as published."""

    kind: Literal["bci"]
    grouping: Literal["grades", "binary"] = "grades"
    any_size: bool = False


class BreakhisData(_Images):
    """BreakHis as published, split by patient; H&E only."""

    kind: Literal["breakhis"]
    magnifications: tuple[int, ...] = (40, 100, 200, 400)
    any_size: bool = False


class WarwickData(_Images):
    """Slides of the Warwick contest with their table, split by case.

    `field_px` and `field_mpp` are the size of what is cut out of a slide, by default that of the network's patch;
    it is then brought to the network's size.
    """

    kind: Literal["warwick"]
    field_px: int | None = Field(None, ge=16)
    field_mpp: float | None = Field(None, gt=0)
    truth: Path
    regions: Path | None = None
    grouping: Literal["grades", "binary"] = "grades"
    per_slide: int = Field(500, ge=1)


class FolderData(_Images):
    """Folders of classes, with or without folders of parts above them."""

    kind: Literal["folder"]


class StoresData(_Images):
    """Patch stores that `score --store-patches` made, with a table of labels."""

    kind: Literal["stores"]
    labels: Path


TrainingData = Annotated[
    PhantomsData | BciData | BreakhisData | WarwickData | FolderData | StoresData, Field(discriminator="kind")
]


@dataclass(frozen=True, eq=False)
class Parts:
    """Samples of each part, and what the card says of them.

    Attributes
    ----------
    classes : tuple of str
    outputs : {'classes', 'shares'}
    train, validation : sequences of samples
    test : sequence of samples or None
    test_groups : tuple of str
        Group of each sample of the test part.
    validation_groups : tuple of str
    description : str
        Of the training part, in words.
    class_counts : float64 K
        Of the training part.
    """

    classes: tuple[str, ...]
    outputs: Outputs
    train: Any
    validation: Any
    test: Any | None
    test_groups: tuple[str, ...]
    validation_groups: tuple[str, ...]
    description: str
    class_counts: npt.NDArray[np.float64]


def open_data(
    data: TrainingData, output: Path, *, patch_px: int, mpp: float, modality: Modality, seed: int, workers: int,
    console: Console, crop_px: int | None = None,
) -> Parts:  # fmt: skip
    """The samples of a section; the split and what was found wrong are written to the training's folder.

    With `crop_px`, patches to train on are of that side; those to select by are whole.

    Raises
    ------
    DatasetError, ConfigurationError
    """
    if isinstance(data, PhantomsData):
        crop = crop_px or patch_px
        return _from_phantoms(data, output, patch_px, crop, mpp, modality, seed, workers, console)
    if crop_px is not None:
        raise ConfigurationError("crop_px is for phantoms: the label of an image is that of the whole of it")
    reading = read_images(data, modality, patch_px, mpp)
    (output / FINDINGS_FILE).write_text("".join(f"{finding}\n" for finding in reading.findings), encoding="utf-8")
    if reading.findings:
        console.print(f"{len(reading.findings)} findings in the data: {output / FINDINGS_FILE}")
    return _split(_as_scored(reading.dataset), data, output, patch_px, console)


def _as_scored(dataset: Dataset) -> Dataset:
    """With the white point at 255 where it is known: so `score` hands patches to a classifier for IHC."""
    return replace(dataset, white_corrected=dataset.modality == "ihc")


def read_images(data: TrainingData, modality: Modality, patch_px: int, mpp: float) -> Reading:
    """Read images on disk as a section says.

    Raises
    ------
    DatasetError, ConfigurationError
    """
    if isinstance(data, BciData):
        size: dict[str, Any] = {"size": None} if data.any_size else {}
        return read_bci(data.folder, modality=modality, grouping=data.grouping, **size)
    if isinstance(data, BreakhisData):
        if modality != "he":
            raise ConfigurationError("BreakHis is H&E: set modality to he")
        size = {"size": None} if data.any_size else {}
        return read_breakhis(data.folder, magnifications=data.magnifications, **size)
    if isinstance(data, WarwickData):
        plan = PatchPlan(patch_px=data.field_px or patch_px, mpp=data.field_mpp or mpp, per_slide=data.per_slide)
        return read_warwick(
            data.folder, data.truth, modality=modality, grouping=data.grouping, plan=plan, regions=data.regions
        )
    if isinstance(data, FolderData):
        return read_folder(data.folder, modality=modality)
    if isinstance(data, StoresData):
        return read_stores(data.folder, data.labels, modality=modality)
    raise ConfigurationError(f"{data.kind} are not images on disk")


def calibration_patches(parts: Parts, patch_px: int, mpp: float, modality: Modality) -> CalibrationPatches:
    """What to quantise on: validation images where there are enough, digital phantoms otherwise."""
    if parts.outputs == "shares" or len(parts.validation) < 4:
        return phantom_patches(patch_px, mpp, modality)
    wanted = min(len(parts.validation), CALIBRATION_PATCHES + HELD_OUT_PATCHES)
    chosen = np.linspace(0, len(parts.validation) - 1, wanted).astype(int)
    images = np.stack([parts.validation[int(index)]["image"] for index in chosen])
    return CalibrationPatches(images[::2], images[1::2], "validation images")


def _from_phantoms(
    data: PhantomsData, output: Path, patch_px: int, crop_px: int, mpp: float, modality: Modality, seed: int,
    workers: int, console: Console,
) -> Parts:  # fmt: skip
    def wanted(count: int, seed: int, per_slide: int = 1) -> FieldSettings:
        return FieldSettings(count * per_slide, data.field_px, mpp, data.looks, seed, modality, per_slide)

    parts = [
        ("training", wanted(data.count, data.seed)),
        ("validation", wanted(data.validation_count, data.seed + 1)),
    ]
    said = f"{data.count} fields"
    if data.slides is not None:
        slides, each = data.slides, data.slides.fields
        said += f" and {slides.count} slides with {each} fields each,"
        parts.append(("training, from slides", wanted(slides.count, slides.seed, each)))
        parts.append(("validation, from slides", wanted(slides.validation_count, slides.seed + 1, each)))
    fields = []
    with Progress(console=console) as progress:
        for what, settings in parts:
            bar = progress.add_task(f"fields for {what}", total=settings.count)
            show: Callable[[int, int], None] = partial(_show, progress, bar)
            fields.append(rendered_fields(settings, output.parent / FIELDS, workers, show))
            progress.update(bar, completed=settings.count)
    trained, held = fields[::2], fields[1::2]
    labels = np.concatenate([part.labels for part in trained])
    return Parts(
        classes=FIELD_CLASSES,
        outputs="shares",
        train=JoinedSamples(*(FieldSamples(part, crop_px, seed, data.per_field) for part in trained)),
        validation=JoinedSamples(*(FieldSamples(part, patch_px, None) for part in held)),
        test=None,
        test_groups=(),
        validation_groups=tuple(
            f"{part.settings.seed}-{number // part.settings.per_slide}"
            for part in held
            for number in range(len(part))
        ),
        description=f"{said} of {data.field_px} px of digital phantoms (looks: "
        f"{', '.join(data.looks)}; seed {data.seed}), no tissue of patients",
        class_counts=np.array([(labels == index).sum() for index in range(len(FIELD_CLASSES))], np.float64),
    )


def _show(progress: Progress, bar: TaskID, done: int, total: int) -> None:
    progress.update(bar, completed=done, total=total)


def _split(dataset: Dataset, data: _Images, output: Path, patch_px: int, console: Console) -> Parts:
    published = {example.part for example in dataset.examples} - {None}
    fractions: dict[Any, float] = {"train": 1 - data.validation - data.test, "validation": data.validation}
    if "test" in published or data.test > 0:
        share = data.test or float(np.mean([example.part == "test" for example in dataset.examples]))
        share = min(max(share, 0.01), 0.8)
        fractions = {
            "train": (1 - share) * (1 - data.validation),
            "validation": (1 - share) * data.validation,
            "test": share,
        }
    split = split_by_group(dataset, fractions, data.split_seed)
    write_split(split, dataset, output / SPLIT_FILE)
    for finding in check_split(dataset, split):
        console.print(str(finding))
    rows = {part: split.indices(part) for part in ("train", "validation", "test")}
    samples = {
        part: ImageSamples(dataset, indices, dataset.targets[indices], patch_px) for part, indices in rows.items()
    }
    groups = np.asarray(dataset.groups)
    trained_on = len(set(groups[rows["train"]]))
    return Parts(
        classes=dataset.classes,
        outputs="classes",
        train=samples["train"],
        validation=samples["validation"],
        test=samples["test"] if len(rows["test"]) else None,
        test_groups=tuple(groups[rows["test"]]),
        validation_groups=tuple(groups[rows["validation"]]),
        description=f"{len(rows['train'])} {dataset.modality.upper()} images of {dataset.name} in "
        f"{trained_on} groups",
        class_counts=dataset.targets[rows["train"]].sum(axis=0).astype(np.float64),
    )
