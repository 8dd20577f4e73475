"""Reviews as the pages send and get them: what the page says, completed by what the server knows."""

from __future__ import annotations

import io
import logging
import threading
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.fingerprint import software_version
from pipelines.review.drawing import parse_drawn
from pipelines.review.exports import write_reviews_csv, write_truth
from pipelines.review.journal import JOURNAL_FILE, MAX_COMMENT, MAX_REVIEWER, Journal, Review, new_review
from pipelines.review.rescoring import Rescored, RescoredCall, rescore
from pipelines.review.run_folder import ReviewRun
from wsi_her2.errors import HER2Error, ReviewError
from wsi_her2.messages import wrong_fields
from wsi_her2.scoring.call import SlideCall

_log = logging.getLogger(__name__)


class _Sent(BaseModel):
    """What the pages send; anything else is refused. What it may say the journal knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_Form = TypeVar("_Form", bound=_Sent)


class SentReview(_Sent):
    """A review."""

    verdict: str = Field(max_length=20)
    score: str | None = Field(None, max_length=20)
    reason: str = Field("", max_length=200)
    comment: str = Field("", max_length=2 * MAX_COMMENT)
    reviewer: str = Field("", max_length=2 * MAX_REVIEWER)


class SentRegions(_Sent):
    """Drawn regions."""

    regions: dict[str, Any]
    reviewer: str = Field("", max_length=2 * MAX_REVIEWER)


class Reviewing:
    """The reviews of a run.

    Parameters
    ----------
    run : ReviewRun
    """

    def __init__(self, run: ReviewRun) -> None:
        self._run = run
        self._journal = Journal(run.output / JOURNAL_FILE)
        # A call that is made again takes a core and the cells of a slide: one at a time.
        self._rescoring = threading.Lock()

    def latest(self) -> dict[str, dict[str, Any]]:
        """What the list shows of the newest review of each slide that has one."""
        now = {listed.row.slide_id: listed.fingerprint for listed in self._run.listed()}
        newest = self._journal.latest()
        return {slide_id: _in_short(review, now.get(slide_id)) for slide_id, review in newest.items()}

    def of_slide(self, slide_id: str) -> list[dict[str, Any]]:
        """All reviews of a slide, newest first."""
        return [review.model_dump(mode="json") for review in reversed(self._journal.reviews(slide_id))]

    def latest_of(self, slide_id: str) -> dict[str, Any] | None:
        """What the list shows of the newest review of a slide."""
        reviews = self._journal.reviews(slide_id)
        return _in_short(reviews[-1], self._run.result(slide_id).fingerprint) if reviews else None

    def drawn(self, slide_id: str) -> dict[str, Any]:
        """The newest regions that were drawn on a slide, as GeoJSON; empty where there are none."""
        drawn = self._journal.drawn(slide_id)
        return {"type": "FeatureCollection", "features": []} if drawn is None else drawn.regions

    def add(self, slide_id: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Sign a review of a slide, on its result as it is now and with the regions in force.

        Raises
        ------
        ReviewError
            It is not one.
        JournalError
            It cannot be kept.
        """
        review, result = _checked(SentReview, sent), self._run.result(slide_id)
        drawn = self._journal.drawn(slide_id)
        in_force = drawn if drawn is not None and drawn.regions["features"] else None
        signed = new_review(
            slide_id=slide_id,
            reviewer=review.reviewer or self._run.reviewer,
            verdict=review.verdict,
            score=review.score,
            called=_called(result.call),
            reason=review.reason,
            comment=review.comment,
            regions=None if in_force is None else in_force.number,
            rescored=None if in_force is None else self._called_with(slide_id, in_force.regions),
            version=software_version(),
            model=result.model.name,
            model_sha256=result.model.sha256,
            fingerprint=result.fingerprint,
        )
        return self._journal.add_review(signed).model_dump(mode="json")

    def rescore(self, slide_id: str, sent: dict[str, Any]) -> dict[str, Any]:
        """The call as it would be with drawn regions; nothing is written.

        Raises
        ------
        RegionsError
            They cannot be used.
        StoreError
            What the run kept of the slide cannot be read.
        """
        regions = _checked(SentRegions, sent).regions
        return self._rescored(slide_id, regions).model_dump(mode="json")

    def draw(self, slide_id: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Keep drawn regions, which are then those in force.

        Raises
        ------
        RegionsError, ReviewError
            They cannot be used.
        JournalError
            They cannot be kept.
        """
        drawn = _checked(SentRegions, sent)
        return {"number": self._journal.add_drawn(slide_id, drawn.regions, drawn.reviewer or self._run.reviewer)}

    def reviews_csv(self) -> str:
        """All reviews as a table."""
        stream = io.StringIO()
        fingerprints = {listed.row.slide_id: listed.fingerprint for listed in self._run.listed()}
        write_reviews_csv(stream, self._journal.reviews(), fingerprints)
        return stream.getvalue()

    def truth_csv(self) -> str:
        """The signed scores, as `evaluate` and `calibrate` take a truth."""
        stream = io.StringIO()
        write_truth(stream, self._journal.reviews())
        return stream.getvalue()

    def _called_with(self, slide_id: str, regions: dict[str, Any]) -> str | None:
        try:
            return _called(self._rescored(slide_id, regions).call)
        except HER2Error as error:
            # What cannot be computed must not keep a review from being signed.
            _log.warning("%s: signed without a call with the drawn regions. %s", slide_id, error)
            return None

    def _rescored(self, slide_id: str, regions: dict[str, Any]) -> Rescored:
        drawn = parse_drawn(regions)
        with self._rescoring:
            return rescore(self._run.folder(slide_id), self._run.result(slide_id), drawn)


def _in_short(review: Review, fingerprint: str | None) -> dict[str, Any]:
    return {
        "verdict": review.verdict,
        "score": review.score,
        "reviewer": review.reviewer,
        "time": review.time,
        "current": fingerprint is not None and review.is_of(fingerprint),
    }


def _called(call: SlideCall | RescoredCall | None) -> str | None:
    return None if call is None else call.score or call.group


def _checked(form: type[_Form], sent: dict[str, Any]) -> _Form:
    try:
        return form.model_validate(sent)
    except ValidationError as error:
        raise ReviewError(f"not a request of these pages: {wrong_fields(error)}") from error
