"""Patch stores that `score` left behind, labelled by a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_her2.errors import DatasetError, StoreError
from wsi_her2.learning.datasets.dataset import Example
from wsi_her2.learning.datasets.findings import Finding, Reading, conclude, error, few, nothing_usable, warning
from wsi_her2.learning.datasets.grades import parse_grade
from wsi_her2.learning.datasets.origins import StoreRow
from wsi_her2.learning.datasets.truth import SlideTruth, case_name, is_truth_table, read_slide_labels, read_truth
from wsi_her2.messages import shortened
from wsi_her2.models.classifier import GRADES, OTHER, Modality
from wsi_her2.slides.store import PatchStore

STORE = "patches.zarr"


@dataclass(frozen=True)
class _Labels:
    """Labels of slides by name, or of the cases that slides are named after."""

    by_slide: Mapping[str, SlideTruth]
    by_case: Mapping[str, SlideTruth]

    def of(self, slide_id: str) -> SlideTruth | None:
        if slide_id in self.by_slide:
            return self.by_slide[slide_id]
        stem, _, stain = slide_id.rpartition("_")
        case = stem if stain.upper() in ("HER2", "HE") else slide_id
        return self.by_case.get(case_name(case))


def read_stores(
    folder: str | Path,
    labels: str | Path | Mapping[str, str],
    *,
    modality: Modality = "ihc",
    tumour_only: bool = False,
    per_slide: int | None = None,
    name: str = "stores",
) -> Reading:
    """Read the patches that `score --store-patches` kept: `<folder>/<slide_id>/patches.zarr`.

    Every patch of a slide gets the slide's label. Rows that were not scored are passed over. Pixels are as they
    were read, before any correction of stain; `Dataset.white_corrected` applies the slide's white point.

    Parameters
    ----------
    folder : str or pathlib.Path
        An output folder of `score`.
    labels : str, pathlib.Path or mapping of str to str
        The class of each slide: a table with `slide_id`, `label` and perhaps `group`, a ground-truth table with
        Warwick's columns for slides named `<CaseNo>_HER2`, or a mapping.
    modality : {'ihc', 'he'}
    tumour_only : bool
        Leave out patches that the classifier of the run took for `other`: a slide's score says nothing of its
        stroma. What is learnt then leans on that classifier.
    per_slide : int, optional
        At most so many patches of a slide, spread evenly.
    name : str

    Returns
    -------
    Reading
        A group is the slide, or the case or group where the table tells it.

    Raises
    ------
    DatasetError
        Nothing can be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise nothing_usable(name, folder, [error("missing-folder", folder, "there is no such folder")])
    try:
        table, label_findings = _read_labels(labels)
    except DatasetError as failed:
        raise nothing_usable(name, folder, [error("bad-table", None, str(failed))]) from failed
    findings = list(label_findings)
    stores = sorted(path for path in folder.glob(f"*/{STORE}") if not path.parent.name.startswith("."))
    if not stores:
        findings.append(
            error("no-stores", folder, f"holds no <slide_id>/{STORE}; it must be the -o folder of score")
        )
    examples: list[Example] = []
    shapes: Counter[tuple[int, float]] = Counter()
    for path in stores:
        slide_id = path.parent.name
        truth = table.of(slide_id)
        if truth is None:
            findings.append(warning("truth-missing", path, f"the slide {slide_id} has no label; not used"))
            continue
        try:
            store = PatchStore.open(path)
            if store.pixels is None:
                raise StoreError(f"{path}: keeps no pixels; score the slide again with --store-patches")
            found = _rows(store, path, truth, slide_id, modality, tumour_only, per_slide, name)
        except MemoryError:
            raise
        except Exception as failed:  # noqa: BLE001 - zarr raises whatever the damage happens to trip over
            findings.append(error("unreadable-store", path, shortened(failed).removeprefix(f"{path}: ")))
            continue
        if not store.done.all():
            undone = int((~store.done).sum())
            findings.append(warning("unfinished-store", path, f"{undone} blocks were never scored; score again"))
        if not found:
            findings.append(warning("no-patches", path, "holds no scored patch that is asked for"))
        examples += found
        shapes[int(store.attributes["patch_px"]), float(store.attributes["mpp_requested"])] += 1
    if len(shapes) > 1:
        kinds = few([f"{count} of {px} px at {mpp:g} um/px" for (px, mpp), count in sorted(shapes.items())])
        findings.append(warning("mixed-scales", folder, f"stores of different patches: {kinds}"))
    unused = sorted(table.by_slide.keys() - {path.parent.name for path in stores})
    findings += [warning("slide-missing", folder, f"{slide} has a label but no store") for slide in unused]
    return conclude(name, folder, _classes(examples), modality, examples, findings)


def _read_labels(labels: str | Path | Mapping[str, str]) -> tuple[_Labels, tuple[Finding, ...]]:
    if isinstance(labels, Mapping):
        given = {slide: SlideTruth(slide, parse_grade(label) or label, None) for slide, label in labels.items()}
        return _Labels(given, {}), ()
    if is_truth_table(Path(labels)):
        truths, findings = read_truth(labels)
        by_case = {case: SlideTruth(case, truth.grade, case) for case, truth in truths.items()}
        return _Labels({}, by_case), findings
    by_slide, findings = read_slide_labels(labels)
    return _Labels(by_slide, {}), findings


def _rows(
    store: PatchStore,
    path: Path,
    truth: SlideTruth,
    slide_id: str,
    modality: Modality,
    tumour_only: bool,
    per_slide: int | None,
    source: str,
) -> list[Example]:
    probabilities = store.probabilities
    rows_of_block = int(store.attributes["block_edge"]) ** 2
    usable = np.isfinite(probabilities).all(axis=1) & np.repeat(store.done, rows_of_block)
    if tumour_only and OTHER in store.classes:
        usable &= np.nan_to_num(probabilities).argmax(axis=1) != store.classes.index(OTHER)
    rows = np.flatnonzero(usable)
    if per_slide is not None and len(rows) > per_slide:
        rows = rows[np.linspace(0, len(rows) - 1, per_slide).round().astype(int)]
    xy, white = store.xy, _white_point(store)
    return [
        Example(
            id=f"{slide_id}@{xy[row, 0]},{xy[row, 1]}",
            source=source,
            group=truth.group or slide_id,
            label=truth.label,
            pixels=StoreRow(path, int(row)),
            modality=modality,
            mpp=float(store.attributes["mpp_requested"]),
            white_point=white,
        )
        for row in rows
    ]


def _white_point(store: PatchStore) -> tuple[float, float, float] | None:
    try:
        return store.read_overview().white_point.rgb
    except KeyError:
        # A run that was interrupted early has written no overview.
        return None


def _classes(examples: list[Example]) -> tuple[str, ...]:
    labels = {str(example.label) for example in examples}
    if labels <= {OTHER, *GRADES}:
        return (OTHER, *GRADES) if OTHER in labels else GRADES
    return tuple(sorted(labels))
