"""The files of a slide that people and other programs open, made from its result and its store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.worker.cell_fields import CELL_TABLE
from wsi_her2.errors import SlideReadError
from wsi_her2.reports.cell_views import draw_cell_views
from wsi_her2.reports.geojson import write_overlay_geojson
from wsi_her2.reports.heatmap import draw_heatmap, draw_layer, write_png
from wsi_her2.reports.patch_table import write_patch_csv
from wsi_her2.reports.patches import gives_shares
from wsi_her2.reports.review_words import ReportedReview
from wsi_her2.reports.slide_content import SlideContent, slide_content
from wsi_her2.reports.slide_report import write_slide_report
from wsi_her2.scoring.proportions import main_classes
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.slide import Overview, Slide
from wsi_her2.slides.store import PatchStore
from wsi_her2.slides.tissue import TissueMask, tissue_overlay

_EXAMPLES = 6
_EXAMPLE_PX = 256
_APART_UM = 250.0


def write_slide_files(folder: Path, result: SlideResult, store: PatchStore, slide: Slide | None) -> None:
    """Write everything but `result.json` and the store itself.

    Parameters
    ----------
    folder : pathlib.Path
    result : SlideResult
    store : PatchStore
    slide : Slide or None
        Where example patches are taken from. Without it, those that the store kept are shown.
    """
    if slide is not None:
        store.write_examples(_examples(slide, store))
        if result.cells is not None:
            store.write_cell_views(draw_cell_views(folder / CELL_TABLE, slide, store))
    write_views(folder, result, store)
    write_patch_csv(folder / "patches.csv", store, store.classes)


def report_content(
    result: SlideResult, store: PatchStore | None, review: ReportedReview | None = None
) -> SlideContent:
    """What the reports of a slide say.

    Parameters
    ----------
    result : SlideResult
    store : PatchStore or None
        None where the slide could not be opened.
    review : ReportedReview, optional
        The review in force.

    Raises
    ------
    StoreError
    """
    if store is None:
        return slide_content(result, None, None, {}, review=review)
    return _content(result, store, store.read_overview(), store.read_picture(), review)


def _content(
    result: SlideResult,
    store: PatchStore,
    mask: TissueMask,
    picture: Overview | None,
    review: ReportedReview | None,
) -> SlideContent:
    return slide_content(
        result,
        mask,
        draw_layer(mask, store, store.classes) if result.n_patches else None,
        store.read_examples(),
        cell_views=store.read_cell_views(),
        thresholds=result.thresholds,
        picture=picture,
        review=review,
    )


def write_views(
    folder: Path, result: SlideResult, store: PatchStore, review: ReportedReview | None = None
) -> None:
    """Write the pictures, the GeoJSON and the report from what the store keeps."""
    mask, picture = store.read_overview(), store.read_picture()
    # Beside coloured patches only percentages of patches make sense.
    of_patches = result.call is not None and result.call_from == "patches"
    percentages = result.call.percentages if result.call is not None and of_patches else None
    write_png(folder / "tissue.png", tissue_overlay(mask))
    write_png(
        folder / "heatmap.png",
        draw_heatmap(mask, store, store.classes, percentages=percentages, picture=picture),
    )
    write_overlay_geojson(
        folder / "overlay.geojson",
        store,
        store.classes,
        mask,
        cells=folder / CELL_TABLE if result.cells is not None else None,
        mpp=result.reader.mpp if result.reader is not None else None,
    )
    write_slide_report(folder / "report.html", _content(result, store, mask, picture, review))


def _examples(slide: Slide, store: PatchStore) -> dict[str, list[tuple[int, int, RGB]]]:
    """Of each class the surest patches that do not lie side by side, at the slide's own scale."""
    probabilities, xy = store.probabilities, store.xy
    scored = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    labels = main_classes(probabilities[scored], store.classes, gives_shares(store))
    side_px0 = int(store.attributes["patch_px0"])
    mpp = slide.mpp * side_px0 / _EXAMPLE_PX
    examples: dict[str, list[tuple[int, int, RGB]]] = {}
    for index, name in enumerate(store.classes):
        of_class = scored[labels == index]
        surest = of_class[np.argsort(-probabilities[of_class, index], kind="stable")]
        chosen: list[tuple[int, int, RGB]] = []
        for x, y in xy[surest]:
            if len(chosen) == _EXAMPLES:
                break
            if any(np.hypot(x - a, y - b) * slide.mpp < _APART_UM for a, b, _ in chosen):
                continue
            try:
                rgb = slide.read(int(x), int(y), _EXAMPLE_PX, _EXAMPLE_PX, mpp)
            except SlideReadError:
                continue
            chosen.append((int(x), int(y), rgb))
        examples[name] = chosen
    return examples
