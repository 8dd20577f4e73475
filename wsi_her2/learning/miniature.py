"""Small data sets in the real layouts, rendered from phantoms, for tests and demonstrations.

They have the names, folders and tables of the real ones and none of their patients: what is measured on them says
nothing about tissue.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image

from wsi_her2.learning.datasets.breakhis import MAGNIFICATIONS, SUBTYPES
from wsi_her2.phantom import Phantom, PhantomSpec, make_phantom
from wsi_her2.phantom.composition import SCORES, LookName, Score
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.pyramid import write_pyramid

Kind = Literal["bci", "breakhis", "warwick", "published"]

PATCH_PX = 96
"""Side of the pictures of BCI and of the published code's folders."""

BREAKHIS_SIZE = (140, 92)
"""Width and height of the pictures of BreakHis: a fifth of the published size."""

_MPP = 0.5
_SLIDE_MM = 0.3
_PER_SCENE = 2
_SMALLEST_MM = 0.05
_BREAKHIS_MPP = {40: 2.0, 100: 0.8, 200: 0.4, 400: 0.2}
"""In the proportion of the magnifications; the scale itself was chosen by eye."""

_BREAKHIS_DRAWN_MPP = 0.4
_SUBTYPES_DRAWN = ("A", "F", "DC", "MC")
_LOOKS: tuple[LookName, ...] = ("nanozoomer", "aperio")
_PURE: dict[Score, tuple[float, float, float, float]] = {
    "0": (1.0, 0.0, 0.0, 0.0),
    "1+": (0.1, 0.9, 0.0, 0.0),
    "2+": (0.0, 0.1, 0.9, 0.0),
    "3+": (0.0, 0.0, 0.1, 0.9),
}


def make_miniatures(
    folder: str | Path, *, kinds: Sequence[Kind] = get_args(Kind), per_class: int = 8, seed: int = 0
) -> dict[Kind, Path]:
    """Make miniature data sets, each in a folder of its own; some seconds.

    - `bci`: `HE/{train,test}` and `IHC/{train,test}`, registered pairs, a quarter of each class in `test`
    - `breakhis`: the published tree with four of the subtypes at all magnifications
    - `warwick`: pyramidal TIFF slides `<CaseNo>_HER2.tif` and `<CaseNo>_HE.tif`, two cases of each score, and
      `ground_truth.csv`
    - `published`: `Train/0..3` and `Validation/0..3`

    Parameters
    ----------
    folder : str or pathlib.Path
    kinds : sequence of str
        Which.
    per_class : int
        Pictures of each class, from 4 on; slides of Warwick are two cases a score whatever it is.
    seed : int
        The files are a function of this and of `per_class`.

    Returns
    -------
    dict of str to pathlib.Path
        Where each lies.

    Raises
    ------
    ValueError
        There is no such kind, or too few pictures are asked for.
    """
    makers = {"bci": _make_bci, "breakhis": _make_breakhis, "warwick": _make_warwick, "published": _make_published}
    unknown = [kind for kind in kinds if kind not in makers]
    if unknown or per_class < 4:
        raise ValueError(
            f"kinds are of {', '.join(makers)} and per_class is 4 or more; not {kinds} and {per_class}"
        )
    places: dict[Kind, Path] = {}
    for kind in kinds:
        places[kind] = Path(folder) / kind
        makers[kind](places[kind], per_class, seed)
    return places


def _make_bci(folder: Path, per_class: int, seed: int) -> None:
    numbers = {"train": 0, "test": 0}
    for score in SCORES:
        for index, (ihc, he) in enumerate(_patches(score, per_class, seed)):
            part = "test" if index % 4 == 3 else "train"
            name = f"{numbers[part]:05d}_{part}_{score}.png"
            _save(folder / "IHC" / part / name, ihc)
            _save(folder / "HE" / part / name, he)
            numbers[part] += 1


def _make_published(folder: Path, per_class: int, seed: int) -> None:
    for number, score in enumerate(SCORES):
        for index, (rgb, _) in enumerate(_patches(score, per_class, seed + 1)):
            part = "Validation" if index % 4 == 3 else "Train"
            _save(folder / part / str(number) / f"slide{number}{index // _PER_SCENE}_{index:03d}.png", rgb)


