"""Rendered fields of tissue with a label for every few microns, kept on disk so that epochs do not render again.

A field is larger than a patch. Patches are cut from it at random, with labels that follow: so a network sees new
patches in every epoch, and can be told not only what a patch holds but where. Fields are scenes of their own, each
with its own stain, or several of them come from one slide, as the patches of a slide do.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from wsi_her2.errors import DatasetError
from wsi_her2.models.classifier import GRADES, OTHER, Modality
from wsi_her2.phantom.composition import LookName
from wsi_her2.phantom.patches import draw_scene_spec, draw_slide_spec
from wsi_her2.phantom.render import Phantom, make_phantom
from wsi_her2.phantom.stains import Look
from wsi_her2.phantom.tissue import Tissue
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.pyramid import encode_jpeg
from wsi_her2.slides.white_point import white_table

FIELD_CLASSES = (OTHER, *GRADES)
"""What the labels count: 0 is `other`, 1 to 4 are the grades."""

UNDECIDED = -1
"""Label of places that by their look cannot be told from tumour, but are none: ducts in situ and normal ones."""

LABEL_PX = 16
"""Pixels that share a label: 8 um at 0.5 um/px, less than a cell."""

_DRAWN_MPP = 0.25
"""Fields are drawn as a 40x scanner sees them and then averaged down, which is how slides are read."""

_REACH_UM = 12.0
"""How far the nearest tumour cell may be from a place in tumour for its class to be the place's."""

_MIN_TISSUE = 0.3
"""Share of a field of a slide that is tissue."""

_LAYOUT = 2

Field = tuple[RGB, npt.NDArray[np.int8]]
"""Pixels and labels."""


