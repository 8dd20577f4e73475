"""What a person said of a call, as reports show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_MOST_EARLIER = 4


@dataclass(frozen=True)
class ReportedReview:
    """The review of a slide that is in force.

    Attributes
    ----------
    verdict : {'agree', 'overrule', 'unsure'}
    score : str or None
        What the reviewer gives; None where unsure.
    called : str or None
        What the software had given when it was reviewed.
    reviewer, time : str
        Who, and when (ISO 8601, UTC).
    reason, comment : str
        Either may be empty.
    rescored : str or None
        What the software gave within the regions that the reviewer drew; None where none were drawn.
    is_of_earlier_result : bool
        Whether the slide was scored anew since.
    earlier : tuple of str
        What was said before, each review in a few words, the newest first.
    """

    verdict: Literal["agree", "overrule", "unsure"]
    score: str | None
    called: str | None
    reviewer: str
    time: str
    reason: str = ""
    comment: str = ""
    rescored: str | None = None
    is_of_earlier_result: bool = False
    earlier: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """What was decided."""
        called = self.called or "no call"
        if self.verdict == "agree":
            return f"Reviewed: {self.score or called}, as called"
        if self.verdict == "overrule":
            return f"Reviewed: {self.score} instead of {called}"
        return f"Reviewed: undecided (called {self.called})" if self.called else "Reviewed: undecided"

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The rest, as label and text."""
        # Journals write +00:00.
        time = self.time.replace("T", " ").replace("+00:00", " UTC").replace("Z", " UTC")
        rows = [("By", self.reviewer or "unnamed"), ("On", time)]
        if self.reason:
            rows.append(("Reason", self.reason))
        if self.comment:
            rows.append(("Comment", self.comment))
        if self.rescored:
            rows.append(("Within drawn regions", f"the software gives {self.rescored}"))
        if self.earlier:
            more = len(self.earlier) - _MOST_EARLIER
            shown = [*self.earlier[:_MOST_EARLIER], *([f"and {more} more"] if more > 0 else [])]
            rows.append(("Before", "; ".join(shown)))
        return rows

    @property
    def warning(self) -> str:
        """What has changed since; empty where nothing has."""
        if not self.is_of_earlier_result:
            return ""
        return "The slide has been scored anew since: this review says nothing of the call above. Review it again."
