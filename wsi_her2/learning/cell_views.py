"""Cells of digital slides as a run sees them, with their true classes: what the network for cells learns from."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from wsi_her2.atomic import file_beside
from wsi_her2.cells.field import view_cells
from wsi_her2.cells.grading import centre_inputs, neighbour_shares, ring_inputs
from wsi_her2.learning.fields import as_scanned
from wsi_her2.phantom.composition import SCORES, LookName, PhantomSpec
from wsi_her2.phantom.patches import draw_slide_spec
from wsi_her2.phantom.render import make_phantom
from wsi_her2.phantom.tissue import Tissue
from wsi_her2.phantom.truth import cell_frame

Float32 = npt.NDArray[np.float32]

MATCH_UM = 4.0
"""A cell is found if a nucleus is found this near to its own."""

_MPP, _COARSE_MPP = 0.25, 0.5
_FIELD_UM, _MARGIN_UM = 112, 12
"""As a run reads them: the patch of a classifier, and what lies around it."""

_UNKNOWN = (Tissue.IN_SITU, Tissue.CONTROL)
"""Not counted, and nothing about the cell says so."""

_LEAST_TUMOUR_CELLS = 5
_LAYOUT = 2


@dataclass(frozen=True)
class CellSlides:
    """Which digital slides are drawn.

    Attributes
    ----------
    count : int
    looks : tuple of str
        One after the other.
    seed : int
        Equal settings draw equal slides.
    side_mm : float
        Of a slide. Small slides make many: what differs from slide to slide is what is hard.
    """

    count: int
    looks: tuple[LookName, ...]
    seed: int
    side_mm: float = 0.45

    @property
    def key(self) -> str:
        """Names the slides among others."""
        described = json.dumps({"layout": _LAYOUT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def spec(self, number: int) -> PhantomSpec:
        """One of the slides: of every four, on one nothing stains, one has a usual score, two have any shares.

        Of every six, one is scanned at 20x.
        """
        rng = np.random.default_rng([self.seed, 41, number])
        look = self.looks[number % len(self.looks)]
        mpp = _COARSE_MPP if (number // len(self.looks)) % 6 == 5 else _MPP
        drawn = replace(draw_slide_spec(rng, mpp, (look,), "ihc"), width_mm=self.side_mm, height_mm=self.side_mm)
        turn = (number // len(self.looks)) % 4
        if turn == 0:
            # Ducts in situ stain by themselves.
            return replace(drawn, class_fractions=(1.0, 0.0, 0.0, 0.0), in_situ_share=0.0)
        if turn == 1:
            score = SCORES[number // (4 * len(self.looks)) % len(SCORES)]
            return replace(drawn, score=score, class_fractions=None)
        return drawn


@dataclass(frozen=True, eq=False)
class FieldViews:
    """The cells of a field, as the network is shown them.

    Attributes
    ----------
    rings : float16 N x DIRECTIONS x C
        See `ring_inputs`.
    centre : float32 N x C
        See `centre_inputs`.
    neighbours : float32 K x N x N
        See `neighbour_shares`.
    classes : int8 N
        0 to 3; -1 for what is no tumour cell, and for cells in the margin of the field, which are seen and not
        graded.
    tumour : int8 N
        1 for tumour cells, 0 for other cells and for what is no nucleus; -1 in the margin, and for carcinoma in
        situ.
    slide : int
    """

    rings: npt.NDArray[np.float16]
    centre: Float32
    neighbours: Float32
    classes: npt.NDArray[np.int8]
    tumour: npt.NDArray[np.int8]
    slide: int


def drawn_views(
    slides: CellSlides, folder: Path, workers: int, progress: Callable[[int, int], None] | None = None
) -> list[FieldViews]:
    """Draw the slides and look at their cells, or read what was seen of them before.

    Parameters
    ----------
    slides : CellSlides
    folder : pathlib.Path
        Where it is kept: what is there already is not drawn again.
    workers : int
        Processes; the result does not depend on it.
    progress : callable, optional
        Called with the slides done and all slides.
    """
    home = folder / f"cells-{slides.key}"
    home.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(slides.count) if not _file(home, number).exists()]
    there = slides.count - len(missing)
    if progress:
        progress(there, slides.count)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        drawn = [pool.submit(_keep_slide, slides, home, number) for number in missing]
        for done, future in enumerate(as_completed(drawn), there + 1):
            future.result()
            if progress:
                progress(done, slides.count)
    return [field for number in range(slides.count) for field in _read_slide(home, number)]


def match_cells(
    found: npt.NDArray[np.float64], true: npt.NDArray[np.float64], reach_px: float
) -> npt.NDArray[np.int64]:
    """Pair found with true cells, nearest first, each once: index of the true cell, -1 without one (int64 N)."""
    match = np.full(len(found), -1, np.int64)
    if len(found) == 0 or len(true) == 0:
        return match
    distance, index = cKDTree(true).query(found, k=[1, 2, 3, 4], distance_upper_bound=reach_px)
    pairs = np.argwhere(np.isfinite(distance))
    taken = np.zeros(len(true), bool)
    for row, column in pairs[np.argsort(distance[tuple(pairs.T)], kind="stable")]:
        if match[row] < 0 and not taken[index[row, column]]:
            match[row] = index[row, column]
            taken[match[row]] = True
    return match


_KEPT = ("rings", "profile", "surround", "xy_um", "classes", "tumour")


def _keep_slide(slides: CellSlides, home: Path, number: int) -> None:
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in _KEPT}
    phantom = make_phantom(slides.spec(number))
    mpp = phantom.spec.mpp
    field_px, margin_px = round(_FIELD_UM / mpp), round(_MARGIN_UM / mpp)
    frame = cell_frame(phantom.spec, phantom.cells)
    frame = frame[frame["tissue"] != "fat"]
    true = frame[["x", "y"]].to_numpy(np.float64)
    classes = np.where(frame["counts"], frame["her2_class"], -1).astype(np.int8)
    kinds = np.where(frame["counts"], 1, 0).astype(np.int8)
    kinds[frame["tissue"].isin([kind.name.lower() for kind in _UNKNOWN])] = -1
    drawn = phantom.read(0, 0, phantom.spec.width_px, phantom.spec.height_px)
    rgb = as_scanned(drawn, phantom.look, phantom.look.jpeg_quality)
    counts = []
    for left, top in _corners(phantom.spec, field_px):
        x, y = max(0, left - margin_px), max(0, top - margin_px)
        window = rgb[y : top + field_px + margin_px, x : left + field_px + margin_px]
        xy, views = view_cells(window, mpp)
        places = xy + np.array([x, y])
        match = match_cells(places, true, MATCH_UM / mpp)
        inside = ((places >= (left, top)) & (places < (left + field_px, top + field_px))).all(axis=1)
        of_field = np.where(inside & (match >= 0), classes[match], np.int8(-1))
        if (of_field >= 0).sum() < _LEAST_TUMOUR_CELLS:
            continue
        counts.append(len(xy))
        parts["rings"].append(ring_inputs(views.rings).astype(np.float16))
        parts["profile"].append(views.profile)
        parts["surround"].append(views.surround)
        parts["xy_um"].append(views.xy_um)
        parts["classes"].append(of_field)
        parts["tumour"].append(np.where(inside, np.where(match >= 0, kinds[match], np.int8(0)), np.int8(-1)))
    joined: dict[str, Any] = {name: np.concatenate(part) if part else np.zeros(0) for name, part in parts.items()}
    with file_beside(_file(home, number)) as beside, beside.open("wb") as stream:
        np.savez(stream, counts=np.array(counts, np.int64), **joined)


def _corners(spec: PhantomSpec, field_px: int) -> list[tuple[int, int]]:
    across, down = (range(0, side - field_px + 1, field_px) for side in (spec.width_px, spec.height_px))
    return [(left, top) for top in down for left in across]


def _read_slide(home: Path, number: int) -> Sequence[FieldViews]:
    with np.load(_file(home, number)) as kept:
        starts = np.concatenate([[0], np.cumsum(kept["counts"])])
        rings, profile, surround, xy_um, classes, tumour = (kept[name] for name in _KEPT)
    return [
        FieldViews(
            rings[start:end],
            centre_inputs(profile[start:end], surround[start:end]),
            neighbour_shares(xy_um[start:end], surround[start:end]),
            classes[start:end],
            tumour[start:end],
            number,
        )
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]


def _file(home: Path, number: int) -> Path:
    return home / f"slide-{number:05d}.npz"
