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
from wsi_her2.learning.cell_views import FieldViews
from wsi_her2.learning.settings import GradingFit

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
        Share of the cells of the right class, mean over slides.
    confusion : tuple of tuple of float
        4 x 4, rows true, each adding up to 1.
    """

    accuracy: float
    confusion: tuple[tuple[float, ...], ...]


class GradingNetwork(nn.Module):
    """Rays around a cell and what its neighbours show, to the log odds at each border."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        around = {"padding_mode": "circular"}
        self.first = nn.Conv1d(inputs, width, 3, padding=1, **around)  # type: ignore[arg-type]
        self.second = nn.Conv1d(width, width, 5, padding=2, **around)  # type: ignore[arg-type]
        self.third = nn.Conv1d(width, width, 5, padding=4, dilation=2, **around)  # type: ignore[arg-type]
        self.cell = nn.Linear(2 * width + 2, width)
        self.neighbours = nn.Linear(width * (1 + len(NEIGHBOURHOODS_UM)), width)
        self.borders = nn.Linear(width, len(BORDERS))
        self.drop = nn.Dropout(_DROPPED)

    def forward(self, rings: Tensor, surround: Tensor, neighbours: Sequence[Sequence[Tensor]]) -> Tensor:
        """Log odds (N x 3) of the cells of some fields, one after the other; neighbours field by field."""
        around = functional.relu(self.first(rings.transpose(1, 2)))
        around = around + functional.relu(self.second(around))
        around = around + functional.relu(self.third(around))
        pooled = torch.cat([around.mean(2), around.amax(2), surround], dim=1)
        own = self.drop(functional.relu(self.cell(pooled)))
        fields = torch.split(own, [len(shares[0]) for shares in neighbours])
        seen = [
            torch.cat([field, *(share @ field for share in shares)], dim=1)
            for field, shares in zip(fields, neighbours, strict=True)
        ]
        log_odds: Tensor = self.borders(functional.relu(self.neighbours(self.drop(torch.cat(seen)))))
        return log_odds


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
    network = GradingNetwork(fields[0].rings.shape[2], settings.width)
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
            log_odds, classes = _run(network, [_varied(field, rng) for field in some])
            counts = torch.from_numpy(np.repeat(weight[taken], [len(field.classes) for field in some]))
            known = classes >= 0
            beyond = (classes[known, None] > torch.arange(len(BORDERS))).float()
            losses = functional.binary_cross_entropy_with_logits(log_odds[known], beyond, reduction="none")
            loss = (losses.sum(1) * counts[known]).sum() / counts[known].sum()
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
    confusion = np.zeros((4, 4))
    network.eval()
    with torch.no_grad():
        for field in fields:
            log_odds, _ = _run(network, [field])
            grades = np.logical_and.accumulate(log_odds.numpy() > 0, axis=1).sum(axis=1)
            known = field.classes >= 0
            right.setdefault(field.slide, []).append(grades[known] == field.classes[known])
            np.add.at(confusion, (field.classes[known], grades[known]), 1)
    rows = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return Graded(
        float(np.mean([np.concatenate(of_slide).mean() for of_slide in right.values()])),
        tuple(tuple(row) for row in rows.round(4).tolist()),
    )


def write_grader(network: GradingNetwork, card: Mapping[str, Any], path: Path) -> None:
    """Write the weights as `wsi_her2.cells.grading.load_grader` reads them."""
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(value.detach().numpy()) for name, value in network.state_dict().items()}
    with file_beside(path) as beside:
        beside.write_bytes(save(weights, {"card": json.dumps(card, sort_keys=True)}))


def _varied(field: FieldViews, rng: np.random.Generator) -> FieldViews:
    """A field seen from below or not, with its neighbours or without, its cells crowded or loose."""
    rings = field.rings[:, ::-1] if rng.random() < 0.5 else field.rings
    neighbours = field.neighbours
    if rng.random() < _ALONE:
        neighbours = [np.zeros_like(share) for share in neighbours]
    if rng.random() < _LOOSE:
        steps = rings.shape[2] // 3
        taken = np.clip(np.arange(steps) - rng.integers(*_MOVED_STEPS, endpoint=True), 0, steps - 1)
        columns = np.concatenate([taken + part * steps for part in range(3)])
        rings = np.concatenate([rings[..., columns], rings[..., 3 * steps :]], axis=2)
    return replace(field, rings=rings, neighbours=neighbours)


def _run(network: GradingNetwork, fields: Sequence[FieldViews]) -> tuple[Tensor, Tensor]:
    rings = torch.from_numpy(np.concatenate([field.rings for field in fields])).float()
    surround = torch.from_numpy(np.concatenate([field.surround for field in fields]))
    neighbours = [[torch.from_numpy(share) for share in field.neighbours] for field in fields]
    classes = torch.from_numpy(np.concatenate([field.classes for field in fields])).long()
    return network(rings, surround, neighbours), classes


def _weights(fields: Sequence[FieldViews]) -> npt.NDArray[np.float32]:
    """Weight of each field's cells: 1 over the tumour cells of its slide."""
    cells: dict[int, int] = {}
    for field in fields:
        cells[field.slide] = cells.get(field.slide, 0) + int((field.classes >= 0).sum())
    return np.array([1 / cells[field.slide] for field in fields], np.float32)
