"""The scored patches of a store, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_her2.scoring.proportions import main_classes
from wsi_her2.slides.store import PatchStore

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class ScoredPatches:
    """Some scored patches.

    Attributes
    ----------
    xy : int32 N x 2
        Top-left corners, level-0 pixels.
    tissue : float32 N
    probabilities : float32 N x K
        No NaN.
    labels : int64 N
        Column of the most probable class.
    """

    xy: npt.NDArray[np.int32]
    tissue: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def side_px0(store: PatchStore) -> int:
    """Side of a patch in level-0 pixels."""
    return int(store.attributes["patch_px0"])


def scored_patches(store: PatchStore, classes: tuple[str, ...]) -> Iterator[ScoredPatches]:
    """Scored patches in the order of the store, in batches.

    Numbers of a patch take some 40 bytes, its text in a file several hundred; so the numbers may be held, the
    text must not.

    Parameters
    ----------
    store : PatchStore
    classes : tuple of str
        Those of the store.

    Raises
    ------
    ValueError
        The store holds other classes.
    """
    check_classes(store, classes)
    xy, tissue, probabilities = store.xy, store.tissue, store.probabilities
    for start in range(0, len(xy), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        kept = ~np.isnan(probabilities[rows]).any(axis=1)
        if kept.any():
            scored = probabilities[rows][kept]
            labels = main_classes(scored, store.classes, gives_shares(store))
            yield ScoredPatches(xy[rows][kept], tissue[rows][kept], scored, labels)


def gives_shares(store: PatchStore) -> bool:
    """Whether what stands in a store as probabilities are shares of each patch."""
    return store.attributes.get("outputs") == "shares"


def check_classes(store: PatchStore, classes: tuple[str, ...]) -> None:
    """Refuse classes that are not those of the store, before columns are given wrong names."""
    if tuple(classes) != store.classes:
        raise ValueError(f"classes {', '.join(classes)}, but the store holds {', '.join(store.classes)}")
