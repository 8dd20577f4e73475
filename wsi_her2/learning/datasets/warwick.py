"""Warwick's HER2 contest: whole slides of cases with a ground-truth table, cut into patches."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsi_her2.errors import DatasetError, RegionsError, SlideError, SlideReadError
from wsi_her2.learning.datasets.dataset import Example
from wsi_her2.learning.datasets.findings import Finding, Reading, conclude, error, few, nothing_usable, warning
from wsi_her2.learning.datasets.grades import Grouping, classes_of, grouped, parse_grade
from wsi_her2.learning.datasets.images import files_below, stable_id
from wsi_her2.learning.datasets.origins import SlideRegion
from wsi_her2.learning.datasets.truth import case_name, read_truth
from wsi_her2.models.classifier import OTHER, Modality
from wsi_her2.slides.grid import PatchGrid, plan_patches
from wsi_her2.slides.regions import Region, cover, read_regions
from wsi_her2.slides.slide import Slide, open_slide
from wsi_her2.slides.tissue import TissueMask, detect_tissue, tissue_mask

_NAME = re.compile(r"(.+)_(HER2|HE)", re.IGNORECASE)
_STAINS: dict[str, Modality] = {"HER2": "ihc", "HE": "he"}
_BESIDE = frozenset(
    {".csv", ".dat", ".geojson", ".jpeg", ".jpg", ".json", ".pdf", ".png", ".txt", ".xls", ".xlsx", ".xml", ".zip"}
)
"""Files that lie beside slides and are none."""


@dataclass(frozen=True)
class PatchPlan:
    """Which patches are cut out of a slide.

    Attributes
    ----------
    patch_px : int
        Side of a patch in pixels at `mpp`.
    mpp : float
        Scale, um/px. Patches span a whole number of level-0 pixels, so the true scale can differ by half a
        percent.
    per_slide : int or None
        At most so many of each class of a slide, spread evenly; None takes all.
    min_tissue : float
        Least share of tissue, or of annotated tissue.
    """

    patch_px: int = 224
    mpp: float = 0.5
    per_slide: int | None = 500
    min_tissue: float = 0.5


def read_warwick(
    folder: str | Path,
    truth: str | Path,
    *,
    modality: Modality = "ihc",
    grouping: Grouping = "grades",
    plan: PatchPlan | None = None,
    regions: str | Path | None = None,
    slide_mpp: float | None = None,
    thorough: bool = False,
    name: str = "warwick",
) -> Reading:
    """Read a folder of slides `<CaseNo>_HER2.ndpi` and `<CaseNo>_HE.ndpi` with a ground-truth table.

    Slides may have any ending that `open_slide` reads. Every patch inherits the score of its case, whose slide is
    a mixture: regions tell tumour from the rest where someone has drawn them. A group is a case, so that its H&E
    and its IHC slide stay together. Finding the tissue takes a second or two a slide.

    Parameters
    ----------
    folder : str or pathlib.Path
        Searched through and through.
    truth : str or pathlib.Path
        See `read_truth`.
    modality : {'ihc', 'he'}
        Whose slides.
    grouping : {'grades', 'binary'}
    plan : PatchPlan, optional
        Which patches.
    regions : str or pathlib.Path, optional
        Folder of `<stem of the slide>.geojson`: polygons in level-0 pixels. Only tissue within them is used. A
        region named as a grade or `other` has that class, one whose name ends in `*` (QuPath's sign) is ignored,
        any other has the score of its case.
    slide_mpp : float, optional
        Microns per level-0 pixel; overrides what the files say.
    thorough : bool
        Read every patch.
    name : str

    Raises
    ------
    DatasetError
        Nothing can be used.
    """
    grades = classes_of(grouping)
    plan = plan or PatchPlan()
    folder = Path(folder)
    if not folder.is_dir():
        raise nothing_usable(name, folder, [error("missing-folder", folder, "there is no such folder")])
    try:
        truths, table_findings = read_truth(truth)
    except DatasetError as failed:
        raise nothing_usable(name, folder, [error("bad-table", Path(truth), str(failed))]) from failed
    slides, findings = _find_slides(folder, modality)
    findings = [*table_findings, *findings]
    for case in sorted(truths.keys() - slides.keys(), key=_natural):
        findings.append(
            warning(
                "slide-missing", Path(truth), f"case {case} has a score but no {_file_name(case, modality)} slide"
            )
        )
    examples: list[Example] = []
    for case, path in sorted(slides.items(), key=lambda each: _natural(each[0])):
        if case not in truths:
            findings.append(warning("truth-missing", path, f"case {case} is not in {Path(truth).name}; not used"))
            continue
        cut = _Cutting(name, folder, path, case, truths[case].grade, modality, grouping, plan, slide_mpp, thorough)
        found, problems = _cut_slide(cut, None if regions is None else Path(regions))
        examples += found
        findings += problems
    classes = (OTHER, *grades) if any(example.label == OTHER for example in examples) else grades
    return conclude(name, folder, classes, modality, examples, findings)


@dataclass(frozen=True)
class _Cutting:
    """What is to be cut out of one slide, and what it is called."""

    source: str
    folder: Path
    path: Path
    case: str
    grade: str
    modality: Modality
    grouping: Grouping
    plan: PatchPlan
    slide_mpp: float | None
    thorough: bool

    def label(self, region: Region | None) -> str:
        named = (region.name or "").strip() if region is not None else ""
        if named.lower() == OTHER:
            return OTHER
        return grouped(parse_grade(named) or self.grade, self.grouping)


def _find_slides(folder: Path, modality: Modality) -> tuple[dict[str, Path], list[Finding]]:
    files = [path for group in files_below(folder) for path in group if path.suffix.lower() not in _BESIDE]
    findings: list[Finding] = []
    found: dict[str, list[Path]] = defaultdict(list)
    both: dict[Modality, set[str]] = {"ihc": set(), "he": set()}
    for path in sorted(files):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            findings.append(
                warning(
                    "misnamed-file", path, "not named like 12_HER2.ndpi or 12_HE.ndpi, so it has no case; not used"
                )
            )
            continue
        stain, case = _STAINS[match[2].upper()], case_name(match[1])
        both[stain].add(case)
        if stain == modality:
            found[case].append(path)
    for case in sorted(both["ihc"] ^ both["he"], key=_natural):
        there: Modality = "ihc" if case in both["ihc"] else "he"
        missing: Modality = "he" if there == "ihc" else "ihc"
        if both[missing]:
            findings.append(
                warning(
                    "pair-missing",
                    folder,
                    f"case {case} has a {there.upper()} slide but no {missing.upper()} slide",
                )
            )
    for case, paths in found.items():
        if len(paths) > 1:
            names = few([path.name for path in paths])
            findings.append(
                error("duplicate-slide", paths[0], f"case {case} has several slides ({names}); none is used")
            )
    if not found:
        findings.append(error("no-slides", folder, f"holds no slide named like {_file_name('12', modality)}.ndpi"))
    return {case: paths[0] for case, paths in found.items() if len(paths) == 1}, findings


def _cut_slide(cut: _Cutting, regions: Path | None) -> tuple[list[Example], list[Finding]]:
    drawn: tuple[Region, ...] | None = None
    findings: list[Finding] = []
    if regions is not None:
        annotation = regions / f"{cut.path.stem}.geojson"
        if not annotation.is_file():
            return [], [warning("regions-missing", cut.path, f"no {annotation.name} in {regions}; not used")]
        try:
            drawn = read_regions(annotation)
        except RegionsError as failed:
            return [], [error("bad-regions", annotation, str(failed).removeprefix(f"{annotation}: "))]
    try:
        with open_slide(cut.path, mpp=cut.slide_mpp) as slide:
            mask = detect_tissue(slide)
            if drawn is None:
                areas = {cut.label(None): mask.tissue}
            else:
                areas, findings = _annotated(drawn, mask, cut)
            examples: list[Example] = []
            for label, area in areas.items():
                within = tissue_mask(mask.tissue & area, mask.pen, mask.overview, mask.white_point)
                grid = plan_patches(
                    slide, within, cut.plan.patch_px, cut.plan.mpp, min_tissue=cut.plan.min_tissue, block_edge=1
                )
                corners = _spread(grid, cut.plan.per_slide)
                if cut.thorough:
                    corners, damaged = _readable(slide, grid, corners)
                    if damaged:
                        findings.append(
                            error("unreadable-patch", cut.path, f"{damaged} patches cannot be decoded; left out")
                        )
                examples += [_example(cut, grid, label, int(x), int(y), mask) for x, y in corners]
    except SlideError as failed:
        return [], [*findings, error("unreadable-slide", cut.path, str(failed))]
    if not examples:
        where = "within the regions " if drawn is not None else ""
        findings.append(error("no-tissue", cut.path, f"no patch {where}holds enough tissue"))
    return examples, findings


def _annotated(
    drawn: Sequence[Region], mask: TissueMask, cut: _Cutting
) -> tuple[dict[str, npt.NDArray[np.bool_]], list[Finding]]:
    """Area of each class; what two classes claim belongs to neither."""
    by_label: dict[str, list[Region]] = defaultdict(list)
    for region in drawn:
        if not (region.name or "").strip().endswith("*"):
            by_label[cut.label(region)].append(region)
    areas = {label: cover(regions, mask.overview) for label, regions in sorted(by_label.items())}
    findings = []
    outside = [label for label, area in areas.items() if not area.any()]
    if outside:
        findings.append(
            warning(
                "regions-outside",
                cut.path,
                f"the regions of {few(outside)} do not touch the slide; corners must be in level-0 pixels",
            )
        )
    claimed = np.sum(list(areas.values()), axis=0) if areas else np.zeros(mask.tissue.shape)
    if (claimed > 1).any():
        findings.append(
            warning("regions-overlap", cut.path, "regions of different classes overlap; the overlap is not used")
        )
    return {label: area & (claimed == 1) for label, area in areas.items()}, findings


def _spread(grid: PatchGrid, at_most: int | None) -> npt.NDArray[np.int32]:
    """Corners of the patches to cut, evenly spread over those that hold enough tissue."""
    selected = np.flatnonzero(grid.selected)
    if at_most is not None and len(selected) > at_most:
        selected = selected[np.linspace(0, len(selected) - 1, at_most).round().astype(int)]
    return grid.xy[selected]


def _readable(slide: Slide, grid: PatchGrid, corners: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], int]:
    kept = []
    for x, y in corners:
        try:
            slide.read(int(x), int(y), grid.patch_px, grid.patch_px, grid.mpp)
        except SlideReadError:
            continue
        kept.append((x, y))
    return np.array(kept, np.int32).reshape(-1, 2), len(corners) - len(kept)


def _example(cut: _Cutting, grid: PatchGrid, label: str, x: int, y: int, mask: TissueMask) -> Example:
    return Example(
        id=f"{stable_id(cut.path, cut.folder)}@{x},{y}",
        source=cut.source,
        group=cut.case,
        label=label,
        pixels=SlideRegion(cut.path, x, y, grid.patch_px, grid.patch_px, grid.mpp, cut.slide_mpp),
        modality=cut.modality,
        mpp=grid.mpp_requested,
        white_point=mask.white_point.rgb,
    )


def _file_name(case: str, modality: Modality) -> str:
    return f"{case}_{'HER2' if modality == 'ihc' else 'HE'}"


def _natural(case: str) -> tuple[int, int, str]:
    return (0, int(case), "") if case.isascii() and case.isdigit() else (1, 0, case)