@dataclass(frozen=True)
class FieldSettings:
    """What to render.

    Attributes
    ----------
    count : int
        Fields; a multiple of `per_slide`.
    field_px : int
        Side of a field at `mpp`; a multiple of `LABEL_PX`.
    mpp : float
        Scale of the fields, um/px.
    looks : tuple of str
        Looks to draw from.
    seed : int
        Equal settings make equal fields.
    modality : {'ihc', 'he'}
    per_slide : int
        Fields that follow each other and come from one slide; 1 for scenes of their own.
    """

    count: int
    field_px: int = 512
    mpp: float = 0.5
    looks: tuple[LookName, ...] = ("random",)
    seed: int = 0
    modality: Modality = "ihc"
    per_slide: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or self.field_px < 64 or self.field_px % LABEL_PX or not self.looks:
            raise DatasetError(
                f"fields need a count from 1 on, a side from 64 px on in steps of {LABEL_PX} px and a look, not "
                f"{self.count}, {self.field_px} px and {self.looks}"
            )
        if self.per_slide < 1 or self.count % self.per_slide:
            raise DatasetError(f"fields need whole slides, not {self.count} fields with {self.per_slide} of each")

    @property
    def key(self) -> str:
        """Names the fields among others."""
        described = json.dumps({"layout": _LAYOUT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Fields:
    """Fields on disk.

    Attributes
    ----------
    settings : FieldSettings
    pixels : uint8 N x S x S x 3
        White point at 255; a memory map.
    labels : int8 N x S/16 x S/16
        Index into `FIELD_CLASSES`, or `UNDECIDED`.
    """

    settings: FieldSettings
    pixels: RGB
    labels: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.labels)


def class_shares(labels: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Shares of the classes among the decided labels (float32 ... x 5) of maps (int8 ... x h x w)."""
    counts = np.stack([(labels == index).sum(axis=(-2, -1)) for index in range(len(FIELD_CLASSES))], axis=-1)
    return np.asarray(counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1), np.float32)


def rendered_fields(
    settings: FieldSettings,
    folder: str | Path,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Fields:
    """Render fields, or open those that were rendered before.

    Parameters
    ----------
    settings : FieldSettings
    folder : str or pathlib.Path
        Where fields are kept; those of other settings may lie there too.
    workers : int
        Processes that draw; the fields do not depend on it.
    progress : callable, optional
        Called with the fields done and all fields.

    Raises
    ------
    DatasetError
        They cannot be written.
    """
    home = Path(folder) / f"fields-{settings.key}"
    if not home.is_dir():
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(prefix=".fields-", dir=home.parent))
            try:
                _render_into(beside, settings, workers, progress)
                beside.rename(home)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        except OSError as error:
            raise DatasetError(f"{home}: the fields cannot be kept ({error.strerror or error})") from error
    return Fields(
        settings,
        np.load(home / "pixels.npy", mmap_mode="r"),
        np.load(home / "labels.npy"),
    )


def as_scanned(drawn: RGB, look: Look, quality: int) -> RGB:
    """Drawn pixels as a file of that JPEG quality keeps them and as correcting the white point leaves them."""
    red, green, blue = (float(level) for level in look.white)
    kept = imagecodecs.jpeg8_decode(encode_jpeg(drawn, quality))
    return np.asarray(cv2.LUT(kept, white_table((red, green, blue))), np.uint8)


def _render_into(
    folder: Path, settings: FieldSettings, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    side, edge = settings.field_px, settings.field_px // LABEL_PX
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (settings.count, side, side, 3))
    labels = np.zeros((settings.count, edge, edge), np.int8)
    draw = partial(_draw_slide if settings.per_slide > 1 else _draw_scene, settings)
    slides = settings.count // settings.per_slide

    def keep(slide: int, fields: list[Field]) -> None:
        for number, field in enumerate(fields, slide * settings.per_slide):
            pixels[number], labels[number] = field

    def show(done: int) -> None:
        if progress:
            progress(done * settings.per_slide, settings.count)

    if workers == 1:
        for slide in range(slides):
            keep(slide, draw(slide))
            show(slide + 1)
    else:
        # Spawned: forks of processes with threads can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
            # A bounded number of slides is under way: what is drawn waits in memory until it is written.
            numbers = iter(range(slides))
            pending = {pool.submit(draw, slide): slide for slide in islice(numbers, 4 * workers)}
            for done in range(1, slides + 1):
                future = next(as_completed(pending))
                keep(pending.pop(future), future.result())
                pending |= {pool.submit(draw, slide): slide for slide in islice(numbers, 1)}
                show(done)
    pixels.flush()
    np.save(folder / "labels.npy", labels)
    (folder / "fields.json").write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")


def _draw_scene(settings: FieldSettings, number: int) -> list[Field]:
    """One field, a scene of its own that fills it."""
    rng = np.random.default_rng([settings.seed, 29, number])
    mpp, drawn_px = _drawn(settings)
    margin = round(16 / mpp)
    side_px = drawn_px + 2 * margin
    spec = draw_scene_spec(rng, side_px * mpp / 1000, mpp, settings.looks, settings.modality)
    start = (side_px - drawn_px) // 2
    return [_field(settings, make_phantom(spec, filled=True), start, start, int(rng.integers(70, 96)))]


def _draw_slide(settings: FieldSettings, number: int) -> list[Field]:
    """Fields of one slide, where it holds tissue: side by side as far as they go, at random beyond."""
    rng = np.random.default_rng([settings.seed, 31, number])
    mpp, drawn_px = _drawn(settings)
    spec = draw_slide_spec(rng, mpp, settings.looks, settings.modality)
    phantom = make_phantom(spec)
    columns, rows = spec.width_px // drawn_px, spec.height_px // drawn_px
    if min(columns, rows) < 1:
        raise DatasetError(f"fields of {settings.field_px} px do not fit into a slide of {spec.width_mm} mm")
    left, top = (spec.width_px - columns * drawn_px) // 2, (spec.height_px - rows * drawn_px) // 2
    tiles = [(left + column * drawn_px, top + row * drawn_px) for row in range(rows) for column in range(columns)]
    held = [place for place in tiles if _tissue_share(phantom, *place, drawn_px) >= _MIN_TISSUE]
    places = [held[index] for index in rng.permutation(len(held))[: settings.per_slide]]
    while len(places) < settings.per_slide:
        x, y = (int(rng.integers(extent - drawn_px + 1)) for extent in (spec.width_px, spec.height_px))
        if not held or _tissue_share(phantom, x, y, drawn_px) >= _MIN_TISSUE:
            places.append((x, y))
    return [_field(settings, phantom, x, y, phantom.look.jpeg_quality) for x, y in places]


def _drawn(settings: FieldSettings) -> tuple[float, int]:
    """Scale (um/px) and side of a field as it is drawn."""
    factor = max(1, round(settings.mpp / _DRAWN_MPP))
    return settings.mpp / factor, settings.field_px * factor


def _tissue_share(phantom: Phantom, x: int, y: int, side_px: int) -> float:
    step = phantom.layout.pitch_px
    rows, columns = (slice(at // step, (at + side_px) // step) for at in (y, x))
    return float((phantom.layout.depth_um[rows, columns] > 0).mean())


def _field(settings: FieldSettings, phantom: Phantom, x: int, y: int, quality: int) -> Field:
    """A field at a place of level 0."""
    _, drawn_px = _drawn(settings)
    drawn, planes = phantom.draw(x, y, drawn_px, drawn_px)
    corrected = as_scanned(drawn, phantom.look, quality)
    pixels = cv2.resize(corrected, (settings.field_px,) * 2, interpolation=cv2.INTER_AREA)
    return np.asarray(pixels, np.uint8), _label(phantom, planes.body, x, y, settings.field_px // LABEL_PX)


def _label(phantom: Phantom, body: npt.NDArray[np.uint8], x: int, y: int, edge: int) -> npt.NDArray[np.int8]:
    """What lies at each place: the class of the nearest tumour cell within tumour, undecided in ducts."""
    step = body.shape[0] // edge

    def share(kinds: tuple[Tissue, ...]) -> npt.NDArray[np.float64]:
        return np.asarray(np.isin(body, kinds).reshape(edge, step, edge, step).mean(axis=(1, 3)))

    labels = np.zeros((edge, edge), np.int8)
    labels[share((Tissue.IN_SITU, Tissue.NORMAL_DUCT)) > 0.25] = UNDECIDED
    tumour = share((Tissue.INVASIVE,)) > 0.5
    cells = phantom.cells[phantom.cells["kind"] == Tissue.INVASIVE]
    if not tumour.any() or len(cells) == 0:
        return labels
    mpp = phantom.spec.mpp
    rows, columns = np.nonzero(tumour)
    places = (np.stack([columns, rows], axis=1) * step + np.array((x, y)) + step / 2) * mpp
    distance, nearest = cKDTree(np.stack([cells["x_um"], cells["y_um"]], axis=1)).query(places)
    classes = cells["her2"][nearest].astype(np.int8) + 1
    labels[rows, columns] = np.where((distance <= _REACH_UM) & (classes > 0), classes, UNDECIDED)
    return labels
