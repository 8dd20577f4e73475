"""`train` of a network: data as the configuration says, weights fitted, a bundle with its card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from pipelines.cluster import available_cores
from pipelines.fingerprint import software_version
from pipelines.training.training_data import Parts, TrainingData, calibration_patches, open_data
from wsi_her2.errors import ConfigurationError, OutputError
from wsi_her2.learning.metrics import evaluate
from wsi_her2.learning.settings import Optimisation, PatchAugmentation
from wsi_her2.models.bundle import Training, bundle_file, read_bundle
from wsi_her2.models.classifier import Modality
from wsi_her2.models.extras import need
from wsi_her2.models.loading import bundle_path
from wsi_her2.models.networks.architecture import USUAL_MPP, named_architecture
from wsi_her2.scoring.proportions import response_matrix

if TYPE_CHECKING:
    from wsi_her2.learning.network_training import Fitted

SETTINGS_FILE, METRICS_FILE, BUNDLE = "training.yaml", "metrics.json", "bundle"


class NetworkTraining(BaseModel):
    """How a network is trained.

    `start` is 'scratch', 'imagenet', a file of ImageNet weights, or a bundle whose weights are taken over, without
    the last layer if the classes are others; `freeze_body` then trains the head only. `dense_weight` weighs a
    second loss on the label of every 8 um, which only phantoms have. `crop_px` trains on smaller patches than the
    network is for: more looks in a step at the same cost, where the label of each place is known. `sigmoid` gives
    two classes one unit. `mpp` is null where images are used whole and nobody knows their scale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["network"]
    name: str = Field(min_length=1)
    architecture: str
    patch_px: int = Field(ge=64)
    mpp: float | None = Field(None, gt=0)
    modality: Modality = "ihc"
    data: TrainingData
    start: str = "scratch"
    freeze_body: bool = False
    sigmoid: bool = False
    class_weights: bool = False
    dense_weight: float = Field(0.0, ge=0)
    crop_px: int | None = Field(None, ge=64)
    optimisation: Optimisation = Optimisation()
    augmentation: PatchAugmentation = PatchAugmentation()
    seed: int = Field(0, ge=0)


