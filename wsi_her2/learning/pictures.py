"""Pictures of a training: curves over the epochs, and a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt


def draw_curves(history: Mapping[str, Sequence[float]], best_epoch: int, path: Path) -> None:
    """Losses and accuracy by epoch, the chosen epoch marked, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for name, label in (("train_loss", "training"), ("validation_loss", "validation")):
        if name in history:
            loss.plot(history[name], label=label)
    loss.set_ylabel("loss")
    if "validation_accuracy" in history:
        accuracy.plot(history["validation_accuracy"], color="C1", label="validation")
    accuracy.set_ylabel("share of patches with the right main class")
    accuracy.set_ylim(0, 1)
    for axes in (loss, accuracy):
        axes.axvline(best_epoch, color="0.6", linestyle=":", label="chosen")
        axes.set_xlabel("epoch")
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def draw_confusion(confusion: npt.NDArray[np.float64], classes: Sequence[str], title: str, path: Path) -> None:
    """A confusion matrix (rows true, counts) with shares of each row as shades, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 0.75 * len(classes), 1.4 + 0.7 * len(classes)), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(confusion.shape):
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{confusion[row, column]:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("found")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=110)
