"""BCI: registered H&E and HER2 IHC patches, named by their source slide's score."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_her2.learning.datasets.dataset import Example, Part
from wsi_her2.learning.datasets.findings import Finding, Reading, conclude, error, few, nothing_usable, warning
from wsi_her2.learning.datasets.grades import Grouping, classes_of, grouped, parse_grade
from wsi_her2.learning.datasets.images import files_below, stable_id
from wsi_her2.learning.datasets.origins import ImageFile
from wsi_her2.learning.datasets.screening import screen_images
from wsi_her2.models.classifier import Modality

SIZE = (1024, 1024)
"""Published size of the patches."""

_FOLDERS: dict[Modality, str] = {"he": "HE", "ihc": "IHC"}
_PARTS: dict[str, Part] = {"train": "train", "test": "test"}
_NAME = re.compile(r"(\d{5})_(train|test)_([0-3]\+?)")

_Key = tuple[str, str]
"""Part and the five digits: numbers start anew in the test part."""


@dataclass(frozen=True)
class _Patch:
    path: Path
    grade: str


def read_bci(
    folder: str | Path,
    *,
    modality: Modality = "ihc",
    grouping: Grouping = "grades",
    label_from: Modality = "ihc",
    mpp: float | None = None,
    size: tuple[int, int] | None = SIZE,
    thorough: bool = False,
    name: str = "bci",
) -> Reading:
    """Read BCI as published: `HE/{train,test}` and `IHC/{train,test}` with `00001_train_2+.png`.

    The label is the score of the *source slide*, inherited by every patch of it: a patch of stroma from a 3+ slide
    is called 3+. The published split is by patch and no patient identifiers are published, so patches of one slide
    lie on both sides of it and accuracy on the test part is optimistic. Nothing here can mend that.

    Parameters
    ----------
    folder : str or pathlib.Path
        The folder of `HE` and `IHC`, or one that holds it.
    modality : {'ihc', 'he'}
        Whose pictures.
    grouping : {'grades', 'binary'}
        Four classes, or 0 and 1+ as negative and 2+ and 3+ as positive.
    label_from : {'ihc', 'he'}
        The two names of a pair can carry different scores; whose counts. A patch without a partner has its own.
    mpp : float, optional
        Microns per pixel; the files do not hold it.
    size : tuple of int or None
        Expected width and height; another one for resampled copies, None for whatever most have.
    thorough : bool
        Decode every image and compare pixels.
    name : str

    Returns
    -------
    Reading
        A group is a pair, so that the H&E and the IHC patch of a place never part.

    Raises
    ------
    DatasetError
        Nothing can be used.
    """
    classes = classes_of(grouping)
    folder = Path(folder)
    root, findings = _find_root(folder)
    if root is None:
        raise nothing_usable(name, folder, findings)
    patches = {}
    for each, below in _FOLDERS.items():
        patches[each], found = _find_patches(root / below, needed=each == modality)
        findings += found
    findings += _compare_pairs(patches, label_from)
    own, partners = patches[modality], patches["he" if modality == "ihc" else "ihc"]
    candidates = []
    for (part, digits), patch in sorted(own.items()):
        named = patch if label_from == modality else partners.get((part, digits), patch)
        candidates.append(
            (
                patch.path,
                Example(
                    id=stable_id(patch.path, root),
                    source=name,
                    group=f"bci-{part}-{digits}",
                    label=grouped(named.grade, grouping),
                    pixels=ImageFile(patch.path),
                    modality=modality,
                    part=_PARTS[part],
                    mpp=mpp,
                ),
            )
        )
    examples, found = screen_images(candidates, size=size, thorough=thorough)
    return conclude(name, folder, classes, modality, examples, [*findings, *found])


def _find_root(folder: Path) -> tuple[Path | None, list[Finding]]:
    if not folder.is_dir():
        return None, [error("missing-folder", folder, "there is no such folder")]
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    for place in places:
        if any((place / below).is_dir() for below in _FOLDERS.values()):
            return place, []
    return None, [
        error("missing-folder", folder, "holds neither HE nor IHC; BCI is HE/train, HE/test, IHC/train, IHC/test")
    ]


def _find_patches(folder: Path, *, needed: bool) -> tuple[dict[_Key, _Patch], list[Finding]]:
    report = error if needed else warning
    if not folder.is_dir():
        return {}, [report("missing-folder", folder, "is missing; download it to have patches of this stain")]
    findings: list[Finding] = []
    found: dict[_Key, list[_Patch]] = defaultdict(list)
    for part in _PARTS:
        if not (folder / part).is_dir():
            findings.append(warning("missing-folder", folder / part, f"the {part} part is missing; download it"))
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in _PARTS):
        findings.append(warning("unknown-folder", below, "not a part of BCI (train, test); passed over"))
    for part in (each for each in _PARTS if (folder / each).is_dir()):
        images, others = files_below(folder / part)
        if others:
            findings.append(
                warning(
                    "not-an-image", others[0], f"{len(others)} files are no images ({_names(others)}); passed over"
                )
            )
        for path in images:
            match = _NAME.fullmatch(path.stem)
            grade = parse_grade(match[3]) if match else None
            if match is None or grade is None:
                findings.append(
                    error(
                        "misnamed-file",
                        path,
                        "not named like 00001_train_2+.png, so it has no number and no score",
                    )
                )
            elif match[2] != part:
                findings.append(
                    error(
                        "part-disagreement",
                        path,
                        f"is named {match[2]} but lies in {part}; put it where it belongs",
                    )
                )
            else:
                found[part, match[1]].append(_Patch(path, grade))
    for patches in found.values():
        if len(patches) > 1:
            names = _names([patch.path for patch in patches])
            findings.append(
                error(
                    "duplicate-number", patches[0].path, f"several files have its number ({names}); all left out"
                )
            )
    return {key: patches[0] for key, patches in found.items() if len(patches) == 1}, findings


def _compare_pairs(patches: Mapping[Modality, dict[_Key, _Patch]], label_from: Modality) -> list[Finding]:
    he, ihc = patches["he"], patches["ihc"]
    if not he or not ihc:
        return []
    findings = []
    for key in sorted(he.keys() | ihc.keys()):
        if key not in he or key not in ihc:
            alone, missing = (he[key], "IHC") if key in he else (ihc[key], "H&E")
            findings.append(
                warning(
                    "pair-missing", alone.path, f"has no {missing} patch of the same number; its own score counts"
                )
            )
        elif he[key].grade != ihc[key].grade:
            findings.append(
                warning(
                    "label-disagreement",
                    ihc[key].path,
                    f"the H&E patch of the pair is named {he[key].grade}, the IHC patch {ihc[key].grade}; "
                    f"the {label_from.upper()} name counts",
                )
            )
    return findings


def _names(paths: list[Path]) -> str:
    return few([path.name for path in paths])
