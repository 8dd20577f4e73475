"""BreakHis: benign and malignant H&E pictures of 82 patients at four magnifications; it says nothing of HER2."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsi_her2.learning.datasets.dataset import Example
from wsi_her2.learning.datasets.findings import Finding, Reading, conclude, error, few, nothing_usable, warning
from wsi_her2.learning.datasets.images import files_below, stable_id
from wsi_her2.learning.datasets.origins import ImageFile
from wsi_her2.learning.datasets.screening import screen_images

SIZE = (700, 460)
"""Published size of the pictures."""

MAGNIFICATIONS = (40, 100, 200, 400)

SUBTYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
"""Short and long names, as in files and folders; the first four are benign."""

_TUMOURS = {"B": "benign", "M": "malignant"}
_NAME = re.compile(r"[A-Z]+_([BM])_([A-Z]+)-(\d{2})-(\w+)-(\d+)-(\d+)")


@dataclass(frozen=True)
class _Name:
    tumour: str
    subtype: str
    patient: str
    magnification: int


def read_breakhis(
    folder: str | Path,
    *,
    magnifications: Sequence[int] = MAGNIFICATIONS,
    classes: Literal["binary", "subtypes"] = "binary",
    mpp: Mapping[int, float] | None = None,
    size: tuple[int, int] | None = SIZE,
    thorough: bool = False,
    name: str = "breakhis",
) -> Reading:
    """Read BreakHis: the published tree, or any folder of files that are named as published.

    `SOB_B_A-14-22549AB-40-001.png` is a benign adenosis of the patient 14-22549AB at 40x. Names decide; folders
    are only compared with them. Pictures of a patient, at whatever magnification, are one group. The microns per
    pixel are not in the files, and the magnifications are the microscope's, not a scanner's.

    Parameters
    ----------
    folder : str or pathlib.Path
        Searched through and through.
    magnifications : sequence of int
        Of 40, 100, 200 and 400.
    classes : {'binary', 'subtypes'}
        Benign and malignant, or the eight subtypes.
    mpp : mapping of int to float, optional
        Microns per pixel of each magnification.
    size : tuple of int or None
        Expected width and height; None for whatever most have.
    thorough : bool
        Decode every image and compare pixels.
    name : str

    Raises
    ------
    DatasetError
        Nothing can be used.
    ValueError
        There is no such magnification or choice of classes.
    """
    unknown = [each for each in magnifications if each not in MAGNIFICATIONS]
    if unknown or not magnifications:
        raise ValueError(f"magnifications are of {MAGNIFICATIONS}, not {tuple(magnifications)}")
    if classes not in ("binary", "subtypes"):
        raise ValueError(f"classes is 'binary' or 'subtypes', not {classes!r}")
    folder = Path(folder)
    if not folder.is_dir():
        raise nothing_usable(name, folder, [error("missing-folder", folder, "there is no such folder")])
    named, findings = _find_named(folder)
    findings += _patients_of_two_kinds(named)
    candidates = [
        (
            path,
            Example(
                id=stable_id(path, folder),
                source=name,
                group=what.patient,
                label=what.tumour if classes == "binary" else what.subtype,
                pixels=ImageFile(path),
                modality="he",
                mpp=(mpp or {}).get(what.magnification),
                magnification=what.magnification,
            ),
        )
        for path, what in named
        if what.magnification in magnifications
    ]
    if named and not candidates:
        wanted = few([f"{each}x" for each in magnifications])
        findings.append(error("no-magnification", folder, f"holds no picture at {wanted}; choose others"))
    examples, found = screen_images(candidates, size=size, thorough=thorough)
    names = tuple(_TUMOURS.values()) if classes == "binary" else tuple(SUBTYPES.values())
    return conclude(name, folder, names, "he", examples, [*findings, *found])


def _find_named(folder: Path) -> tuple[list[tuple[Path, _Name]], list[Finding]]:
    findings: list[Finding] = []
    first: dict[str, Path] = {}
    named = []
    for path in files_below(folder)[0]:
        what = _parse(path.stem)
        if what is None:
            findings.append(
                error(
                    "misnamed-file", path, "not named like SOB_M_DC-14-2523-400-001.png, so nothing is known of it"
                )
            )
            continue
        disagreement = _disagrees_with_folders(what, path.relative_to(folder).parts[:-1])
        if disagreement:
            findings.append(error("label-disagreement", path, f"{disagreement}; put it where it belongs"))
        elif path.name in first:
            findings.append(
                error(
                    "duplicate-name", path, f"a file of the same name is {first[path.name]}; this one is left out"
                )
            )
        else:
            first[path.name] = path
            named.append((path, what))
    return named, findings


def _parse(stem: str) -> _Name | None:
    match = _NAME.fullmatch(stem)
    if match is None or match[2] not in SUBTYPES or int(match[5]) not in MAGNIFICATIONS:
        return None
    is_benign = list(SUBTYPES).index(match[2]) < 4
    if is_benign != (match[1] == "B"):
        return None
    return _Name(_TUMOURS[match[1]], SUBTYPES[match[2]], f"{match[3]}-{match[4]}", int(match[5]))


def _disagrees_with_folders(what: _Name, folders: tuple[str, ...]) -> str | None:
    for each in folders:
        folder = each.lower()
        if folder in _TUMOURS.values() and folder != what.tumour:
            return f"is named {what.tumour} but lies in {each}"
        if folder in SUBTYPES.values() and folder != what.subtype:
            return f"is named {what.subtype} but lies in {each}"
        if re.fullmatch(r"\d+x", folder) and int(folder[:-1]) != what.magnification:
            return f"is named {what.magnification}x but lies in {each}"
    return None


def _patients_of_two_kinds(named: Sequence[tuple[Path, _Name]]) -> list[Finding]:
    subtypes: dict[str, dict[str, Path]] = defaultdict(dict)
    for path, what in named:
        subtypes[what.patient].setdefault(what.subtype, path)
    return [
        warning(
            "patient-of-two-classes",
            next(iter(of_patient.values())),
            f"the patient {patient} has pictures of {' and '.join(of_patient)}; all stay in one group",
        )
        for patient, of_patient in sorted(subtypes.items())
        if len(of_patient) > 1
    ]
