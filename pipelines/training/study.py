"""The study of the publication as one command: every experiment trained, tested on unseen data, and reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.console import Console

from pipelines.configuration import read_mapping
from pipelines.results import write_json
from pipelines.training.study_report import write_study_report
from pipelines.training.train_network import BUNDLE, METRICS_FILE, NetworkTraining, train_network
from pipelines.training.training_data import WarwickData, read_images
from wsi_her2.errors import ConfigurationError, OutputError
from wsi_her2.learning.metrics import evaluate
from wsi_her2.learning.miniature import make_miniatures
from wsi_her2.learning.samples import ImageSamples
from wsi_her2.models.classifier import Modality
from wsi_her2.models.loading import load_classifier
from wsi_her2.models.networks.architecture import Family

Task = Literal["grades", "binary"]
PUBLISHED_PATCH_PX: dict[Family, int] = {"pruneff": 224, "ather2": 512}
RESULT_FILE, SETTINGS_FILE = "result.json", "study.yaml"
_BATCH = 32


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WarwickPlace(_Section):
    """Where the slides are, and what is cut out of them."""

    folder: Path
    truth: Path
    field_px: int | None = Field(None, ge=16)
    field_mpp: float | None = Field(None, gt=0)
    per_slide: int = Field(200, ge=1)


class Study(_Section):
    """What is compared; `configs/study.yaml` describes each setting."""

    kind: Literal["study"]
    miniature: bool = False
    bci: Path | None = None
    breakhis: Path | None = None
    warwick: WarwickPlace | None = None
    networks: tuple[str, ...] = ("pruneff4", "ather2")
    modalities: tuple[Modality, ...] = ("ihc", "he")
    tasks: tuple[Task, ...] = ("grades", "binary")
    pretraining: tuple[bool, ...] = (False, True)
    cuts: tuple[int, ...] = (1, 2, 3, 4, 5)
    patch_px: dict[Family, int] = PUBLISHED_PATCH_PX
    imagenet: str = "imagenet"
    epochs: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _data_named(self) -> Study:
        if self.bci is None and not self.miniature:
            raise ValueError("bci: name the folder of BCI, on which the networks are developed")
        return self


@dataclass(frozen=True)
class Experiment:
    """One training and its tests.

    Attributes
    ----------
    architecture : str
        'pruneff1' to 'pruneff5', 'ather2'.
    modality : {'ihc', 'he'}
    task : {'grades', 'binary'}
    pretrained : bool
    sweep : bool
        Whether it belongs to the pruning sweep only.
    """

    architecture: str
    modality: Modality
    task: Task
    pretrained: bool
    sweep: bool = False

    @property
    def name(self) -> str:
        """Of its folder."""
        start = "pretrained" if self.pretrained else "scratch"
        return f"{self.architecture}-{self.modality}-{self.task}-{start}"

    @property
    def family(self) -> Family:
        """Of the network."""
        return "ather2" if self.architecture == "ather2" else "pruneff"


def run_study(
    config: str | Path, output: Path, workers: int | None = None, console: Console | None = None
) -> list[dict[str, Any]]:
    """Run all experiments that have no result yet, and write the report over all of them.

    Parameters
    ----------
    config : str or pathlib.Path
        Name of a preset, or a YAML file.
    output : pathlib.Path
        Folder: one for each experiment, `study.csv`, `report.html` and its pictures.
    workers : int, optional
        Threads that train; one per core by default.
    console : rich.console.Console, optional
        Where progress goes; stderr by default.

    Returns
    -------
    list of dict
        The results, in the order of the experiments.

    Raises
    ------
    ConfigurationError, OutputError, DatasetError, MissingExtra
    """
    console = console or Console(stderr=True)
    study = _read(config)
    output.mkdir(parents=True, exist_ok=True)
    _keep_settings(study, output)
    if study.miniature:
        study = _with_miniatures(study, output)
    results = []
    planned = list(experiments(study))
    for number, experiment in enumerate(planned, 1):
        console.print(f"{number} of {len(planned)}: {experiment.name}")
        results.append(_run(experiment, study, output, workers, console))
        write_study_report(output, results, miniature=study.miniature)
    return results


def experiments(study: Study) -> Iterator[Experiment]:
    """All experiments of a study; those of the pruning sweep that are none of the others come last."""
    named = set()
    for architecture in study.networks:
        for modality in study.modalities:
            for task in study.tasks:
                for pretrained in study.pretraining:
                    if pretrained and architecture == "ather2" and study.breakhis is None:
                        continue
                    experiment = Experiment(architecture, modality, task, pretrained)
                    named.add(experiment.name)
                    yield experiment
    for cut in study.cuts:
        experiment = Experiment(f"pruneff{cut}", "ihc", "grades", True in study.pretraining, sweep=True)
        if experiment.name not in named:
            yield experiment


def _read(config: str | Path) -> Study:
    source, described = read_mapping(config)
    try:
        return Study.model_validate(described)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{source}: {wrong}") from error


def _keep_settings(study: Study, output: Path) -> None:
    described = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)
    kept = output / SETTINGS_FILE
    if kept.is_file() and kept.read_text(encoding="utf-8") != described:
        raise ConfigurationError(f"{output}: holds a study with other settings: name another folder")
    try:
        kept.write_text(described, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error


def _with_miniatures(study: Study, output: Path) -> Study:
    """Draw the data sets in their real layouts and point the study at them."""
    folder = output / "miniatures"
    if not folder.is_dir():
        beside = output / "miniatures.partial"
        make_miniatures(beside, kinds=("bci", "breakhis", "warwick"), seed=study.seed)
        beside.rename(folder)
    warwick = WarwickPlace(
        folder=folder / "warwick", truth=folder / "warwick" / "ground_truth.csv", field_px=96, field_mpp=0.5
    )
    return study.model_copy(update={"bci": folder / "bci", "breakhis": folder / "breakhis", "warwick": warwick})


def _run(
    experiment: Experiment, study: Study, output: Path, workers: int | None, console: Console
) -> dict[str, Any]:
    folder = output / experiment.name
    kept = folder / RESULT_FILE
    if kept.is_file():
        earlier: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return earlier
    data = {
        "kind": "bci",
        "folder": str(study.bci),
        "grouping": experiment.task,
        "any_size": study.miniature,
        "split_seed": study.seed,
    }
    start = "scratch"
    if experiment.pretrained:
        start = study.imagenet
        if experiment.family == "ather2":
            start = str(_pretrained_on_breakhis(study, output, workers, console))
    train_network(_settings(experiment, study, data, start, experiment.modality), folder, workers, console)
    metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    result = {
        "name": experiment.name,
        "architecture": experiment.architecture,
        "modality": experiment.modality,
        "task": experiment.task,
        "pretrained": experiment.pretrained,
        "sweep": experiment.sweep,
        "started_from": metrics["started_from"],
        "parameters": load_parameters(folder / BUNDLE),
        "training_seconds": metrics["training_seconds"],
        "validation": metrics["validation"],
        "test": metrics.get("test"),
        "external": _external(experiment, study, folder / BUNDLE),
    }
    write_json(kept, result)
    return result


def load_parameters(bundle: Path) -> int:
    """Parameters of a bundle's network."""
    from wsi_her2.models.bundle import read_bundle

    return read_bundle(bundle).card.parameters


