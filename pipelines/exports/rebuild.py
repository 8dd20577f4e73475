"""`report`: make a run's pictures and pages again from what its stores keep, without the slides."""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.results import STORE, no_results, read_results
from pipelines.review.reported_reviews import ReportedReviews
from pipelines.run.record import PAGE_FILE, write_summaries
from pipelines.worker.slide_files import report_content, write_views
from wsi_her2.errors import OutputError, StoreError
from wsi_her2.models.extras import need
from wsi_her2.reports.review_words import ReportedReview
from wsi_her2.reports.slide_pdf import write_slide_pdf
from wsi_her2.reports.slide_report import write_slide_report
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.store import PatchStore

_log = logging.getLogger(__name__)


def rebuild_reports(output: Path, *, pdf: bool = False) -> tuple[Path, int]:
    """Rebuild the reports of a run, with the reviews that were signed since.

    Parameters
    ----------
    output : pathlib.Path
    pdf : bool
        Whether to write `report.pdf` beside each `report.html`.

    Returns
    -------
    tuple of pathlib.Path and int
        The page of the run, and how many slides it lists.

    Raises
    ------
    ConfigurationError
        The folder holds no results.
    JournalError
        The run's reviews cannot be read.
    MissingExtra
        PDF was asked for, and reportlab is not installed.
    OutputError
        They cannot be written.
    """
    if pdf:
        need("reportlab", "A PDF report")
    reviews = ReportedReviews(output)
    found = False
    try:
        for result in read_results(output):
            found = True
            _rebuild(output / result.slide_id, result, reviews.of(result), pdf)
        if not found:
            raise no_results(output)
        count = write_summaries(output)
    except OSError as error:
        raise OutputError(f"{output}: the reports cannot be written ({error})") from error
    return output / PAGE_FILE, count


def _rebuild(folder: Path, result: SlideResult, review: ReportedReview | None, pdf: bool) -> None:
    store = None
    try:
        if (folder / STORE).is_dir():
            store = PatchStore.open(folder / STORE)
            write_views(folder, result, store, review)
        elif result.status == "failed":
            write_slide_report(folder / "report.html", report_content(result, None, review))
        else:
            # Its pictures have gone with the store; the report that shows them stays.
            return
        if pdf:
            write_slide_pdf(folder / "report.pdf", report_content(result, store, review))
    except StoreError as error:
        # One damaged store must not keep thousands of slides from their reports.
        _log.warning("%s: the slide's report stays as it is. %s", folder, error)
