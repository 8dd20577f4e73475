"""Folders that are named by class, with or without folders of parts above them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from wsi_her2.learning.datasets.dataset import Example, Part
from wsi_her2.learning.datasets.findings import Finding, Reading, conclude, error, few, nothing_usable, warning
from wsi_her2.learning.datasets.grades import parse_grade
from wsi_her2.learning.datasets.images import IMAGE_SUFFIXES, files_below, stable_id
from wsi_her2.learning.datasets.origins import ImageFile
from wsi_her2.learning.datasets.screening import screen_images
from wsi_her2.models.classifier import GRADES, OTHER, Modality

_PARTS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def read_folder(
    folder: str | Path,
    *,
    modality: Modality = "ihc",
    classes: Sequence[str] | None = None,
    group_pattern: str | None = None,
    mpp: float | None = None,
    size: tuple[int, int] | None = None,
    thorough: bool = False,
    name: str = "folder",
) -> Reading:
    """Read `<part>/<class>/*.png` or `<class>/*.png`.

    The published code has `Train/0..3` and `Validation/0..3`. Folders of classes whose names mean a grade (`0`,
    `1`, `1+`, `0+`, ...) become `0`, `1+`, `2+` and `3+`.

    Parameters
    ----------
    folder : str or pathlib.Path
    modality : {'ihc', 'he'}
    classes : sequence of str, optional
        The classes and their order. By default those that there are: `other`, the grades, then the rest by name.
    group_pattern : str, optional
        Regular expression that finds in a file's stem what must not be split; its first group, or all of it, names
        the patient, case or slide. Without it every picture stands alone, and pictures of one patient get into
        different parts.
    mpp : float, optional
        Microns per pixel.
    size : tuple of int or None
        Expected width and height; by default whatever most have.
    thorough : bool
        Decode every image and compare pixels.
    name : str

    Raises
    ------
    DatasetError
        Nothing can be used.
    ValueError
        `group_pattern` is not a regular expression.
    """
    pattern = _compiled(group_pattern)
    folder = Path(folder)
    if not folder.is_dir():
        raise nothing_usable(name, folder, [error("missing-folder", folder, "there is no such folder")])
    found, findings = _find_classes(folder)
    if classes is not None:
        for label in [each for each in found if each not in classes]:
            findings.append(
                error(
                    "unknown-class",
                    found[label][0][1],
                    f"{label!r} is not one of the classes {', '.join(classes)}",
                )
            )
            del found[label]
    if pattern is None:
        findings.append(
            warning(
                "no-groups",
                folder,
                "nothing says which pictures are of one patient, so that a split may put the same patient on both "
                "sides and accuracy comes out too high; pass group_pattern if the file names tell",
            )
        )
    candidates = []
    for label, places in found.items():
        for part, place in places:
            images, others = files_below(place)
            if others:
                findings.append(
                    warning(
                        "not-an-image",
                        others[0],
                        f"{len(others)} files are no images ({_names(others)}); passed over",
                    )
                )
            if not images:
                findings.append(warning("empty-class", place, "holds no image"))
            for path in images:
                group = _group(path, folder, pattern)
                if group is None:
                    findings.append(
                        error(
                            "no-group",
                            path,
                            f"{group_pattern!r} finds nothing in its name; rename it or mend the pattern",
                        )
                    )
                    continue
                example = Example(
                    id=stable_id(path, folder),
                    source=name,
                    group=group,
                    label=label,
                    pixels=ImageFile(path),
                    modality=modality,
                    part=part,
                    mpp=mpp,
                )
                candidates.append((path, example))
    candidates.sort(key=lambda each: each[1].id)
    examples, screened = screen_images(candidates, size=size, thorough=thorough)
    ordered = tuple(classes) if classes is not None else _in_order(found)
    return conclude(name, folder, ordered, modality, examples, [*findings, *screened])


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as failed:
        raise ValueError(f"group_pattern {pattern!r} is not a regular expression: {failed}") from failed


def _find_classes(folder: Path) -> tuple[dict[str, list[tuple[Part | None, Path]]], list[Finding]]:
    """The folders of each class, and the part that each is in."""
    findings: list[Finding] = []
    below = _folders(folder)
    parts = [path for path in below if path.name.lower() in _PARTS]
    if parts:
        for path in below:
            if path not in parts:
                findings.append(
                    warning("unknown-folder", path, f"stands beside {_names(parts)} but is no part; passed over")
                )
        places: list[tuple[Part | None, Path]] = [
            (_PARTS[part.name.lower()], path) for part in parts for path in _folders(part)
        ]
        findings += [_loose(part) for part in parts if _has_images(part)]
    else:
        places = [(None, path) for path in below]
    if _has_images(folder):
        findings.append(_loose(folder))
    found: dict[str, list[tuple[Part | None, Path]]] = defaultdict(list)
    for part_name, path in places:
        found[parse_grade(path.name) or path.name].append((part_name, path))
    for label, of_class in found.items():
        names = sorted({path.name for _, path in of_class})
        if len(names) > 1:
            findings.append(
                warning(
                    "merged-folders",
                    of_class[0][1],
                    f"the folders {', '.join(names)} all mean {label}; put together",
                )
            )
    if not found:
        findings.append(error("missing-folder", folder, "holds no folders of classes, such as 0, 1+, 2+ and 3+"))
    return dict(found), findings


def _group(path: Path, folder: Path, pattern: re.Pattern[str] | None) -> str | None:
    if pattern is None:
        return stable_id(path, folder)
    match = pattern.search(path.stem)
    if match is None:
        return None
    return (match[1] if pattern.groups else match[0]) or None


def _in_order(found: dict[str, list[tuple[Part | None, Path]]]) -> tuple[str, ...]:
    known = (OTHER, *GRADES)
    rest = sorted(label for label in found if label not in known)
    graded = any(label in GRADES for label in found)
    # All four grades even if one has no folder: a classifier of three grades would be a surprise.
    return (*(label for label in known if label in found or (graded and label != OTHER)), *rest)


def _loose(folder: Path) -> Finding:
    return warning(
        "loose-images", folder, "images that lie beside the folders of classes have no class; passed over"
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir() if path.is_file())


def _names(paths: Sequence[Path]) -> str:
    return few([path.name for path in paths])
