"""`patches.csv`: a row for each scored patch, for spreadsheets and statistics."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from wsi_her2.atomic import text_beside
from wsi_her2.reports.patches import scored_patches, side_px0
from wsi_her2.slides.store import PatchStore


def write_patch_csv(path: Path, store: PatchStore, classes: tuple[str, ...]) -> None:
    """Write the scored patches of a slide as a table.

    Columns: `x`, `y`, `width`, `height` in level-0 pixels of the slide, whole numbers, from the top-left corner;
    `tissue`, the share of tissue, 0 to 1; `prob_<class>` for each class, 0 to 1, 4 decimals; `label`, the most
    probable class (of the probabilities before they were rounded). Patches that were not scored have no row.

    Parameters
    ----------
    path : pathlib.Path
    store : PatchStore
    classes : tuple of str
        Those of the store.
    """
    side = side_px0(store)
    with text_beside(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["x", "y", "width", "height", "tissue", *(f"prob_{name}" for name in classes), "label"])
        templates = [_template(side, name, len(classes)) for name in classes]
        for batch in scored_patches(store, classes):
            columns = (
                batch.xy.tolist(),
                batch.tissue.tolist(),
                batch.probabilities.tolist(),
                batch.labels.tolist(),
            )
            for (x, y), tissue, probabilities, label in zip(*columns, strict=True):
                stream.write(templates[label] % (x, y, tissue, *probabilities))


def _template(side: int, label: str, n_classes: int) -> str:
    """A row with a place for each of its numbers: only the label can need quotes."""
    cell = io.StringIO()
    csv.writer(cell, lineterminator="\n").writerow([label])
    shares = ",".join(["%.4f"] * n_classes)
    return f"%d,%d,{side},{side},%.4f,{shares}," + cell.getvalue().replace("%", "%%")
