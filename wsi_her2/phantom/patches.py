"""Patches with known class shares, straight from the renderer, for training."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, get_args

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_her2.phantom.cells import COMPLETE_FROM
from wsi_her2.phantom.composition import Artefact, LookName, Modality, Pattern, PhantomError, PhantomSpec
from wsi_her2.phantom.render import Phantom, make_phantom
from wsi_her2.phantom.tissue import Tissue
from wsi_her2.slides.pyramid import encode_jpeg

# Patches of one scene share its tissue and stain; a few of them pay for the drawing of the scene.
PATCHES_PER_SCENE = 4


@dataclass(frozen=True)
class PatchBatch:
    """Rendered patches and what is true of each.

    Attributes
    ----------
    pixels
        ``uint8``, ``N x H x W x 3``, RGB.
    cell_counts
        ``int32``, ``N x 4``: invasive tumour cells in the patch that are 0, 1+, 2+ and 3+.
    fractions
        ``float32``, ``N x 4``: the same as shares of those cells; all 0 where there is none.
    complete_fraction
        ``float32``, ``N``: share of those cells with a complete membrane.
    tumour_area, in_situ_area, normal_area
        ``float32``, ``N``: share of the patch covered by invasive, in-situ and normal epithelium.
    white
        ``float32``, ``N x 3``: white point of the look, grey levels.
    scene
        ``int64``, ``N``: number of the scene. Patches of one scene resemble each other, so they must stay on
        one side of a split.
    """

    pixels: NDArray[np.uint8]
    cell_counts: NDArray[np.int32]
    fractions: NDArray[np.float32]
    complete_fraction: NDArray[np.float32]
    tumour_area: NDArray[np.float32]
    in_situ_area: NDArray[np.float32]
    normal_area: NDArray[np.float32]
    white: NDArray[np.float32]
    scene: NDArray[np.int64]


def render_patches(
    count: int,
    *,
    patch_px: int = 256,
    mpp: float = 0.25,
    seed: int = 0,
    looks: Sequence[LookName] = ("random",),
    modality: Modality = "ihc",
    jpeg: bool = True,
    workers: int = 1,
) -> PatchBatch:
    """Render patches of all classes, tissues and looks.

    Parameters
    ----------
    count
        How many.
    patch_px
        Side of a patch.
    mpp
        Microns per pixel.
    seed
        The patches are a function of this number and of the other arguments but `workers`.
    looks
        Looks to draw from, evenly.
    modality
        ``"ihc"`` or ``"he"``.
    jpeg
        Compress and decompress each patch, as slide files do.
    workers
        Processes that draw.

    Returns
    -------
    PatchBatch
        `count` patches.
    """
    parts = list(
        iter_patches(
            count,
            patch_px=patch_px,
            mpp=mpp,
            seed=seed,
            looks=looks,
            modality=modality,
            jpeg=jpeg,
            workers=workers,
        )
    )

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    return PatchBatch(
        pixels=joined("pixels"),
        cell_counts=joined("cell_counts"),
        fractions=joined("fractions"),
        complete_fraction=joined("complete_fraction"),
        tumour_area=joined("tumour_area"),
        in_situ_area=joined("in_situ_area"),
        normal_area=joined("normal_area"),
        white=joined("white"),
        scene=joined("scene"),
    )


def iter_patches(
    count: int,
    *,
    patch_px: int = 256,
    mpp: float = 0.25,
    seed: int = 0,
    looks: Sequence[LookName] = ("random",),
    modality: Modality = "ihc",
    jpeg: bool = True,
    workers: int = 1,
) -> Iterator[PatchBatch]:
    """Like `render_patches`, but scene by scene, so that memory does not grow with the number of patches.

    Parameters
    ----------
    count, patch_px, mpp, seed, looks, modality, jpeg, workers
        As in `render_patches`.

    Yields
    ------
    PatchBatch
        The patches of one scene, in the same order for any number of workers.
    """
    if count < 1 or patch_px < 16 or workers < 1 or not looks:
        raise PhantomError(
            f"render_patches needs at least one patch of 16 px, one look and one worker, not count={count}, "
            f"patch_px={patch_px}, looks={looks}, workers={workers}."
        )
    unknown = [look for look in looks if look not in get_args(LookName)]
    if unknown:
        raise PhantomError(f"looks may hold {', '.join(get_args(LookName))}, not {', '.join(unknown)}.")
    draw = partial(
        _draw_scene, patch_px=patch_px, mpp=mpp, seed=seed, looks=tuple(looks), modality=modality, jpeg=jpeg
    )
    full, rest = divmod(count, PATCHES_PER_SCENE)
    tasks = list(chain(((k, PATCHES_PER_SCENE) for k in range(full)), [(full, rest)] if rest else []))
    if workers == 1:
        yield from map(draw, tasks)
        return
    # Spawned, as in the writing of slides: forks of processes with threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        # A bounded number of scenes is under way, whatever the number asked for.
        waiting = iter(tasks)
        pending = [pool.submit(draw, task) for task in islice(waiting, 3 * workers)]
        while pending:
            yield pending.pop(0).result()
            pending.extend(pool.submit(draw, task) for task in islice(waiting, 1))


def _draw_scene(
    task: tuple[int, int],
    *,
    patch_px: int,
    mpp: float,
    seed: int,
    looks: tuple[LookName, ...],
    modality: Modality,
    jpeg: bool,
) -> PatchBatch:
    """A small field of tissue of one composition, and some patches of it."""
    number, count = task
    rng = np.random.default_rng([seed, 17, number])
    side_px = 2 * patch_px + round(16 / mpp)
    spec = draw_scene_spec(rng, side_px * mpp / 1000, mpp, looks, modality)
    phantom = make_phantom(spec, filled=True)
    places = [(i % 2, i // 2) for i in range(4)]
    order = rng.permutation(4)
    spare = side_px - 2 * patch_px
    patches = []
    for k in range(count):
        column, row = places[order[k % 4]]
        x = column * patch_px + int(rng.integers(spare // 2 + 1)) + column * (spare // 2)
        y = row * patch_px + int(rng.integers(spare // 2 + 1)) + row * (spare // 2)
        patches.append(_cut(phantom, x, y, patch_px, jpeg, rng))
    counts = np.stack([patch[1] for patch in patches])
    total = np.maximum(counts.sum(1), 1)
    areas = np.array([patch[3] for patch in patches], np.float32)
    return PatchBatch(
        pixels=np.stack([patch[0] for patch in patches]),
        cell_counts=counts.astype(np.int32),
        fractions=(counts / total[:, None]).astype(np.float32),
        complete_fraction=(np.array([patch[2] for patch in patches]) / total).astype(np.float32),
        tumour_area=areas[:, 0],
        in_situ_area=areas[:, 1],
        normal_area=areas[:, 2],
        white=np.repeat(phantom.look.white[None], count, axis=0),
        scene=np.full(count, number, np.int64),
    )


def draw_scene_spec(
    rng: np.random.Generator, side_mm: float, mpp: float, looks: tuple[LookName, ...], modality: Modality
) -> PhantomSpec:
    """A small scene of any tissue and composition, for training.

    Parameters
    ----------
    rng
        Decides everything.
    side_mm
        Width and height.
    mpp
        Microns per pixel.
    looks
        Looks to draw from.
    modality
        Stain.
    """
    # Mostly one class with its neighbours, as in real fields of view, and now and then anything at all.
    main = int(rng.integers(4))
    concentration = np.full(4, 0.25)
    concentration[main] = 6.0
    for neighbour in (main - 1, main + 1):
        if 0 <= neighbour < 4:
            concentration[neighbour] = 0.9
    shares = rng.dirichlet(np.ones(4) if rng.random() < 0.2 else concentration)
    # Regions without tumour are needed as much as tumour: three scenes in ten are mostly stroma.
    sparse = rng.random() < 0.3
    tumour = float(rng.uniform(0.02, 0.2) if sparse else rng.uniform(0.35, 0.8))
    patterns: tuple[Pattern, ...] = ("solid", "glandular", "cords")
    # Cords cover little by nature, so they stand for sparse tumour more often than for dense.
    pattern = patterns[int(rng.choice(3, p=(0.3, 0.3, 0.4) if sparse else (0.5, 0.42, 0.08)))]
    artefacts: list[Artefact] = []
    if rng.random() < 0.12:
        artefacts.append("blur")
    if rng.random() < 0.15:
        artefacts.append("edge")
    if rng.random() < 0.04:
        artefacts.append("fold")
    return PhantomSpec(
        score=None,
        class_fractions=tuple(float(s) for s in shares / shares.sum()),  # type: ignore[arg-type]
        tumour_share=tumour,
        width_mm=side_mm,
        height_mm=side_mm,
        mpp=mpp,
        seed=int(rng.integers(2**31)),
        look=looks[int(rng.integers(len(looks)))],
        outline="resection",
        modality=modality,
        artefacts=tuple(artefacts),
        clustering=float(rng.uniform(0.1, 0.9)),
        pattern=pattern,
        in_situ_share=float(rng.uniform(0.1, 0.3)) if rng.random() < 0.12 else 0.0,
        normal_share=float(rng.uniform(0.1, 0.3)) if rng.random() < 0.15 else 0.0,
        fat_share=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.15 else 0.0,
        necrosis_share=float(rng.uniform(0.1, 0.4)) if rng.random() < 0.08 else 0.0,
    )


def draw_slide_spec(
    rng: np.random.Generator, mpp: float, looks: tuple[LookName, ...], modality: Modality
) -> PhantomSpec:
    """A small slide of any composition, for training.

    Parameters
    ----------
    rng
        Decides everything.
    mpp
        Microns per pixel.
    looks
        Looks to draw from.
    modality
        Stain.

    Returns
    -------
    PhantomSpec
        1 mm wide. Shares of the classes are spread over all that a slide can be: nearly pure, mixed with the
        neighbours, or anything; rare classes are as often absent as present.
    """
    main = int(rng.integers(4))
    concentration = np.full(4, 0.3)
    concentration[main] = float(rng.choice((3.0, 8.0, 25.0)))
    for neighbour in (main - 1, main + 1):
        if 0 <= neighbour < 4:
            concentration[neighbour] = float(rng.choice((0.5, 1.5, 4.0)))
    shares = rng.dirichlet(np.ones(4) if rng.random() < 0.2 else concentration)
    # What is rarer than one cell in fifty is as well absent.
    shares = np.where((shares < 0.02) & (np.arange(4) != shares.argmax()) & (rng.random(4) < 0.5), 0.0, shares)
    shares = shares / shares.sum()
    artefacts = tuple(name for name, often in (("blur", 0.1), ("edge", 0.1)) if rng.random() < often)
    return PhantomSpec(
        score=None,
        class_fractions=tuple(float(share) for share in shares),  # type: ignore[arg-type]
        tumour_share=float(rng.uniform(0.25, 0.65)),
        width_mm=1.0,
        height_mm=1.0,
        mpp=mpp,
        seed=int(rng.integers(2**31)),
        look=looks[int(rng.integers(len(looks)))],
        outline="resection" if rng.random() < 0.3 else "core",
        modality=modality,
        artefacts=artefacts,  # type: ignore[arg-type]
        clustering=float(rng.uniform(0.3, 0.9)),
        pattern="mixed",
        in_situ_share=float(rng.uniform(0.0, 0.06)),
        normal_share=float(rng.uniform(0.0, 0.06)),
        fat_share=float(rng.uniform(0.0, 0.12)),
        necrosis_share=float(rng.uniform(0.0, 0.04)),
    )


def _cut(
    phantom: Phantom, x: int, y: int, patch_px: int, jpeg: bool, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int64], int, tuple[float, float, float]]:
    """Pixels, cells per class, complete membranes and areas of one patch."""
    pixels, planes = phantom.draw(x, y, patch_px, patch_px)
    if jpeg:
        quality = int(rng.integers(70, 96))
        pixels = imagecodecs.jpeg8_decode(encode_jpeg(pixels, quality))
    cells = phantom.cells
    mpp = phantom.spec.mpp
    here = cells[
        (cells["kind"] == Tissue.INVASIVE)
        & (cells["x_um"] >= x * mpp)
        & (cells["x_um"] < (x + patch_px) * mpp)
        & (cells["y_um"] >= y * mpp)
        & (cells["y_um"] < (y + patch_px) * mpp)
    ]
    counts = np.bincount(here["her2"].astype(np.int64), minlength=4)[:4]
    complete = int((here["completeness"] >= COMPLETE_FROM - 1e-6).sum())
    areas = tuple(
        float((planes.body == kind).mean()) for kind in (Tissue.INVASIVE, Tissue.IN_SITU, Tissue.NORMAL_DUCT)
    )
    return pixels, counts, complete, areas  # type: ignore[return-value]
