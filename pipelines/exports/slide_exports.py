"""Files for other programs, one or two for each slide of a run: PDF reports, maps as OME-TIFF."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from pipelines.results import STORE, no_results, read_results
from pipelines.review.reported_reviews import ReportedReviews
from pipelines.worker.slide_files import report_content
from wsi_her2.errors import StoreError
from wsi_her2.models.extras import need
from wsi_her2.reports.ome_tiff import SlideExtent, write_class_map, write_probability_map
from wsi_her2.reports.slide_pdf import write_slide_pdf
from wsi_her2.reports.wording import group_in_words
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.store import PatchStore

_log = logging.getLogger(__name__)


def write_pdfs(run: Path, folder: Path) -> tuple[int, list[str]]:
    """Write `<slide_id>.pdf` for each slide of a run.

    Returns
    -------
    tuple of int and list of str
        How many, and the slides whose stores are gone or damaged.

    Raises
    ------
    ConfigurationError
        The run has no results.
    MissingExtra
        reportlab is not installed.
    """
    need("reportlab", "A PDF report")
    reviews = ReportedReviews(run)
    written, without = 0, []
    for result, store in slides_to_export(run, folder):
        if store is None and result.status != "failed":
            without.append(result.slide_id)
            continue
        write_slide_pdf(folder / f"{result.slide_id}.pdf", report_content(result, store, reviews.of(result)))
        written += 1
    return written, without


def write_ome_tiffs(run: Path, folder: Path, *, probabilities: bool) -> tuple[int, list[str]]:
    """Write `<slide_id>.ome.tif`, and `<slide_id>.probabilities.ome.tif` where asked, for each slide of a run.

    Returns
    -------
    tuple of int and list of str
        How many slides, and those of which nothing was scored.

    Raises
    ------
    ConfigurationError
        The run has no results.
    """
    written, without = 0, []
    for result, store in slides_to_export(run, folder):
        if store is None or result.reader is None or not result.n_patches:
            without.append(result.slide_id)
            continue
        extent = SlideExtent(*result.reader.dimensions, result.reader.mpp)
        notes = _notes(result)
        write_class_map(folder / f"{result.slide_id}.ome.tif", store, extent, name=result.slide_id, notes=notes)
        if probabilities:
            path = folder / f"{result.slide_id}.probabilities.ome.tif"
            write_probability_map(path, store, extent, name=result.slide_id, notes=notes)
        written += 1
    return written, without


def slides_to_export(run: Path, folder: Path) -> Iterator[tuple[SlideResult, PatchStore | None]]:
    """Each result of a run and its store, None where there is none that can be read; makes the folder for them.

    Raises
    ------
    ConfigurationError
        The run has no results.
    """
    found = False
    for result in read_results(run):
        if not found:
            folder.mkdir(parents=True, exist_ok=True)
        found = True
        yield result, _store(run / result.slide_id / STORE)
    if not found:
        raise no_results(run)


def _store(path: Path) -> PatchStore | None:
    if not path.is_dir():
        return None
    try:
        return PatchStore.open(path)
    except StoreError as error:
        _log.warning("%s: left out. %s", path.parent, error)
        return None


def _notes(result: SlideResult) -> dict[str, str]:
    call = result.call
    called = {"call": f"{call.score or call.group}: {group_in_words(call)}"} if call is not None else {}
    return {
        **called,
        "slide": Path(result.path).name,
        "model": f"{result.model.name}, sha256 {result.model.sha256}",
        "software": f"wsi-her2 {result.version}",
        "fingerprint": result.fingerprint,
        "note": "research use only",
    }
