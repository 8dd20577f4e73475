"""`train`: fit a classifier as a configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from pipelines.configuration import read_mapping
from pipelines.training.train_cells import CellTraining, train_cells
from pipelines.training.train_membrane import MembraneTraining, train_membrane
from pipelines.training.train_network import NetworkTraining, train_network
from wsi_her2.errors import ConfigurationError
from wsi_her2.messages import wrong_fields

_KINDS = ("membrane", "cells", "network")


def train(
    config: str | Path, output: Path, workers: int | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Fit a classifier and write it.

    Parameters
    ----------
    config : str or pathlib.Path
        Name of a preset, or a YAML file.
    output : pathlib.Path
        The JSON file of a membrane scorer, the safetensors file of the network for cells, or the folder of a
        network's training.
    workers : int, optional
        Processes; one per core by default.
    console : rich.console.Console, optional
        Where progress goes; stderr by default.

    Returns
    -------
    dict
        What was measured, and the card.

    Raises
    ------
    ConfigurationError, OutputError, DatasetError, MissingExtra
    """
    source, described = read_mapping(config)
    kind = str(described.get("kind"))
    if kind not in _KINDS:
        raise ConfigurationError(f"{source}: kind is {kind!r}; there are {', '.join(_KINDS)}")
    try:
        if kind == "membrane":
            return train_membrane(MembraneTraining.model_validate(described), output, workers, console)
        if kind == "cells":
            return train_cells(CellTraining.model_validate(described), output, workers, console)
        return train_network(NetworkTraining.model_validate(described), output, workers, console)
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {wrong_fields(error)}") from error