def _make_breakhis(folder: Path, per_class: int, seed: int) -> None:
    """Two subtypes a class, two patients a subtype, so many pictures of each at every magnification."""
    width, height = BREAKHIS_SIZE
    root = folder / "BreaKHis_v1" / "histology_slides" / "breast"
    pictures = max(1, per_class // 4)
    for kind, short in enumerate(_SUBTYPES_DRAWN):
        tumour, letter = ("benign", "B") if kind < 2 else ("malignant", "M")
        for patient in range(2):
            slide = f"14-{1000 * (kind + 1) + patient}{'AB' if patient == 0 else ''}"
            below = root / tumour / "SOB" / SUBTYPES[short] / f"SOB_{letter}_{short}_{slide}"
            spec = PhantomSpec(
                score="0",
                tumour_share=0.7 if tumour == "malignant" else 0.02,
                normal_share=0.02 if tumour == "malignant" else 0.3,
                width_mm=pictures * width * _BREAKHIS_MPP[40] / 1000,
                height_mm=height * _BREAKHIS_MPP[40] / 1000,
                mpp=_BREAKHIS_DRAWN_MPP,
                seed=10_000 * seed + 100 * kind + patient,
                look=_LOOKS[patient],
                outline="resection",
                modality="he",
            )
            field = make_phantom(spec, filled=True).read(0, 0, spec.width_px, spec.height_px)
            for magnification, index in product(MAGNIFICATIONS, range(pictures)):
                name = f"SOB_{letter}_{short}-{slide}-{magnification}-{index + 1:03d}.png"
                _save(
                    below / f"{magnification}X" / name,
                    _zoomed(field, index / pictures, 1 / pictures, magnification),
                )


def _zoomed(field: RGB, left: float, share: float, magnification: int) -> RGB:
    """The middle of a stretch of a field, as a microscope of some magnification shows it."""
    width, height = BREAKHIS_SIZE
    scale = _BREAKHIS_MPP[magnification] / _BREAKHIS_DRAWN_MPP
    across, down = round(width * scale), round(height * scale)
    x = round(field.shape[1] * (left + share / 2) - across / 2)
    y = (field.shape[0] - down) // 2
    cut = field[max(0, y) :, max(0, x) :][:down, :across]
    interpolation = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (width, height), interpolation=interpolation), np.uint8)


def _make_warwick(folder: Path, per_class: int, seed: int) -> None:  # noqa: ARG001 - slides are two a score
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    rows = []
    for case in range(1, 9):
        score = SCORES[(case - 1) % 4]
        spec = PhantomSpec(
            score=score,
            tumour_share=0.6,
            width_mm=_SLIDE_MM,
            height_mm=_SLIDE_MM,
            mpp=_MPP,
            seed=10_000 * seed + 5000 + case,
            look="nanozoomer",
        )
        phantom = make_phantom(spec)
        for stain, stained in (("HER2", phantom), ("HE", _in_he(phantom))):
            write_pyramid(
                folder / "slides" / f"{case}_{stain}.tif",
                spec.width_px,
                spec.height_px,
                stained.read,
                mpp=_MPP,
                levels=2,
                description="wsi-her2 digital phantom, not a patient",
            )
        rows.append((case, score.rstrip("+"), round(phantom.truth.pct_complete_membrane)))
    with (folder / "ground_truth.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            (
                "CaseNo",
                "HeR2 SCORE",
                "PERCENTAGE CELLS WITH COMPLETE MEMBRANE STAINING IRRESPECTIVE OF INTENSITY",
            )
        )
        writer.writerows(rows)


def _patches(score: Score, count: int, seed: int) -> Iterator[tuple[RGB, RGB]]:
    """Patches of tumour of one score in IHC and in H&E, some of each scene."""
    for scene in range(-(-count // _PER_SCENE)):
        spec = PhantomSpec(
            score=None,
            class_fractions=_PURE[score],
            tumour_share=0.7,
            width_mm=max(_SMALLEST_MM, _PER_SCENE * PATCH_PX * _MPP / 1000),
            height_mm=max(_SMALLEST_MM, PATCH_PX * _MPP / 1000),
            mpp=_MPP,
            seed=10_000 * seed + 1000 * SCORES.index(score) + scene,
            look=_LOOKS[scene % 2],
            outline="resection",
            pattern="solid",
            normal_share=0.0,
            in_situ_share=0.0,
        )
        ihc = make_phantom(spec, filled=True)
        he = _in_he(ihc)
        for index in range(min(_PER_SCENE, count - scene * _PER_SCENE)):
            box = (index * PATCH_PX, 0, PATCH_PX, PATCH_PX)
            yield ihc.draw(*box)[0], he.draw(*box)[0]


def _in_he(phantom: Phantom) -> Phantom:
    """The same cells in H&E."""
    return replace(phantom, spec=replace(phantom.spec, modality="he"))


def _save(path: Path, rgb: RGB) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)