def _settings(
    experiment: Experiment, study: Study, data: dict[str, Any], start: str, modality: Modality
) -> NetworkTraining:
    """The publication's settings for the network, with the study's data."""
    _, described = read_mapping("paper-ather2" if experiment.family == "ather2" else "paper-pruneff4")
    described |= {
        "name": experiment.name,
        "architecture": experiment.architecture,
        "patch_px": study.patch_px[experiment.family],
        "modality": modality,
        "data": data,
        "start": start,
        "seed": study.seed,
    }
    if study.epochs is not None:
        described["optimisation"]["epochs"] = study.epochs
    return NetworkTraining.model_validate(described)


def _pretrained_on_breakhis(study: Study, output: Path, workers: int | None, console: Console) -> Path:
    """ATHER2 that tells benign from malignant; made once for all experiments."""
    folder = output / "pretraining-ather2-breakhis"
    bundle = folder / BUNDLE
    if not bundle.is_dir():
        console.print("pretraining: ATHER2 on BreakHis")
        experiment = Experiment("ather2", "he", "binary", pretrained=False)
        data = {"kind": "breakhis", "folder": str(study.breakhis), "any_size": study.miniature}
        settings = _settings(experiment, study, data, "scratch", "he")
        train_network(settings.model_copy(update={"name": "ather2-breakhis"}), folder, workers, console)
    return bundle


def _external(experiment: Experiment, study: Study, bundle: Path) -> dict[str, Any] | None:
    """Figures on Warwick, of which no training has seen anything; None where it is left out."""
    if study.warwick is None:
        return None
    side = study.patch_px[experiment.family]
    data = WarwickData(kind="warwick", grouping=experiment.task, **study.warwick.model_dump(exclude_none=True))
    dataset = read_images(data, experiment.modality, side, 0.5).dataset
    samples = ImageSamples(dataset, np.arange(len(dataset)), dataset.targets, side)
    classifier = load_classifier(bundle)
    found = [
        classifier.predict(np.stack([samples[row]["image"] for row in rows]))
        for rows in np.array_split(np.arange(len(dataset)), max(1, len(dataset) // _BATCH))
    ]
    labels = dataset.targets.argmax(axis=1).astype(np.int64)
    return evaluate(np.concatenate(found), labels, dataset.classes, dataset.groups).as_dict()
