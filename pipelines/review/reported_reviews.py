"""The reviews of a run, as its reports show them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_her2.reports.review_words import ReportedReview
from wsi_her2.scoring.result import SlideResult

if TYPE_CHECKING:
    from pipelines.review.journal import Review


class ReportedReviews:
    """Reads the journal of a run once.

    Parameters
    ----------
    run : pathlib.Path
        Output folder of `score`; it need not have been reviewed.

    Raises
    ------
    JournalError
        There is a journal that cannot be read.
    """

    def __init__(self, run: Path) -> None:
        # Imported here: most runs that are reported have no journal, and SQLite is then not needed.
        from pipelines.review.journal import JOURNAL_FILE, Journal

        self._by_slide: dict[str, list[Review]] = defaultdict(list)
        for review in Journal(run / JOURNAL_FILE).reviews():
            self._by_slide[review.slide_id].append(review)

    def of(self, result: SlideResult) -> ReportedReview | None:
        """The review of a slide that is in force; None where nobody has looked at it."""
        reviews = self._by_slide.get(result.slide_id)
        if not reviews:
            return None
        *earlier, last = reviews
        return ReportedReview(
            verdict=last.verdict,
            score=last.score,
            called=last.called,
            reviewer=last.reviewer,
            time=last.time,
            reason=last.reason,
            comment=last.comment,
            rescored=last.rescored,
            is_of_earlier_result=not last.is_of(result.fingerprint),
            earlier=tuple(_in_short(review) for review in reversed(earlier)),
        )


def _in_short(review: Review) -> str:
    said = review.score or ("undecided" if review.verdict == "unsure" else review.called or "agreed")
    return f"{said} by {review.reviewer}, {review.time[:10]}"
