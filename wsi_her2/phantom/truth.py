"""The truth of a digital slide, and the files in which it stands beside the slide."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_her2.atomic import file_beside, text_beside
from wsi_her2.phantom.cells import COMPLETE_FROM, CellTable
from wsi_her2.phantom.composition import SCORES, PhantomError, PhantomSpec, Score
from wsi_her2.phantom.tissue import Architecture, Tissue

CellFormat = Literal["csv", "parquet"]
Mask = NDArray[np.bool_]

# Debris and red cells are drawn like cells, but nobody would count them as cells.
_NOT_CELLS = (Tissue.BLOOD, Tissue.NECROSIS)


@dataclass(frozen=True)
class PhantomTruth:
    """What is true of a digital slide.

    Attributes
    ----------
    spec
        The slide as asked for.
    score
        The score, ``"0"``, ``"1+"``, ``"2+"`` or ``"3+"``.
    tumour_cells
        Invasive tumour cells on the slide.
    cell_counts
        How many of them are 0, 1+, 2+ and 3+.
    percentages
        The same in percent.
    pct_complete_membrane
        Percent of the invasive tumour cells whose membrane is stained along at least 90 % of its
        circumference, whatever the intensity.
    tissue_mm2
        Area of the tissue, control spots excluded.
    tumour_share
        Share of that area covered by invasive tumour epithelium, as drawn.
    width_px, height_px
        Size of level 0.
    outlines
        GeoJSON FeatureCollection in level-0 pixels: tissue, invasive tumour, in-situ and normal ducts,
        necrosis, control spots.
    """

    spec: PhantomSpec
    score: Score
    tumour_cells: int
    cell_counts: tuple[int, int, int, int]
    percentages: tuple[float, float, float, float]
    pct_complete_membrane: float
    tissue_mm2: float
    tumour_share: float
    width_px: int
    height_px: int
    outlines: dict[str, Any]

    def as_dict(self, slide: str) -> dict[str, Any]:
        """The content of the truth file of the slide file with the given name."""
        return {
            "format": "wsi-her2 phantom truth",
            "version": 1,
            "slide": slide,
            "score": self.score,
            "tumour_cells": self.tumour_cells,
            "cell_counts": dict(zip(SCORES, self.cell_counts, strict=True)),
            "percentages": dict(zip(SCORES, self.percentages, strict=True)),
            "pct_complete_membrane": self.pct_complete_membrane,
            "tissue_mm2": self.tissue_mm2,
            "tumour_share": self.tumour_share,
            "mpp": self.spec.mpp,
            "width_px": self.width_px,
            "height_px": self.height_px,
            "spec": asdict(self.spec),
            "outlines": self.outlines,
        }


def derive_truth(spec: PhantomSpec, architecture: Architecture, cells: CellTable) -> PhantomTruth:
    """Read the truth off the drawn slide.

    Parameters
    ----------
    spec
        The slide as asked for.
    architecture, cells
        The slide as drawn.

    Returns
    -------
    PhantomTruth
        The score is the one asked for: counts of whole cells can miss a border by less than one cell.
    """
    tumour = cells[cells["kind"] == Tissue.INVASIVE]
    total = len(tumour)
    counts = np.bincount(tumour["her2"].astype(np.int64), minlength=4)
    complete = int((tumour["completeness"] >= COMPLETE_FROM - 1e-6).sum())
    pitch_mm2 = (architecture.layout.pitch_um / 1000) ** 2
    tissue_px = int(architecture.tissue.sum())
    invasive = _invasive_mask(architecture)
    return PhantomTruth(
        spec=spec,
        score=spec.resolved_score,
        tumour_cells=total,
        cell_counts=(int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3])),
        percentages=tuple(100 * float(n) / max(total, 1) for n in counts[:4]),  # type: ignore[arg-type]
        pct_complete_membrane=100 * complete / max(total, 1),
        tissue_mm2=tissue_px * pitch_mm2,
        tumour_share=float(invasive.sum()) / max(tissue_px, 1),
        width_px=spec.width_px,
        height_px=spec.height_px,
        outlines=_outlines(spec, architecture, invasive),
    )


def _invasive_mask(architecture: Architecture) -> Mask:
    mask = architecture.cord_mask & architecture.tissue
    for part in architecture.compartments:
        if part.kind == Tissue.INVASIVE:
            mask |= part.mask & ~part.lumen & architecture.tissue
    return mask


def _outlines(spec: PhantomSpec, architecture: Architecture, invasive: Mask) -> dict[str, Any]:
    kinds: dict[str, Mask] = {"tissue": architecture.tissue, "invasive tumour": invasive}
    for name, kind in (("in situ", Tissue.IN_SITU), ("normal duct", Tissue.NORMAL_DUCT)):
        masks = [part.mask for part in architecture.compartments if part.kind == kind]
        kinds[name] = np.logical_or.reduce(masks) if masks else np.zeros_like(invasive)
    kinds["necrosis"] = architecture.layout.necrosis > 127
    pitch = architecture.layout.pitch_px
    features: list[dict[str, Any]] = []
    for name, mask in kinds.items():
        features.extend(_feature(name, rings) for rings in _polygons(mask, pitch, spec))
    for x, y, radius in architecture.controls:
        angle = np.linspace(0, 2 * np.pi, 49)
        ring = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], -1) / spec.mpp
        ring = np.clip(np.round(ring), 0, (spec.width_px, spec.height_px)).astype(int)
        features.append(_feature("control", [ring.tolist()]))
    return {"type": "FeatureCollection", "features": features}


def _feature(name: str, rings: list[list[list[int]]]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            # QuPath reads no class without a colour.
            "classification": {"name": name, "color": [90, 93, 98]},
            "isLocked": True,
        },
    }


def _polygons(mask: Mask, pitch_px: int, spec: PhantomSpec) -> list[list[list[list[int]]]]:
    """Closed rings of each connected piece of a mask, outer ring first, in level-0 pixels."""
    # Doubling the grid puts the outline on the borders of the grid points rather than through their middles.
    double = np.repeat(np.repeat(np.pad(mask.astype(np.uint8), 1), 2, 0), 2, 1)
    contours, tree = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons: list[list[list[list[int]]]] = []
    index: dict[int, int] = {}
    bounds = (spec.width_px, spec.height_px)
    for wanted_hole in (False, True):
        for k, contour in enumerate(contours):
            # A mask without any outline has no tree either, but then this loop is not entered.
            parent = int(tree[0][k][3])
            if len(contour) < 3 or (parent >= 0) is not wanted_hole:
                continue
            points = ((contour[:, 0, :] + 0.5) / 2 - 1) * pitch_px
            ring = np.clip(np.round(points), 0, bounds).astype(int)
            closed = [*ring.tolist(), ring[0].tolist()]
            if not wanted_hole:
                index[k] = len(polygons)
                polygons.append([closed])
            elif parent in index:
                polygons[index[parent]].append(closed)
    return polygons


def cell_frame(spec: PhantomSpec, cells: CellTable) -> pd.DataFrame:
    """The table of cells as it is written beside the slide.

    Parameters
    ----------
    spec
        The slide as asked for.
    cells
        Its cells.

    Returns
    -------
    pandas.DataFrame
        ``x, y`` (level-0 pixels of the nucleus), ``tissue``, ``her2_class`` (0 to 3, -1 for cells without),
        ``completeness`` (share of the circumference), ``intensity`` (peak DAB density, log10) and
        ``counts`` (whether the cell is in the percentages).
    """
    kept = cells[~np.isin(cells["kind"], _NOT_CELLS)]
    nucleus = kept["nucleus_long_um"] > 0
    names = np.array([""] + [kind.name.lower() for kind in Tissue])
    return pd.DataFrame(
        {
            "x": np.round(np.where(nucleus, kept["nucleus_x_um"], kept["x_um"]) / spec.mpp).astype(np.int32),
            "y": np.round(np.where(nucleus, kept["nucleus_y_um"], kept["y_um"]) / spec.mpp).astype(np.int32),
            "tissue": names[kept["kind"]],
            "her2_class": kept["her2"],
            "completeness": np.round(kept["completeness"].astype(np.float64), 4),
            "intensity": np.round(kept["intensity"].astype(np.float64), 4),
            "counts": kept["kind"] == Tissue.INVASIVE,
        }
    )


def truth_paths(slide: Path, cell_format: CellFormat) -> tuple[Path, Path]:
    """Where the truth and the cells of a slide file stand."""
    return slide.with_suffix(".truth.json"), slide.with_suffix(f".cells.{cell_format}")


def write_truth(truth: PhantomTruth, cells: CellTable, slide: Path, cell_format: CellFormat) -> None:
    """Write the truth and the table of cells beside a slide.

    Parameters
    ----------
    truth, cells
        Truth and cells of the slide.
    slide
        The slide file; the truth goes to ``<stem>.truth.json`` and ``<stem>.cells.csv`` or ``.parquet``.
    cell_format
        ``"csv"`` or ``"parquet"``; the latter needs pyarrow.

    Raises
    ------
    PhantomError
        Parquet was asked for and pyarrow is not installed.
    """
    check_cell_format(cell_format)
    truth_path, cells_path = truth_paths(slide, cell_format)
    frame = cell_frame(truth.spec, cells)
    if cell_format == "parquet":
        with file_beside(cells_path) as beside:
            frame.to_parquet(beside, index=False, engine="pyarrow")
    else:
        with text_beside(cells_path) as stream:
            frame.to_csv(stream, index=False, lineterminator="\n")
    with text_beside(truth_path) as stream:
        stream.write(json.dumps(truth.as_dict(slide.name), separators=(",", ":")) + "\n")


def check_cell_format(cell_format: str) -> None:
    """Refuse a format of the cell table that cannot be written, before any work is done."""
    if cell_format not in ("csv", "parquet"):
        raise PhantomError(f"cell_format must be csv or parquet, not {cell_format!r}.")
    if cell_format == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise PhantomError("Parquet needs pyarrow: pip install pyarrow, or ask for cell_format='csv'.")
