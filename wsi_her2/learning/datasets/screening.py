"""What is looked at in every folder of images: damage, sizes, and pictures that are there twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from wsi_her2.learning.datasets.dataset import PARTS, Example
from wsi_her2.learning.datasets.findings import Finding, error, few, warning
from wsi_her2.learning.datasets.images import inspect_images


def screen_images(
    candidates: Sequence[tuple[Path, Example]], *, size: tuple[int, int] | None, thorough: bool
) -> tuple[list[Example], list[Finding]]:
    """Leave out files that cannot be decoded and all but one of each set of equal pictures.

    Of equal pictures that of the test part is kept, so that a published test set stays whole; if their labels
    differ, all are left out, since nobody can say which is right.

    Parameters
    ----------
    candidates : sequence of (path, Example)
    size : tuple of int or None
        Width and height that are expected; None expects what most have.
    thorough : bool
        See `inspect_images`.
    """
    inspected = inspect_images([path for path, _ in candidates], thorough=thorough)
    findings = []
    readable: list[tuple[Path, Example]] = []
    by_size: dict[tuple[int, int], list[Path]] = defaultdict(list)
    by_digest: dict[str, list[tuple[Path, Example]]] = defaultdict(list)
    for (path, example), image in zip(candidates, inspected, strict=True):
        if image.problem is not None:
            findings.append(error("unreadable-image", path, image.problem.removeprefix(f"{path}: ")))
            continue
        readable.append((path, example))
        by_size[image.size].append(path)
        if image.digest is not None:
            by_digest[image.digest].append((path, example))
    findings += _unexpected_sizes(by_size, size)
    left_out: set[str] = set()
    for equal in by_digest.values():
        if len(equal) > 1:
            found = _duplicates(equal)
            findings += [finding for finding, _ in found]
            left_out |= {example.id for _, example in found}
    return [example for _, example in readable if example.id not in left_out], findings


def _unexpected_sizes(by_size: dict[tuple[int, int], list[Path]], size: tuple[int, int] | None) -> list[Finding]:
    expected = size or max(by_size, key=lambda each: (len(by_size[each]), each), default=(0, 0))
    return [
        warning(
            "unexpected-size",
            paths[0],
            f"{len(paths)} images are {width} x {height} px instead of {expected[0]} x {expected[1]} "
            f"({few([path.name for path in paths])}); they may have been resampled or cut",
        )
        for (width, height), paths in sorted(by_size.items())
        if (width, height) != expected
    ]


def _duplicates(equal: list[tuple[Path, Example]]) -> list[tuple[Finding, Example]]:
    if len({example.label for _, example in equal}) > 1:
        labels = ", ".join(f"{path.name} ({example.label})" for path, example in equal)
        return [
            (
                error(
                    "duplicate-label",
                    path,
                    f"the same picture is there with different labels: {labels}; all left out",
                ),
                example,
            )
            for path, example in equal
        ]
    order = sorted(equal, key=lambda each: -1 if each[1].part is None else -PARTS.index(each[1].part) - 2)
    kept_path, kept = order[0]
    found = []
    for path, example in order[1:]:
        across = "" if example.part == kept.part else f", which is in the {kept.part} part"
        found.append(
            (error("duplicate-image", path, f"the same picture as {kept_path}{across}; left out"), example)
        )
    return found
