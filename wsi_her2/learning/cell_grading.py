"""Fitting the network that grades cells: `wsi_her2.cells.grading` is how it runs, without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_her2.atomic import file_beside
from wsi_her2.cells.grading import BORDERS, NEIGHBOURHOODS_UM
from wsi_her2.cells.rings import DIRECTIONS, MEASURES
from wsi_her2.learning.cell_views import FieldViews
from wsi_her2.learning.settings import GradingFit
from wsi_her2.models.onnx_export import traceless_onnx

_FIELDS_PER_STEP = 24
_DROPPED = 0.1
_WARM_UP_STEPS = 100

_ALONE, _LOOSE, _MOVED_STEPS = 0.2, 0.3, (-5, 2)
"""Digital tumours are crowded, tissue is not always. So of some fields the neighbours are not shown, and of some
the rays are moved towards the nucleus or away from it, as where a cell has room around it."""


@dataclass(frozen=True)
class Graded:
    """How well cells are graded.

    Attributes
    ----------
    accuracy : float
        Share of the tumour cells of the right class, mean over slides.
    tumour : float
        Share of all nuclei, and of what was taken for one, that are rightly told to be of the tumour or not.
    confusion : tuple of tuple of float
        4 x 4, rows true, each adding up to 1.
    """

    accuracy: float
    tumour: float
    confusion: tuple[tuple[float, ...], ...]


class GradingNetwork(nn.Module):
    """Rays around a cell and what its neighbours show, to log odds: of each border, of being of the tumour."""

    def __init__(self, of_ring: int, of_centre: int, width: int) -> None:
        super().__init__()
        around = {"padding_mode": "circular"}
        self.first = nn.Conv1d(of_ring, width, 3, padding=1, **around)  # type: ignore[arg-type]
        self.second = nn.Conv1d(width, width, 5, padding=2, **around)  # type: ignore[arg-type]
        self.third = nn.Conv1d(width, width, 5, padding=4, dilation=2, **around)  # type: ignore[arg-type]
        self.cell = nn.Linear(2 * width + of_centre, width)
        self.neighbours = nn.Linear(width * (1 + len(NEIGHBOURHOODS_UM)), width)
        self.odds = nn.Linear(width, len(BORDERS) + 1)
        self.drop = nn.Dropout(_DROPPED)

    def forward(self, rings: Tensor, centre: Tensor, neighbours: Sequence[Tensor]) -> Tensor:
        """Log odds (N x 4) of the cells of some fields, one after the other; neighbours (K x N x N) by field."""
        fields = torch.split(self.alone(rings, centre), [shares.shape[-1] for shares in neighbours])
        seen = [beside_neighbours(*field) for field in zip(fields, neighbours, strict=True)]
        return self.judged(torch.cat(seen))

    def alone(self, rings: Tensor, centre: Tensor) -> Tensor:
        """What is found of each cell (N x width) without its neighbours."""
        around = functional.relu(self.first(rings.transpose(1, 2)))
        around = around + functional.relu(self.second(around))
        around = around + functional.relu(self.third(around))
        pooled = torch.cat([around.mean(2), around.amax(2), centre], dim=1)
        found: Tensor = self.drop(functional.relu(self.cell(pooled)))
        return found

    def judged(self, seen: Tensor) -> Tensor:
        """Log odds (... x 4) from what is found of each cell and of its neighbours."""
        log_odds: Tensor = self.odds(functional.relu(self.neighbours(self.drop(seen))))
        return log_odds


def beside_neighbours(found: Tensor, shares: Tensor) -> Tensor:
    """What is found of each cell (... x N x width) beside what is of its neighbours (... x N x (1 + K) width)."""
    return torch.cat([found, *(share @ found for share in shares)], dim=-1)


class _OnScales(nn.Module):
    """The network as `wsi_her2.cells.grading` runs it: the cells of one field on some scales of DAB."""

    def __init__(self, network: GradingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, rings: Tensor, centre: Tensor, neighbours: Tensor) -> Tensor:
        """Log odds (S x N x 4) from rings (S x N x ...), centre (S x N x C) and neighbours (K x N x N)."""
        found = self.network.alone(rings.flatten(0, 1), centre.flatten(0, 1))
        return self.network.judged(beside_neighbours(found.view(*centre.shape[:2], -1), neighbours))


def fit_grading(
    fields: Sequence[FieldViews], settings: GradingFit, progress: Callable[[int, float], None] | None = None
) -> GradingNetwork:
    """Fit the network; every slide counts alike, however many cells it has.

    Parameters
    ----------
    fields : sequence of FieldViews
    settings : GradingFit
    progress : callable, optional
        Called after each epoch with its number, from 1, and the mean loss.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    weight = _weights(fields)
    network = GradingNetwork(fields[0].rings.shape[2], fields[0].centre.shape[1], settings.width)
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    per_epoch = max(1, len(fields) // _FIELDS_PER_STEP)
    steps = settings.epochs * per_epoch

    warm_up = min(_WARM_UP_STEPS, max(1, steps // 20))

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    for epoch in range(1, settings.epochs + 1):
        network.train()
        order, total = rng.permutation(len(fields)), 0.0
        for step in range(per_epoch):
            taken = order[step * _FIELDS_PER_STEP : (step + 1) * _FIELDS_PER_STEP].tolist()
            some = [fields[index] for index in taken]
            log_odds, classes, tumour = _run(network, [_varied(field, rng) for field in some])
            counts = torch.from_numpy(np.repeat(weight[taken], [len(field.classes) for field in some]))
            beyond = (classes[:, None] > torch.arange(len(BORDERS))).float()
            loss = _loss(log_odds[:, :-1], beyond, (classes >= 0) * counts)
            loss = loss + _loss(log_odds[:, -1:], tumour[:, None].float(), (tumour >= 0) * counts)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += loss.item()
        if progress:
            progress(epoch, total / per_epoch)
    return network.eval()


def measure_grading(network: GradingNetwork, fields: Sequence[FieldViews]) -> Graded:
    """Grade cells whose class is known."""
    right: dict[int, list[npt.NDArray[np.bool_]]] = {}
    told = []
    confusion = np.zeros((4, 4))
    network.eval()
    with torch.no_grad():
        for field in fields:
            beyond = _run(network, [field])[0].numpy() > 0
            grades = np.logical_and.accumulate(beyond[:, :-1], axis=1).sum(axis=1)
            told.append((beyond[:, -1] == field.tumour)[field.tumour >= 0])
            known = field.classes >= 0
            right.setdefault(field.slide, []).append(grades[known] == field.classes[known])
            np.add.at(confusion, (field.classes[known], grades[known]), 1)
    rows = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return Graded(
        float(np.mean([np.concatenate(of_slide).mean() for of_slide in right.values()])),
        float(np.concatenate(told).mean()),
        tuple(tuple(row) for row in rows.round(4).tolist()),
    )


def write_grader(network: GradingNetwork, card: Mapping[str, Any], path: Path) -> None:
    """Write the network as `wsi_her2.cells.grading.load_grader` reads it.

    Raises
    ------
    MissingExtra
    """
    scales, cells = torch.export.Dim("scales"), torch.export.Dim("cells")
    model = traceless_onnx(
        _OnScales(network).eval(),
        {
            "rings": torch.zeros(2, 3, DIRECTIONS, network.first.in_channels),
            "centre": torch.zeros(2, 3, network.cell.in_features - 2 * network.first.out_channels),
            "neighbours": torch.zeros(len(NEIGHBOURHOODS_UM), 3, 3),
        },
        "log_odds",
        {"rings": {0: scales, 1: cells}, "centre": {0: scales, 1: cells}, "neighbours": {1: cells, 2: cells}},
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = "card", json.dumps(card, sort_keys=True)
    with file_beside(path) as beside:
        beside.write_bytes(model.SerializeToString(deterministic=True))


def _varied(field: FieldViews, rng: np.random.Generator) -> FieldViews:
    """A field seen from below or not, with its neighbours or without, its cells crowded or loose."""
    rings = field.rings[:, ::-1] if rng.random() < 0.5 else field.rings
    neighbours = field.neighbours
    if rng.random() < _ALONE:
        neighbours = np.zeros_like(neighbours)
    if rng.random() < _LOOSE:
        steps = rings.shape[2] // MEASURES
        taken = np.clip(np.arange(steps) - rng.integers(*_MOVED_STEPS, endpoint=True), 0, steps - 1)
        columns = np.concatenate([taken + part * steps for part in range(MEASURES)])
        rings = np.concatenate([rings[..., columns], rings[..., MEASURES * steps :]], axis=2)
    return replace(field, rings=rings, neighbours=neighbours)


def _run(network: GradingNetwork, fields: Sequence[FieldViews]) -> tuple[Tensor, Tensor, Tensor]:
    """Log odds of the cells of some fields, their classes, and whether they are of the tumour."""
    rings = torch.from_numpy(np.concatenate([field.rings for field in fields])).float()
    centre = torch.from_numpy(np.concatenate([field.centre for field in fields]))
    neighbours = [torch.from_numpy(field.neighbours) for field in fields]
    classes = torch.from_numpy(np.concatenate([field.classes for field in fields])).long()
    tumour = torch.from_numpy(np.concatenate([field.tumour for field in fields])).long()
    return network(rings, centre, neighbours), classes, tumour


def _loss(log_odds: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy, summed over what is asked of a cell, mean over cells by their weight (0: not known)."""
    losses = functional.binary_cross_entropy_with_logits(log_odds, true, reduction="none").sum(1)
    return (losses * weight).sum() / weight.sum()


def _weights(fields: Sequence[FieldViews]) -> npt.NDArray[np.float32]:
    """Weight of each field's cells: 1 over the tumour cells of its slide."""
    cells: dict[int, int] = {}
    for field in fields:
        cells[field.slide] = cells.get(field.slide, 0) + int((field.classes >= 0).sum())
    return np.array([1 / cells[field.slide] for field in fields], np.float32)