def train_network(
    settings: NetworkTraining, output: Path, workers: int | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Train a network and write its bundle; a training that was interrupted goes on.

    Weights are selected on validation. The test part, where there is one, is looked at once, at the end.

    Parameters
    ----------
    settings : NetworkTraining
    output : pathlib.Path
        Folder: `training.yaml`, `split.csv`, `checkpoints/`, `log/`, `curves.png`, `confusion.png`,
        `metrics.json`, `bundle/`.
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
    for package in ("torch", "timm", "lightning", "matplotlib"):
        need(package, "Training a network")
    console = console or Console(stderr=True)
    workers = workers or available_cores()
    _open_folder(output, settings)
    mpp = settings.mpp or USUAL_MPP
    parts = open_data(
        settings.data,
        output,
        patch_px=settings.patch_px,
        mpp=mpp,
        modality=settings.modality,
        seed=settings.seed,
        workers=workers,
        console=console,
        crop_px=settings.crop_px,
    )
    import torch

    from wsi_her2.learning.network_training import fit_network
    from wsi_her2.models.networks.deployed import build_network
    from wsi_her2.models.packing import Identity, pack

    architecture = named_architecture(
        settings.architecture, len(parts.classes), sigmoid=settings.sigmoid, patch_px=settings.patch_px
    )
    if settings.crop_px is not None and settings.crop_px < architecture.min_patch_px:
        raise ConfigurationError(f"crop_px: {architecture.name} needs at least {architecture.min_patch_px} px")
    torch.manual_seed(settings.seed)
    network = build_network(architecture)
    started_from = give_start(network, settings.start, settings.architecture, parts.classes)
    fitted = fit_network(
        network,
        parts.train,
        parts.validation,
        output,
        sigmoid=architecture.sigmoid,
        modality=settings.modality,
        optimisation=settings.optimisation,
        augmentation=settings.augmentation,
        class_weights=_balancing(parts) if settings.class_weights else None,
        dense_weight=settings.dense_weight if parts.outputs == "shares" else 0.0,
        freeze_body=settings.freeze_body,
        seed=settings.seed,
        threads=workers,
        progress=console.is_terminal,
    )
    measured, confusion = _measure(fitted, parts, architecture.sigmoid, output)
    metrics = {
        "name": settings.name,
        "started_from": started_from,
        "trained_on": parts.description,
        "epochs": len(fitted.history.get("validation_loss", [])),
        "best_epoch": fitted.best_epoch,
        "training_images_per_s": round(fitted.images_per_s, 1),
        "training_seconds": round(fitted.seconds),
        "threads": workers,
        **measured,
        "history": {name: [round(value, 5) for value in values] for name, values in fitted.history.items()},
    }
    (output / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    identity = Identity(
        name=settings.name,
        classes=parts.classes,
        mpp=mpp,
        mpp_stated=settings.mpp is not None,
        modality=settings.modality,
        training=Training(status="trained", data=parts.description),
        origin=f"trained here, {started_from}",
        version=software_version(),
        outputs=parts.outputs,
        confusion=confusion,
        statements=_statements(metrics, workers, _earlier_training(settings.start)),
    )
    patches = calibration_patches(parts, architecture.patch_px, mpp, settings.modality)
    shutil.rmtree(output / BUNDLE, ignore_errors=True)
    bundle = pack(output / BUNDLE, fitted.network, architecture, identity, patches)
    return {"bundle": str(output / BUNDLE), "sha256": bundle.sha256, **metrics}


def give_start(network: Any, start: str, architecture: str, classes: tuple[str, ...]) -> str:
    """Give a network the weights that it starts from; in words where they come from.

    Raises
    ------
    ConfigurationError, ClassifierError
    """
    if start == "scratch":
        return "from new weights"
    if start == "imagenet" or Path(start).suffix.lower() in (".h5", ".hdf5", ".pth", ".bin"):
        if not architecture.startswith("pruneff"):
            raise ConfigurationError(
                "ImageNet weights are for PrunEff; ATHER2 starts from a bundle or from scratch"
            )
        from wsi_her2.models.imagenet import start_from_imagenet

        return f"from {start_from_imagenet(network, None if start == 'imagenet' else start)}"
    import torch

    bundle = read_bundle(bundle_path(start) or start)
    # The last layer knows the classes of its task; another task begins with a new one.
    same_task = bundle.card.classes == classes
    kept = {k: v for k, v in bundle.weights.items() if same_task or not k.startswith("out.")}
    wanted = {k: v for k, v in network.state_dict().items() if same_task or not k.startswith("out.")}
    if kept.keys() != wanted.keys() or any(kept[k].size != wanted[k].numel() for k in kept):
        raise ConfigurationError(
            f"{start}: its network is {bundle.card.architecture.name}, not a start for {architecture}"
        )
    state = {k: torch.from_numpy(np.array(v)).reshape(wanted[k].shape) for k, v in kept.items()}
    network.load_state_dict(state, strict=False)
    last = "" if same_task else ", with a new last layer"
    return f"from {bundle.card.name} ({bundle.card.training.data or 'untrained'}){last}"


def _balancing(parts: Parts) -> Any:
    """Weights that let every class count alike; their mean over the training part is 1."""
    counts = np.maximum(parts.class_counts, 1)
    return (counts.sum() / (len(counts) * counts)).astype(np.float32)


def _measure(
    fitted: Fitted, parts: Parts, sigmoid: bool, output: Path
) -> tuple[dict[str, Any], tuple[tuple[float, ...], ...] | None]:
    """Figures on validation, and on the test part once; pictures; the matrix that corrects proportions."""
    from wsi_her2.learning.network_training import predict_shares
    from wsi_her2.learning.pictures import draw_confusion, draw_curves

    found, true = predict_shares(fitted.network, parts.validation, sigmoid)
    counted = true.sum(axis=1) > 0
    found, true = found[counted], true[counted]
    groups = np.asarray(parts.validation_groups)[counted]
    validation = evaluate(found, true.argmax(axis=1), parts.classes, groups)
    measured: dict[str, Any] = {"validation": validation.as_dict()}
    shown, what = validation, "validation"
    if parts.test is not None:
        tested, wanted = predict_shares(fitted.network, parts.test, sigmoid)
        shown, what = evaluate(tested, wanted.argmax(axis=1), parts.classes, parts.test_groups), "test"
        measured["test"] = shown.as_dict()
    draw_curves(fitted.history, fitted.best_epoch, output / "curves.png")
    title = f"{what}, main class" if parts.outputs == "shares" else what
    draw_confusion(shown.confusion.astype(np.float64), parts.classes, title, output / "confusion.png")
    if parts.outputs == "shares":
        measured["share_error"] = round(float(np.abs(found - true).mean()), 5)
        response = response_matrix(found, true)
    else:
        assigned = np.eye(len(parts.classes), dtype=np.float32)[found.argmax(axis=1)]
        response = response_matrix(assigned, true)
    return measured, tuple(tuple(round(float(value), 5) for value in row) for row in response)


def _earlier_training(start: str) -> str:
    """What the card of the bundle that was started from says of its own training; empty for other starts."""
    path = bundle_path(start) or start
    return read_bundle(path).card.statements.get("training", "") if bundle_file(path) is not None else ""


def _statements(metrics: dict[str, Any], workers: int, earlier: str) -> dict[str, str]:
    part = "test" if "test" in metrics else "validation"
    accuracy = metrics[part]["metrics"]["accuracy"]
    statements = {
        "training": f"{metrics['epochs']} epochs in {metrics['training_seconds'] / 60:.0f} min on {workers} "
        f"{'thread' if workers == 1 else 'threads'}, {metrics['training_images_per_s']:.0f} patches/s"
        + (f"; before that {earlier}" if earlier else ""),
        "checked_on": f"{metrics[part]['images']} {part} patches: the main class is right in {accuracy[0]:.1%} "
        f"({accuracy[1]:.1%} to {accuracy[2]:.1%})",
    }
    if "share_error" in metrics:
        statements["checked_on"] += f"; shares are off by {100 * metrics['share_error']:.1f} points on average"
    return statements


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
