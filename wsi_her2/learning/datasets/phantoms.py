"""Digital phantoms as a data set: rendered patches with the share of each class, kept on disk if wished."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

import wsi_her2.phantom
from wsi_her2.errors import DatasetError, OutputError
from wsi_her2.learning.datasets.dataset import Dataset, Example, Pixels
from wsi_her2.learning.datasets.findings import Reading
from wsi_her2.learning.datasets.origins import ArrayRow, InMemory
from wsi_her2.learning.membrane import UNDECIDED_SHARE
from wsi_her2.models.classifier import GRADES, OTHER, Modality
from wsi_her2.phantom import iter_patches
from wsi_her2.phantom.composition import LookName
from wsi_her2.scoring.proportions import TUMOUR_FROM
from wsi_her2.slides.backends import RGB

CLASSES = (OTHER, *GRADES)

_PATCHES_PER_FILE = 128
_FACTS = np.dtype(
    [
        ("scene", "<i8"),
        ("fractions", "<f4", (4,)),
        ("tumour_area", "<f4"),
        ("in_situ_area", "<f4"),
        ("normal_area", "<f4"),
        ("white", "<f4", (3,)),
    ]
)
_FACTS_FILE = "facts.npy"
_RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class PhantomRecipe:
    """Which patches are rendered; everything that they depend on.

    Attributes
    ----------
    count : int
        How many, before those that cannot be labelled are left out.
    patch_px : int
        Side of a patch in pixels at `mpp`.
    mpp : float
        Scale of the patches, um/px.
    drawn_mpp : float
        Scale at which they are drawn, um/px. Coarser patches are averaged down from it, as slides are when they
        are read.
    seed : int
    looks : tuple of str
        Looks of laboratories and scanners to draw from, evenly.
    modality : {'ihc', 'he'}
        H&E shows no HER2: what a classifier learns of it from phantoms, it learns from the renderer.
    """

    count: int
    patch_px: int = 128
    mpp: float = 0.5
    drawn_mpp: float = 0.25
    seed: int = 0
    looks: tuple[LookName, ...] = ("random",)
    modality: Modality = "ihc"


def read_phantoms(
    recipe: PhantomRecipe,
    *,
    cache: str | Path | None = None,
    workers: int = 1,
    keep_undecided: bool = False,
    name: str = "phantoms",
) -> Reading:
    """Render patches, or read them back.

    The label is the share of each of `other`, 0, 1+, 2+ and 3+: the part of the patch that is tumour (all from
    twice `TUMOUR_FROM` of its area on, as the membrane scorer counts it) by the shares of its tumour cells.
    Patches with much in-situ or normal epithelium are left out, because by its look it cannot be told from tumour.
    A group is a scene; scenes of one seed and number are one group, whatever their stain.

    Parameters
    ----------
    recipe : PhantomRecipe
    cache : str or pathlib.Path, optional
        Folder in which rendered patches are kept, each recipe and each version of the renderer in a folder of its
        own, so that epochs and later runs read them from disk. Without it they are held in memory.
    workers : int
        Processes that render; the patches do not depend on it.
    keep_undecided : bool
        Keep the patches with in-situ or normal epithelium.
    name : str

    Raises
    ------
    DatasetError
        The cache is damaged, or no patch is left.
    PhantomError
        The recipe cannot be rendered.
    OutputError
        The cache cannot be written.
    """
    pixels: list[Pixels]
    if cache is None:
        facts_of, pixels = [], []
        for rgb, facts in _rendered(recipe, workers):
            pixels += [InMemory(patch) for patch in rgb]
            facts_of.append(facts)
        facts = np.concatenate(facts_of)
    else:
        place = Path(cache) / f"phantoms-{_key(recipe)}"
        if not place.is_dir():
            _fill(place, recipe, workers)
        facts = _checked_facts(place)
        pixels = [ArrayRow(_pixel_file(place, row), row % _PATCHES_PER_FILE) for row in range(len(facts))]
    targets = _targets(facts)
    undecided = (facts["in_situ_area"] > UNDECIDED_SHARE) | (facts["normal_area"] > UNDECIDED_SHARE)
    examples = tuple(
        Example(
            id=f"phantom-{recipe.seed}-{row}",
            source=name,
            group=f"phantom-{recipe.seed}-{facts['scene'][row]}",
            label=tuple(float(share) for share in targets[row]),
            pixels=pixels[row],
            modality=recipe.modality,
            mpp=recipe.mpp,
            white_point=tuple(float(level) for level in facts["white"][row]),  # type: ignore[arg-type]
        )
        for row in np.flatnonzero(keep_undecided | ~undecided)
    )
    if not examples:
        raise DatasetError(f"{name}: none of {recipe.count} patches can be labelled; render more")
    return Reading(Dataset(name, CLASSES, recipe.modality, examples), ())


def _targets(facts: npt.NDArray[np.void]) -> npt.NDArray[np.float64]:
    tumour = np.clip(facts["tumour_area"].astype(np.float64) / (2 * TUMOUR_FROM), 0, 1)[:, None]
    graded = tumour * facts["fractions"].astype(np.float64)
    # What is not a graded cell is other; a sliver of tumour without a whole cell has no grade.
    other = np.clip(1 - graded.sum(axis=1, keepdims=True), 0, 1)
    shares = np.concatenate([other, graded], axis=1)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float64)


def _rendered(recipe: PhantomRecipe, workers: int) -> Iterator[tuple[RGB, npt.NDArray[np.void]]]:
    """Patches and facts, scene after scene."""
    drawn_mpp = min(recipe.drawn_mpp, recipe.mpp)
    drawn_px = round(recipe.patch_px * recipe.mpp / drawn_mpp)
    size = (recipe.patch_px, recipe.patch_px)
    for batch in iter_patches(
        recipe.count,
        patch_px=drawn_px,
        mpp=drawn_mpp,
        seed=recipe.seed,
        looks=recipe.looks,
        modality=recipe.modality,
        workers=workers,
    ):
        facts = np.zeros(len(batch.scene), _FACTS)
        for column in _FACTS.names or ():
            facts[column] = getattr(batch, column)
        patches = [cv2.resize(patch, size, interpolation=cv2.INTER_AREA) for patch in batch.pixels]
        yield np.asarray(np.stack(patches), np.uint8), facts


def _fill(place: Path, recipe: PhantomRecipe, workers: int) -> None:
    """Render into a folder beside, then rename it, so that a cache that is there is whole."""
    beside = place.with_name(f".{place.name}.partial-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        _write(beside, recipe, workers)
        try:
            beside.rename(place)
        except OSError:
            # Another process was faster; the patches are the same.
            if not place.is_dir():
                raise
    except OSError as error:
        raise OutputError(f"{place}: rendered patches cannot be kept there ({error.strerror or error})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(folder: Path, recipe: PhantomRecipe, workers: int) -> None:
    pending: list[RGB] = []
    facts_of: list[npt.NDArray[np.void]] = []
    written = 0
    for rgb, facts in _rendered(recipe, workers):
        pending += list(rgb)
        facts_of.append(facts)
        while len(pending) >= _PATCHES_PER_FILE:
            np.save(_pixel_file(folder, written), np.stack(pending[:_PATCHES_PER_FILE]))
            del pending[:_PATCHES_PER_FILE]
            written += _PATCHES_PER_FILE
    if pending:
        np.save(_pixel_file(folder, written), np.stack(pending))
    np.save(folder / _FACTS_FILE, np.concatenate(facts_of))
    sums = {path.name: _sha256(path) for path in sorted(folder.glob("*.npy"))}
    content = json.dumps({"recipe": asdict(recipe), "renderer": _renderer(), "sha256": sums}, indent=2)
    (folder / _RECIPE_FILE).write_text(content, encoding="utf-8")


def _checked_facts(place: Path) -> npt.NDArray[np.void]:
    try:
        sums = json.loads((place / _RECIPE_FILE).read_text(encoding="utf-8"))["sha256"]
        damaged = [name for name, expected in sums.items() if _sha256(place / name) != expected]
        if damaged:
            raise ValueError(f"{', '.join(damaged)} changed")
        facts: npt.NDArray[np.void] = np.load(place / _FACTS_FILE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{place}: the cache is damaged ({error}); delete the folder and run again") from error
    return facts


def _pixel_file(folder: Path, row: int) -> Path:
    return folder / f"pixels-{row // _PATCHES_PER_FILE:05d}.npy"


def _key(recipe: PhantomRecipe) -> str:
    content = json.dumps([asdict(recipe), _renderer()], sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _renderer() -> str:
    """Hash of the renderer's source: what another renderer drew is other data."""
    files = sorted(Path(wsi_her2.phantom.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
