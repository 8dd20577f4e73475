"""Reviews as the pages send and get them: what the page says, completed by what the server knows."""

from __future__ import annotations

import io
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from pipelines.fingerprint import software_version
from pipelines.review.run_folder import ReviewRun
from wsi_her2.messages import wrong_fields
from wsi_her2.slides.regions import parse_regions

if TYPE_CHECKING:
    from pipelines.review.journal import Journal

JOURNAL_FILE = "reviews.sqlite"

_MAX_NAME, _MAX_COMMENT = 100, 4000


class _Sent(BaseModel):
    """What the pages send; anything else is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


_Form = TypeVar("_Form", bound=_Sent)


class SentReview(_Sent):
    """A review."""

    verdict: str = Field(max_length=20)
    score: str | None = Field(None, max_length=20)
    reason: str = Field("", max_length=200)
    comment: str = Field("", max_length=_MAX_COMMENT)
    reviewer: str = Field("", max_length=_MAX_NAME)


class SentRegions(_Sent):
    """Drawn regions."""

    regions: dict[str, Any]
    reviewer: str = Field("", max_length=_MAX_NAME)


class _NoJournal:
    def latest(self) -> Any:
        return {}

    def reviews(self, _: Any = None) -> Any:
        return []

    def drawn(self, _: Any) -> Any:
        return None


class Reviewing:
    """The reviews of a run.

    Parameters
    ----------
    run : ReviewRun
    """

    def __init__(self, run: ReviewRun) -> None:
        self._run = run
        # What is computed again takes a core and the cells of a slide: one at a time.
        self._computing = threading.Lock()

    @cached_property
    def _journal(self) -> Journal:
        try:
            from pipelines.review.journal import Journal
        except ImportError:
            return _NoJournal()

        return Journal(self._run.output / JOURNAL_FILE)

    @property
    def reasons(self) -> list[str]:
        """Reasons to offer for overruling a call."""
        try:
            from pipelines.review.journal import REASONS
        except ImportError:
            return []

        return list(REASONS)

    def latest(self) -> dict[str, dict[str, Any]]:
        """What the list shows of the newest review of each slide that has one."""
        return {
            slide_id: {key: found[key] for key in ("verdict", "score", "reviewer", "time")}
            for slide_id, found in ((name, _plain(review)) for name, review in self._journal.latest().items())
        }

    def of_slide(self, slide_id: str) -> list[dict[str, Any]]:
        """All reviews of a slide, newest first."""
        return [_plain(review) for review in reversed(self._journal.reviews(slide_id))]

    def drawn(self, slide_id: str) -> dict[str, Any]:
        """The newest regions that were drawn on a slide, as GeoJSON; empty where there are none."""
        drawn = self._journal.drawn(slide_id)
        return {"type": "FeatureCollection", "features": []} if drawn is None else dict(drawn.regions)

    def add(self, slide_id: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Keep a review.

        Raises
        ------
        HTTPException
            It is not one.
        HER2Error
            It cannot be kept.
        """
        from pipelines.review.journal import NewReview

        review, result = _checked(SentReview, sent), self._run.result(slide_id)
        drawn = self._journal.drawn(slide_id)
        called = None if result.call is None else result.call.score or result.call.group
        rescored = None
        if drawn is not None:
            call = self.rescore(slide_id, {"regions": dict(drawn.regions)})["call"]
            rescored = None if call is None else call["score"] or call["group"]
        try:
            new = NewReview(
                slide_id=slide_id,
                reviewer=review.reviewer or self._run.reviewer,
                verdict=review.verdict,
                score=review.score,
                called=called,
                reason=review.reason,
                comment=review.comment,
                regions=None if drawn is None else drawn.number,
                rescored=rescored,
                version=software_version(),
                model=result.model.name,
                model_sha256=result.model.sha256,
                fingerprint=result.fingerprint,
            )
        except ValidationError as error:
            raise HTTPException(422, f"The review cannot be kept: {wrong_fields(error)}.") from error
        return _plain(self._journal.add_review(new))

    def rescore(self, slide_id: str, sent: dict[str, Any]) -> dict[str, Any]:
        """The call as it would be with drawn regions; nothing is written."""
        from pipelines.review.rescoring import rescore

        regions = parse_regions(_checked(SentRegions, sent).regions)
        result, config = self._run.result(slide_id), self._run.config()
        with self._computing:
            rescored = rescore(self._run.folder(slide_id), result, config, regions, config.regions.names)
        return _plain(rescored)

    def draw(self, slide_id: str, sent: dict[str, Any]) -> int:
        """Keep drawn regions, which are then those in force; their number."""
        drawn = _checked(SentRegions, sent)
        parse_regions(drawn.regions)
        return self._journal.add_drawn(slide_id, drawn.regions, drawn.reviewer or self._run.reviewer)

    def reviews_csv(self) -> str:
        """All reviews as a table."""
        from pipelines.review.exports import write_reviews_csv

        stream = io.StringIO()
        write_reviews_csv(stream, self._journal.reviews())
        return stream.getvalue()

    def truth_csv(self) -> str:
        """What the reviewers say, as `evaluate` and `calibrate` take a truth."""
        from pipelines.review.exports import write_truth

        stream = io.StringIO()
        write_truth(stream, self._journal.reviews())
        return stream.getvalue()


def _checked(form: type[_Form], sent: dict[str, Any]) -> _Form:
    try:
        return form.model_validate(sent)
    except ValidationError as error:
        raise HTTPException(422, f"The request cannot be used: {wrong_fields(error)}.") from error


def _plain(found: Any) -> dict[str, Any]:
    """A model or dataclass as what JSON holds."""
    described: dict[str, Any] = TypeAdapter(type(found)).dump_python(found, mode="json")
    return described
