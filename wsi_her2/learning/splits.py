"""Splitting a data set into parts that share no patient, case, slide or scene, and keeping the split on disk.

Pictures of one patient resemble each other more than those of two patients with the same score. A classifier that
is tested on patients it was trained on shows how well it remembers them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from wsi_her2.atomic import write_bytes
from wsi_her2.errors import DatasetError
from wsi_her2.learning.datasets.dataset import PARTS, Dataset, Part, label_text
from wsi_her2.learning.datasets.findings import Finding, few, warning

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

FRACTIONS: Mapping[Part, float] = {"train": 0.7, "validation": 0.15, "test": 0.15}

_LAYOUT = 1
_LEAST_WANTED = 1e-6
_ROUNDS_OF_MOVES = 10
_COLUMNS = ("id", "part", "group", "label")
_SHARE_OFF_BY = 0.1
"""A part whose share of the examples is off by more than this is reported: groups were too large to do better."""


@dataclass(frozen=True, eq=False)
class Split:
    """Which part each example is in.

    Attributes
    ----------
    parts : tuple of {'train', 'validation', 'test'}
        Of each example of the data set, in its order.
    seed : int
    method : dict of str to object
        How it was made: JSON types only.
    """

    parts: tuple[Part, ...]
    seed: int
    method: dict[str, Any]

    def indices(self, part: Part) -> Int64:
        """Examples of a part (int64, increasing)."""
        return np.flatnonzero(np.asarray(self.parts) == part).astype(np.int64)


def split_by_group(
    dataset: Dataset,
    fractions: Mapping[Part, float] = FRACTIONS,
    seed: int = 0,
    *,
    stratify: bool = True,
    published: bool = True,
) -> Split:
    """Split a data set so that no group is in two parts.

    Parameters
    ----------
    dataset : Dataset
        Put data sets that share patients together first (`combine`): a group is one wherever its pictures are.
    fractions : mapping of str to float
        Share of the examples for each part, adding up to 1. Groups stay whole, so that shares are met as far as
        they allow.
    seed : int
        The split depends on this and on the groups and labels, not on the order of the examples.
    stratify : bool
        Give each part its share of each class rather than of the examples.
    published : bool
        Keep what was published: a published test or validation part stays as it is, and only what was published
        as training is divided, among `train` and those parts that were not published. So a test set is never used
        for validation. Examples without a published part go anywhere.

    Raises
    ------
    DatasetError
        A group lies in two published parts, or there are fewer groups to divide than parts to fill.
    ValueError
        The fractions are not positive shares of known parts that add up to 1.
    """
    _check_fractions(fractions)
    assigned = _divide(dataset, fractions, seed, stratify=stratify, published=published)
    method = {
        "kind": "groups",
        "fractions": {part: float(share) for part, share in fractions.items()},
        "stratify": stratify,
        "published": published,
    }
    return Split(tuple(assigned[group] for group in dataset.groups), seed, method)


def k_folds(
    dataset: Dataset,
    k: int,
    seed: int = 0,
    *,
    held_out: Literal["validation", "test"] = "validation",
    validation: float = 0.0,
    stratify: bool = True,
    published: bool = True,
) -> tuple[Split, ...]:
    """Splits in which each group is held out once.

    Parameters
    ----------
    dataset : Dataset
    k : int
        How many, from 2 on.
    seed : int
    held_out : {'validation', 'test'}
        What the fold is for. To report on it, it must be 'test', and whatever is chosen during training must be
        chosen on something else: see `validation`.
    validation : float
        With 'test', the share of the rest that is carved out for validation, by group.
    stratify : bool
        Give each fold its share of each class.
    published : bool
        Leave a published test part out of all folds; it is the test part of each split. What was published as
        training or validation is divided anew.

    Raises
    ------
    DatasetError
        There are fewer groups than folds, a group lies in the published test part and another, or folds of 'test'
        are asked for where a test part is published.
    ValueError
        `k` or `validation` is out of range.
    """
    if k < 2 or not 0 <= validation < 1 or (validation > 0 and held_out != "test"):
        raise ValueError(
            f"k is 2 or more and validation from 0 to 1, for folds of 'test'; not {k} and {validation}"
        )
    fixed = _published_tests(dataset) if published else set()
    if fixed and held_out == "test":
        raise DatasetError(
            f"{dataset.name}: a test part is published, and folds would train on it. Hold out 'validation', or "
            "pass published=False and say so where you report."
        )
    free = [group for group in _sorted_groups(dataset) if group not in fixed]
    if len(free) < k:
        raise DatasetError(f"{dataset.name}: {len(free)} groups cannot be held out in {k} folds")
    mass = _mass(dataset, stratify)
    fold_of = _spread(free, mass, [1 / k] * k, seed)
    splits = []
    for fold in range(k):
        assigned: dict[str, Part] = dict.fromkeys(fixed, "test")
        rest = [group for group in free if fold_of[group] != fold]
        assigned |= {group: held_out for group in free if fold_of[group] == fold}
        assigned |= dict.fromkeys(rest, "train")
        if validation > 0:
            carved = _spread(rest, mass, [1 - validation, validation], seed)
            assigned |= {group: "validation" for group in rest if carved[group] == 1}
        method = {
            "kind": "folds",
            "fold": fold + 1,
            "of": k,
            "held_out": held_out,
            "validation": validation,
            "stratify": stratify,
            "published": published,
        }
        splits.append(Split(tuple(assigned[group] for group in dataset.groups), seed, method))
    return tuple(splits)


def class_counts(dataset: Dataset, split: Split) -> pd.DataFrame:
    """Examples of each class in each part (rows), soft labels as shares, beside `examples` and `groups`."""
    rows = {}
    for part in PARTS:
        indices = split.indices(part)
        of_class = dataset.targets[indices].sum(axis=0, dtype=np.float64).round(3)
        rows[part] = {
            **dict(zip(dataset.classes, of_class.tolist(), strict=True)),
            "examples": len(indices),
            "groups": len({dataset.groups[index] for index in indices}),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def check_split(dataset: Dataset, split: Split) -> tuple[Finding, ...]:
    """What should be known of a split: parts and classes that are missing, parts far from the share asked for.

    Raises
    ------
    DatasetError
        A group is in two parts.
    """
    _check_no_leak(dataset.groups, split.parts)
    counts = class_counts(dataset, split)
    findings = []
    asked = split.method.get("fractions", {})
    for part in PARTS:
        if not counts.loc[part, "examples"]:
            if part in asked or part == "train":
                findings.append(warning("empty-part", None, f"the {part} part is empty"))
            continue
        missing = [name for name in dataset.classes if not counts.loc[part, name]]
        if missing:
            findings.append(warning("class-missing", None, f"the {part} part has no example of {few(missing)}"))
        share = len(split.indices(part)) / max(1, len(dataset))
        if part in asked and abs(share - asked[part]) > _SHARE_OFF_BY:
            findings.append(
                warning(
                    "share-off", None, f"the {part} part holds {share:.0%} of the examples, not {asked[part]:.0%}"
                )
            )
    return tuple(findings)


def write_split(split: Split, dataset: Dataset, path: str | Path) -> Path:
    """Write a split as CSV (id, part, group, label) with a JSON header of the same name beside.

    Parameters
    ----------
    split : Split
    dataset : Dataset
        The one that was split.
    path : str or pathlib.Path
        The CSV file.

    Returns
    -------
    pathlib.Path
        The header.
    """
    path = Path(path)
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for example, part in sorted(zip(dataset.examples, split.parts, strict=True), key=lambda each: each[0].id):
        writer.writerow((example.id, part, example.group, label_text(example.label)))
    content = table.getvalue().encode("utf-8")
    counts = class_counts(dataset, split)
    header = {
        "layout": _LAYOUT,
        "sha256": hashlib.sha256(content).hexdigest(),
        "seed": split.seed,
        "method": split.method,
        "dataset": dataset.describe(),
        "counts": counts.to_dict("index"),
    }
    write_bytes(path, content)
    header_path = path.with_suffix(".json")
    write_bytes(header_path, (json.dumps(header, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
    return header_path


def read_split(path: str | Path, dataset: Dataset) -> Split:
    """Read a split back, and verify that it is of this data set.

    Raises
    ------
    DatasetError
        There is none, it was edited, or the data set has changed since: the message says what.
    """
    path = Path(path)
    header_path = path.with_suffix(".json")
    try:
        content, header = path.read_bytes(), json.loads(header_path.read_text(encoding="utf-8"))
        layout, expected, described = header["layout"], header["sha256"], header["dataset"]
        split_seed, method = int(header["seed"]), dict(header["method"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: cannot be read as a split with its header {header_path.name} ({error})"
        ) from error
    if layout != _LAYOUT:
        raise DatasetError(f"{path}: a split of layout {layout!r}; this version reads layout {_LAYOUT}")
    if hashlib.sha256(content).hexdigest() != expected:
        raise DatasetError(f"{path}: is not what its header was written for; it was edited. Make the split again.")
    lines = csv.reader(io.StringIO(content.decode("utf-8"), newline=""))
    rows = {row[0]: row for row in islice(lines, 1, None)}
    changes = _changes(rows, described, dataset)
    if changes:
        raise DatasetError(
            f"{path}: the data set {dataset.name} is not the one that was split: {'; '.join(changes)}. Restore "
            "the data, read them with the options of that time, or make a new split and train anew."
        )
    parts = tuple(part for example in dataset.examples for part in PARTS if part == rows[example.id][1])
    _check_no_leak(dataset.groups, parts)
    return Split(parts, split_seed, method)


def _check_fractions(fractions: Mapping[Part, float]) -> None:
    unknown = [part for part in fractions if part not in PARTS]
    if unknown or "train" not in fractions:
        raise ValueError(f"fractions are of {', '.join(PARTS)} with train among them, not of {tuple(fractions)}")
    if any(not share > 0 for share in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and add up to 1, not {dict(fractions)}")


def _divide(
    dataset: Dataset, fractions: Mapping[Part, float], seed: int, *, stratify: bool, published: bool
) -> dict[str, Part]:
    """The part of each group."""
    mass = _mass(dataset, stratify)
    assigned: dict[str, Part] = {}
    for allowed, groups in _pools(dataset, tuple(fractions), published=published).items():
        if len(allowed) > 1:
            if len(groups) < len(allowed):
                raise DatasetError(
                    f"{dataset.name}: {len(groups)} groups ({few(groups)}) cannot fill {len(allowed)} parts "
                    f"({', '.join(allowed)}). More patients are needed, or fewer parts."
                )
            shares = [fractions[part] for part in allowed]
            chosen = _spread(groups, mass, [share / sum(shares) for share in shares], seed)
            assigned |= {group: allowed[index] for group, index in chosen.items()}
        else:
            assigned |= dict.fromkeys(groups, allowed[0])
    return assigned


def _pools(dataset: Dataset, asked: tuple[Part, ...], *, published: bool) -> dict[tuple[Part, ...], list[str]]:
    """Groups by the parts that they may go to."""
    everywhere = asked
    if not published:
        return {everywhere: _sorted_groups(dataset)}
    by_source: dict[str, set[Part]] = defaultdict(set)
    stated: dict[str, set[Part]] = defaultdict(set)
    sources: dict[str, set[str]] = defaultdict(set)
    for example in dataset.examples:
        if example.part is not None:
            by_source[example.source].add(example.part)
            stated[example.group].add(example.part)
            sources[example.group].add(example.source)
    torn = sorted(group for group, parts in stated.items() if len(parts) > 1)
    if torn:
        raise DatasetError(
            f"{dataset.name}: {len(torn)} groups lie in two published parts ({few(torn)}), so the published split "
            "shares patients. Pass published=False to split anew by group, and say so where you report."
        )
    pools: dict[tuple[Part, ...], list[str]] = defaultdict(list)
    for group in _sorted_groups(dataset):
        part = next(iter(stated.get(group, ())), None)
        if part is None:
            pools[everywhere].append(group)
        elif part == "train":
            taken = set().union(*(by_source[source] for source in sources[group])) - {"train"}
            pools[tuple(each for each in asked if each not in taken)].append(group)
        else:
            pools[part,].append(group)
    return dict(pools)


def _published_tests(dataset: Dataset) -> set[str]:
    """Groups of the published test part."""
    tests = {example.group for example in dataset.examples if example.part == "test"}
    torn = sorted({example.group for example in dataset.examples if example.part not in (None, "test")} & tests)
    if torn:
        raise DatasetError(
            f"{dataset.name}: {len(torn)} groups lie in the published test part and in another ({few(torn)}). "
            "Pass published=False to divide all of it, and say so where you report."
        )
    return tests


def _sorted_groups(dataset: Dataset) -> list[str]:
    return sorted(set(dataset.groups))


def _mass(dataset: Dataset, stratify: bool) -> dict[str, Float64]:
    """How much of each class each group holds; of examples where classes do not matter."""
    amounts = dataset.targets.astype(np.float64) if stratify else np.ones((len(dataset), 1))
    mass: dict[str, Float64] = {}
    # Summed in the order of identifiers: sums of soft labels in another order could differ in the last bit.
    for index in sorted(range(len(dataset)), key=dataset.ids.__getitem__):
        group = dataset.groups[index]
        mass[group] = mass.get(group, np.zeros(amounts.shape[1])) + amounts[index]
    return mass


def _spread(
    groups: Sequence[str], mass: Mapping[str, Float64], shares: Sequence[float], seed: int
) -> dict[str, int]:
    """Put each group into the bin that lacks its classes most: the largest groups first, equals by lot.

    How far bins are from what they should hold is counted as in a chi-square test, so that rare classes and small
    bins weigh as much as others. Then groups move, one at a time, as long as that brings the bins closer.
    """
    shuffled = [sorted(groups)[index] for index in np.random.default_rng([seed, 41]).permutation(len(groups))]
    order = sorted(shuffled, key=lambda group: -float(mass[group].sum()))
    wanted = np.maximum(np.outer(shares, np.sum([mass[group] for group in order], axis=0)), _LEAST_WANTED)
    have = np.zeros_like(wanted)
    count = np.zeros(len(shares), np.int64)
    chosen: dict[str, int] = {}
    for position, group in enumerate(order):
        cost = _cost_of_adding(mass[group], have, wanted)
        empty = np.flatnonzero(count == 0)
        if len(empty) >= len(order) - position:
            # No more groups than bins that have none: each of those gets one.
            cost[np.setdiff1d(np.arange(len(shares)), empty)] = np.inf
        best = int(np.argmin(cost))
        chosen[group] = best
        have[best] += mass[group]
        count[best] += 1
    for _ in range(_ROUNDS_OF_MOVES):
        moved = False
        for group in order:
            here = chosen[group]
            if count[here] == 1:
                continue
            have[here] -= mass[group]
            cost = _cost_of_adding(mass[group], have, wanted)
            best = int(np.argmin(cost))
            # By a margin, so that rounding does not send a group back and forth.
            if cost[best] >= cost[here] - 1e-9:
                best = here
            have[best] += mass[group]
            count[here] -= 1
            count[best] += 1
            chosen[group] = best
            moved |= best != here
        if not moved:
            break
    return chosen


def _cost_of_adding(amount: Float64, have: Float64, wanted: Float64) -> Float64:
    """By how much the distance of each bin grows if it gets the amount (bins x classes to bins)."""
    return np.asarray((amount * (2 * (have - wanted) + amount) / wanted).sum(axis=1), np.float64)


def _check_no_leak(groups: Iterable[str], parts: Iterable[Part]) -> None:
    seen: dict[str, Part] = {}
    for group, part in zip(groups, parts, strict=True):
        if seen.setdefault(group, part) != part:
            raise DatasetError(f"the group {group!r} is in {seen[group]} and in {part}; a group must not be split")


def _changes(rows: Mapping[str, Sequence[str]], described: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """What differs between a written split and the data set, in words."""
    changes = []
    if list(described["classes"]) != list(dataset.classes):
        changes.append(f"its classes were {', '.join(described['classes'])}, are {', '.join(dataset.classes)}")
    if described["modality"] != dataset.modality:
        changes.append(f"its modality was {described['modality']}, is {dataset.modality}")
    examples = {example.id: example for example in dataset.examples}
    gone = sorted(rows.keys() - examples.keys())
    new = sorted(examples.keys() - rows.keys())
    both = sorted(rows.keys() & examples.keys())
    regrouped = [each for each in both if rows[each][2] != examples[each].group]
    relabelled = [each for each in both if rows[each][3] != label_text(examples[each].label)]
    unknown = [each for each in both if rows[each][1] not in PARTS]
    for ids, words in (
        (gone, "are gone"),
        (new, "are new"),
        (regrouped, "have another group"),
        (relabelled, "have another label"),
        (unknown, "have an unknown part"),
    ):
        if ids:
            changes.append(f"{len(ids)} examples {words} ({few(ids)})")
    return changes
