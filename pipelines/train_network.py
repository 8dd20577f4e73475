"""`train` of a network: data as the configuration says, weights fitted, a bundle with its card."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import Progress, TaskID

from pipelines.cluster import available_cores
from pipelines.fingerprint import software_version
from wsi_her2.errors import ConfigurationError, OutputError
from wsi_her2.learning.fields import FIELD_CLASSES, FieldSettings, rendered_fields
from wsi_her2.models.bundle import Training, read_bundle
from wsi_her2.models.calibration import phantom_patches
from wsi_her2.models.classifier import Modality
from wsi_her2.models.networks.architecture import named_architecture
from wsi_her2.phantom.composition import LookName
from wsi_her2.scoring.proportions import response_matrix

FIELDS = "rendered-fields"
"""Beside the trainings, so that several share what was rendered."""

SETTINGS_FILE, METRICS_FILE, BUNDLE = "training.yaml", "metrics.json", "bundle"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldsData(_Section):
    """Digital phantoms, rendered once: `count` fields to train on and `validation_count` to select by.

    `per_field` patches of each field make an epoch. Both parts have scenes of their own.
    """

    kind: Literal["phantoms"]
    looks: tuple[LookName, ...] = Field(min_length=1)
    count: int = Field(ge=8)
    validation_count: int = Field(ge=8)
    field_px: int = Field(512, ge=64)
    per_field: int = Field(2, ge=1)
    seed: int = Field(0, ge=0)


class Optimising(_Section):
    """See `wsi_her2.learning.network_training.Optimisation`."""

    optimiser: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    epsilon: float = Field(1e-8, gt=0)
    amsgrad: bool = False
    batch: int = Field(24, ge=2)
    epochs: int = Field(80, ge=1)
    schedule: Literal["plateau", "cosine", "constant"] = "cosine"
    plateau_patience: int = Field(10, ge=1)
    plateau_metric: Literal["accuracy", "loss"] = "accuracy"
    min_learning_rate: float = Field(6e-7, ge=0)
    stop_after: int = Field(20, ge=0)
    l2: float = Field(0.0, ge=0)
    average: float = Field(0.0, ge=0, lt=1)


class Augmenting(_Section):
    """See `wsi_her2.learning.patch_augmentation.PatchAugmentation`."""

    turns: bool = True
    shift: float = Field(0.0, ge=0, lt=0.5)
    first_stain: float = Field(0.3, ge=0, lt=1)
    second_stain: float = Field(0.1, ge=0, lt=1)
    hue: float = Field(0.03, ge=0, lt=0.3)
    glass: float = Field(0.02, ge=0, lt=0.2)
    blur_px: float = Field(0.6, ge=0, le=3)
    sharpen: float = Field(0.5, ge=0, le=3)


class NetworkTraining(_Section):
    """How a network is trained.

    `start` is 'scratch', 'imagenet', a file of ImageNet weights, or a bundle whose body is taken over.
    `dense_weight` weighs a second loss on the label of every 8 um, which only phantoms have.
    """

    kind: Literal["network"]
    name: str = Field(min_length=1)
    architecture: str
    patch_px: int = Field(ge=64)
    mpp: float = Field(gt=0)
    modality: Modality = "ihc"
    data: FieldsData
    start: str = "scratch"
    freeze_body: bool = False
    class_weights: bool = False
    dense_weight: float = Field(0.0, ge=0)
    optimisation: Optimising = Optimising()
    augmentation: Augmenting = Augmenting()
    seed: int = Field(0, ge=0)


def train_network(
    settings: NetworkTraining, output: Path, workers: int | None, console: Console | None = None
) -> dict[str, Any]:
    """Train a network and write its bundle; a training that was interrupted goes on.

    Parameters
    ----------
    settings : NetworkTraining
    output : pathlib.Path
        Folder: `training.yaml`, `checkpoints/`, `log/`, `curves.png`, `confusion.png`, `metrics.json`, `bundle/`.
    workers : int, optional
        Processes that render, and threads that train; one per core by default.
    console : rich.console.Console, optional
        Where progress goes; stderr by default.

    Returns
    -------
    dict
        What `metrics.json` holds.

    Raises
    ------
    ConfigurationError, OutputError, DatasetError, MissingExtra
    """
    from wsi_her2.models.extras import need

    for package in ("torch", "timm", "lightning", "matplotlib"):
        need(package, "Training a network")
    console = console or Console(stderr=True)
    workers = workers or available_cores()
    _open_folder(output, settings)
    architecture = named_architecture(settings.architecture, len(FIELD_CLASSES), patch_px=settings.patch_px)
    data = settings.data
    fields = []
    with Progress(console=console) as progress:
        for what, count, seed in (
            ("training", data.count, data.seed),
            ("validation", data.validation_count, data.seed + 1),
        ):
            bar = progress.add_task(f"fields for {what}", total=count)
            wanted = FieldSettings(count, data.field_px, settings.mpp, data.looks, seed, settings.modality)
            fields.append(
                rendered_fields(
                    wanted,
                    output.parent / FIELDS,
                    workers,
                    partial(_show, progress, bar),
                )
            )
            progress.update(bar, completed=count)
    import torch

    from wsi_her2.learning.network_training import Optimisation, fit_network, predict_shares
    from wsi_her2.learning.patch_augmentation import PatchAugmentation
    from wsi_her2.learning.pictures import draw_confusion, draw_curves
    from wsi_her2.learning.samples import FieldSamples
    from wsi_her2.models.networks.deployed import build_network
    from wsi_her2.models.packing import Identity, pack

    torch.manual_seed(settings.seed)
    network = build_network(architecture)
    started_from = _start(network, settings)
    train = FieldSamples(fields[0], settings.patch_px, settings.seed, data.per_field)
    validation = FieldSamples(fields[1], settings.patch_px, None)
    fitted = fit_network(
        network,
        train,
        validation,
        output,
        sigmoid=architecture.sigmoid,
        modality=settings.modality,
        optimisation=Optimisation(**settings.optimisation.model_dump()),
        augmentation=PatchAugmentation(**settings.augmentation.model_dump()),
        dense_weight=settings.dense_weight,
        freeze_body=settings.freeze_body,
        seed=settings.seed,
        threads=workers,
        progress=console.is_terminal,
    )
    found, wanted_shares = predict_shares(fitted.network, validation, architecture.sigmoid)
    counted = wanted_shares.sum(axis=1) > 0
    found, wanted_shares = found[counted], wanted_shares[counted]
    response = response_matrix(found, wanted_shares)
    confusion = np.zeros((len(FIELD_CLASSES),) * 2)
    np.add.at(confusion, (wanted_shares.argmax(axis=1), found.argmax(axis=1)), 1)
    draw_curves(fitted.history, fitted.best_epoch, output / "curves.png")
    draw_confusion(confusion, FIELD_CLASSES, "main class of validation patches", output / "confusion.png")
    metrics = {
        "name": settings.name,
        "started_from": started_from,
        "epochs": len(fitted.history.get("validation_loss", [])),
        "best_epoch": fitted.best_epoch,
        "validation_main_class": round(float(np.trace(confusion) / confusion.sum()), 4),
        "validation_share_error": round(float(np.abs(found - wanted_shares).mean()), 4),
        "training_images_per_s": round(fitted.images_per_s, 1),
        "training_seconds": round(fitted.seconds),
        "threads": workers,
        "confusion": confusion.astype(int).tolist(),
        "history": {name: [round(value, 5) for value in values] for name, values in fitted.history.items()},
    }
    (output / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    identity = Identity(
        name=settings.name,
        classes=FIELD_CLASSES,
        mpp=settings.mpp,
        mpp_stated=True,
        modality=settings.modality,
        training=Training(
            status="trained",
            data=f"{data.count} fields of {data.field_px} px of digital phantoms (looks: {', '.join(data.looks)}; "
            f"seed {data.seed}), no tissue of patients",
        ),
        origin=f"trained here, {started_from}",
        version=software_version(),
        outputs="shares",
        confusion=tuple(tuple(round(float(value), 5) for value in row) for row in response),
        statements={
            "training": f"{metrics['epochs']} epochs in {fitted.seconds / 60:.0f} min on {workers} "
            f"{'thread' if workers == 1 else 'threads'}, {fitted.images_per_s:.0f} patches/s",
            "checked_on": f"{data.validation_count} other fields of the same looks: the main class is right in "
            f"{metrics['validation_main_class']:.0%} of the patches, shares are off by "
            f"{100 * float(np.abs(found - wanted_shares).mean()):.1f} points on average",
        },
    )
    patches = phantom_patches(architecture.patch_px, settings.mpp, settings.modality)
    shutil.rmtree(output / BUNDLE, ignore_errors=True)
    bundle = pack(output / BUNDLE, fitted.network, architecture, identity, patches)
    return {"bundle": str(output / BUNDLE), "sha256": bundle.sha256, **metrics}


def _show(progress: Progress, bar: TaskID, done: int, total: int) -> None:
    progress.update(bar, completed=done, total=total)


def _open_folder(output: Path, settings: NetworkTraining) -> None:
    """Make the folder of a training, or see that it holds the same one."""
    described = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    kept = output / SETTINGS_FILE
    try:
        output.mkdir(parents=True, exist_ok=True)
        if kept.is_file() and kept.read_text(encoding="utf-8") != described:
            raise ConfigurationError(
                f"{output}: holds a training with other settings ({SETTINGS_FILE}): name another folder"
            )
        kept.write_text(described, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error


def _start(network: Any, settings: NetworkTraining) -> str:
    """Give the network the weights it starts from; in words where they come from."""
    if settings.start == "scratch":
        return "from new weights"
    if settings.start == "imagenet" or Path(settings.start).is_file():
        if not settings.architecture.startswith("pruneff"):
            raise ConfigurationError(
                "ImageNet weights are for PrunEff; ATHER2 starts from a bundle or from scratch"
            )
        from wsi_her2.models.imagenet import start_from_imagenet

        source = None if settings.start == "imagenet" else settings.start
        return f"from {start_from_imagenet(network, source)}"
    return take_body(network, settings.start)


def take_body(network: Any, bundle_path: str) -> str:
    """Take all weights of a bundle but those of the last layer."""
    import torch

    bundle = read_bundle(bundle_path)
    weights = {k: torch.from_numpy(np.array(v)) for k, v in bundle.weights.items() if not k.startswith("out.")}
    wanted = network.state_dict()
    wrong = [k for k, v in weights.items() if k not in wanted or wanted[k].shape != v.shape]
    if wrong or len(weights) != len([k for k in wanted if not k.startswith("out.")]):
        raise ConfigurationError(
            f"{bundle_path}: its network is {bundle.card.architecture.name}, whose layers are not those of the "
            "network to train"
        )
    network.load_state_dict(weights, strict=False)
    return f"from the bundle {bundle.card.name} ({bundle.sha256[:12]}), last layer new"
