"""The journal of a run's reviews: who signed what, when, and on which result. It is only ever added to.

One SQLite file in the run's folder. Each call opens it and closes it again, so that any number of threads and of
servers can share it, also on a network disk; SQLite's own locks keep writers apart, and what a killed writer left
half done is undone by whoever opens the file next. No other code of a process that uses the journal may open the
file, not even to copy it: to close it there gives up the process's locks.
"""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pipelines.review.drawing import as_geojson, parse_drawn
from wsi_her2.errors import JournalError, ReviewError
from wsi_her2.messages import wrong_fields
from wsi_her2.scoring.rule import Score

JOURNAL_FILE = "reviews.sqlite"

SCHEMA_VERSION = 1
"""Of the journal's tables; a journal of a newer one is not touched."""

REASONS = (
    "staining artefact",
    "wrong region: in situ, normal or control tissue",
    "heterogeneous staining",
    "border case",
    "poor section",
    "model misjudges",
    "other",
)
"""Why a reviewer does not agree; kept as they stand here, so that one may be added but none reworded."""

MAX_REVIEWER, MAX_COMMENT = 100, 4000

_APPLICATION = 0x48455232
"""What tells the file from other SQLite files: HER2."""

_WAIT_S = 30.0
"""For another writer. A review is written in milliseconds, so that this is a writer that hangs or a dead lock."""


def _wrong(what: str) -> PydanticCustomError:
    """An error of a field; what a plain ValueError says would be said with its name before it."""
    return PydanticCustomError("review", "{what}", {"what": what})


def _line(text: str) -> str:
    """A text on one line, in composed letters and without control characters."""
    return " ".join(_printable(text).split())


def _printable(text: str) -> str:
    composed = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    kept = (char if char in "\n\t" or unicodedata.category(char) != "Cc" else " " for char in composed)
    return "".join(kept).strip()


def _named(text: str) -> str:
    if not text:
        raise _wrong("a review is signed: give a name")
    return text


def _known_reason(text: str) -> str:
    if text and text not in REASONS:
        raise _wrong(f"a reason is one of: {'; '.join(REASONS)}")
    return text


_Called = Score | Literal["negative", "positive"]

Reviewer = Annotated[str, Field(max_length=MAX_REVIEWER), AfterValidator(_line), AfterValidator(_named)]


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewReview(_Kept):
    """A review that is to be signed.

    Attributes
    ----------
    slide_id : str
    reviewer : str
    verdict : {'agree', 'overrule', 'unsure'}
        With what the software called.
    score : {'0', '1+', '2+', '3+'} or None
        What the reviewer says. With 'agree' it is the software's, with 'unsure' there is none.
    called : {'0', '1+', '2+', '3+', 'negative', 'positive'} or None
        What the software had called; a group where its model gives no score, None where it gave no call.
    reason : str
        One of `REASONS`, or empty.
    comment : str
    regions : int or None
        Number of the drawn regions in force.
    rescored : as called
        What the software gave with these.
    version, model, model_sha256 : str
        Software and classifier of the result that was looked at.
    fingerprint : str
        Of that result.
    """

    slide_id: str = Field(min_length=1, max_length=200)
    reviewer: Reviewer
    verdict: Literal["agree", "overrule", "unsure"]
    score: Score | None = None
    called: _Called | None = None
    reason: Annotated[str, AfterValidator(_known_reason)] = ""
    comment: Annotated[str, Field(max_length=MAX_COMMENT), AfterValidator(_printable)] = ""
    regions: int | None = Field(None, ge=1)
    rescored: _Called | None = None
    version: str = Field("", max_length=100)
    model: str = Field("", max_length=200)
    model_sha256: str = Field("", max_length=64)
    fingerprint: str = Field("", max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _agreed(cls, given: Any) -> Any:
        """Who agrees need not say with what."""
        if isinstance(given, Mapping) and given.get("verdict") == "agree" and given.get("score") is None:
            called = given.get("called")
            return {**given, "score": None if called in ("negative", "positive") else called}
        return given

    @model_validator(mode="after")
    def _fits(self) -> NewReview:
        if self.verdict == "overrule":
            if self.score is None:
                raise _wrong("who overrules a call says which score is right")
            if self.score == self.called:
                raise _wrong(f"the call is {self.called} already: agree with it")
        elif self.verdict == "unsure" and self.score is not None:
            raise _wrong("who is unsure gives no score")
        elif self.verdict == "agree" and self.score is not None and self.score != self.called:
            raise _wrong(f"the call is {self.called or 'none'}, not {self.score}: overrule it")
        return self


class Review(NewReview):
    """A review as it was signed.

    Attributes
    ----------
    number : int
        Ascending in the order of signing.
    time : str
        UTC, ISO 8601.
    """

    number: int = Field(ge=1)
    time: str

    def is_of(self, fingerprint: str) -> bool:
        """Whether it was signed on the result with this fingerprint, and not on one before it."""
        return self.fingerprint == fingerprint


class DrawnRegions(_Kept):
    """Regions that were drawn on a slide, as a whole: the newest replace those before.

    Attributes
    ----------
    number : int
    slide_id, time, reviewer : str
        As of `Review`.
    regions : dict
        A FeatureCollection; see `pipelines.review.drawing`. Without features nothing is drawn any more.
    """

    number: int = Field(ge=1)
    slide_id: str
    time: str
    reviewer: str
    regions: dict[str, Any]


def new_review(**given: Any) -> NewReview:
    """A review from what was given.

    Raises
    ------
    ReviewError
        Something is missing or contradicts itself.
    """
    try:
        return NewReview.model_validate(given)
    except ValidationError as error:
        raise ReviewError(f"not a review: {wrong_fields(error)}") from error


class Journal:
    """The journal of a run; every method may be called from any thread of any process.

    The file is made with the first thing that is kept. Until then there are no reviews, so that a folder that
    cannot be written can be looked at.

    Parameters
    ----------
    path : pathlib.Path
        `JOURNAL_FILE` in the folder of the run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add_review(self, review: NewReview) -> Review:
        """Sign a review.

        Raises
        ------
        ReviewError
            The regions that it names were not drawn on its slide.
        JournalError
            It cannot be kept.
        """
        kept = {name: getattr(review, name) for name in NewReview.model_fields} | {"time": _now()}
        with self._writing() as journal:
            if review.regions is not None:
                drawn_on = journal.execute(
                    "SELECT slide_id FROM drawn WHERE number = ?", (review.regions,)
                ).fetchone()
                if drawn_on is None or drawn_on["slide_id"] != review.slide_id:
                    raise ReviewError(f"no regions of the number {review.regions} were drawn on {review.slide_id}")
            number = _insert(journal, "reviews", kept)
        return Review.model_construct(**kept, number=number)

    def reviews(self, slide_id: str | None = None) -> list[Review]:
        """All reviews, or those of a slide, oldest first.

        Raises
        ------
        JournalError
        """
        where, values = ("", ()) if slide_id is None else ("WHERE slide_id = ?", (slide_id,))
        return [_review(row) for row in self._rows(f"SELECT * FROM reviews {where} ORDER BY number", values)]

    def latest(self) -> dict[str, Review]:
        """The newest review of each slide that has one, by `slide_id`.

        Raises
        ------
        JournalError
        """
        newest = "SELECT * FROM reviews WHERE number IN (SELECT max(number) FROM reviews GROUP BY slide_id)"
        return {row["slide_id"]: _review(row) for row in self._rows(f"{newest} ORDER BY slide_id")}

    def add_drawn(self, slide_id: str, regions: Mapping[str, Any], reviewer: str) -> int:
        """Keep the regions that are drawn on a slide, in place of those before; their number.

        Parameters
        ----------
        slide_id : str
        regions : mapping
            A FeatureCollection of polygons named 'score' or 'exclude'; kept with corners in whole pixels.
        reviewer : str

        Raises
        ------
        RegionsError
            They are not that, or too many.
        ReviewError
            Nobody has drawn them.
        JournalError
            They cannot be kept.
        """
        content = as_geojson(parse_drawn(regions))
        try:
            drawn = DrawnRegions(number=1, slide_id=slide_id, time=_now(), reviewer=reviewer, regions=content)
        except ValidationError as error:
            raise ReviewError(f"the regions cannot be kept: {wrong_fields(error)}") from error
        kept = {"slide_id": drawn.slide_id, "time": drawn.time, "reviewer": drawn.reviewer}
        with self._writing() as journal:
            return _insert(journal, "drawn", kept | {"regions": json.dumps(content, separators=(",", ":"))})

    def drawn(self, slide_id: str) -> DrawnRegions | None:
        """The regions in force on a slide; None where none were ever drawn.

        Raises
        ------
        JournalError
        """
        rows = self._rows("SELECT * FROM drawn WHERE slide_id = ? ORDER BY number DESC LIMIT 1", (slide_id,))
        return self._drawn(rows[0]) if rows else None

    def drawings(self) -> list[DrawnRegions]:
        """All regions that were ever drawn, oldest first.

        Raises
        ------
        JournalError
        """
        return [self._drawn(row) for row in self._rows("SELECT * FROM drawn ORDER BY number")]

    def _drawn(self, row: sqlite3.Row) -> DrawnRegions:
        try:
            return DrawnRegions.model_construct(**{**dict(row), "regions": json.loads(row["regions"])})
        except (ValueError, TypeError, RecursionError) as error:
            raise JournalError(f"{self._path}: damaged: the regions of number {row['number']} are none") from error

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        if not self._path.exists():
            return []
        with self._opened() as journal:
            journal.execute("PRAGMA query_only = ON")
            return journal.execute(query, values).fetchall() if self._has_tables(journal) else []

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is kept as a whole or not at all."""
        with self._opened() as journal:
            # Of two that begin at once the second waits here, and finds the tables that the first has made.
            journal.execute("BEGIN IMMEDIATE")
            try:
                if not self._has_tables(journal):
                    for statement in _SCHEMA:
                        journal.execute(statement)
                yield journal
                journal.execute("COMMIT")
            except BaseException:
                if journal.in_transaction:
                    journal.execute("ROLLBACK")
                raise

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        journal = None
        try:
            journal = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)
            journal.row_factory = sqlite3.Row
            # The name of SQLite's own journal is gone from the disk, too, before a review counts as kept.
            journal.execute("PRAGMA synchronous = EXTRA")
            # The file may come from elsewhere, with functions in its schema that are run when it is read.
            journal.execute("PRAGMA trusted_schema = OFF")
            yield journal
        except sqlite3.Error as error:
            raise JournalError(f"{self._path}: {_why(error)}") from error
        finally:
            if journal is not None:
                journal.close()

    def _has_tables(self, journal: sqlite3.Connection) -> bool:
        """Whether the journal was begun.

        Raises
        ------
        JournalError
            The file is another one, or a newer one.
        """
        application, version, tables = journal.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if not tables and not version:
            return False
        if application != _APPLICATION:
            raise JournalError(f"{self._path}: not a journal of reviews but another database. Move it elsewhere.")
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"{self._path}: written by a newer version of wsi-her2 (journal version {version}, this one knows "
                f"{SCHEMA_VERSION}). Install the newer version to read and add reviews; the file was not changed."
            )
        return True


def _insert(journal: sqlite3.Connection, table: str, kept: Mapping[str, Any]) -> int:
    names, places = ", ".join(kept), ", ".join(f":{name}" for name in kept)
    journal.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", dict(kept))
    return int(journal.execute("SELECT last_insert_rowid()").fetchone()[0])


def _review(row: sqlite3.Row) -> Review:
    # As it stands: what was signed is shown, also where a later version would not take it any more.
    return Review.model_construct(**dict(row))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _why(error: sqlite3.Error) -> str:
    """What an error of SQLite means for who reviews, and what to do."""
    name, code = getattr(error, "sqlite_errorname", ""), getattr(error, "sqlite_errorcode", 0) & 0xFF
    if name == "SQLITE_IOERR_LOCK" or code == sqlite3.SQLITE_PROTOCOL:
        return "its disk keeps no locks, so that reviews are not safe there. Copy the run to another disk."
    if name == "SQLITE_READONLY_ROLLBACK":
        return (
            "a program that added a review was cut off, and what it left must be undone first, but the folder "
            "cannot be written. Open it once from where it can."
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return (
            "reviews cannot be kept there: the folder or the file cannot be written. Ask for permission to write."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another program has held it for {_WAIT_S:g} seconds. Close what has it open, then try again."
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full. Free space, then try again; all earlier reviews are kept."
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"damaged, or not a journal of reviews ({error}). Put the last copy of it in its place."
    if code == sqlite3.SQLITE_IOERR:
        return f"the disk failed ({error}). Look at its space and at your quota, then try again."
    return f"the journal cannot be used ({error})"


def _append_only(table: str) -> Iterator[str]:
    refusal = f"SELECT RAISE(ABORT, '{table} are only ever added to')"
    yield f"CREATE TRIGGER {table}_stay BEFORE UPDATE ON {table} BEGIN {refusal}; END"
    yield f"CREATE TRIGGER {table}_last BEFORE DELETE ON {table} BEGIN {refusal}; END"
    # INSERT OR REPLACE deletes without asking the trigger for that.
    yield (
        f"CREATE TRIGGER {table}_are_new BEFORE INSERT ON {table} "
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE number = NEW.number) BEGIN {refusal}; END"
    )


_SCHEMA = (
    """
    CREATE TABLE drawn (
        number INTEGER PRIMARY KEY,
        slide_id TEXT NOT NULL,
        time TEXT NOT NULL,
        reviewer TEXT NOT NULL CHECK (reviewer <> ''),
        regions TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE reviews (
        number INTEGER PRIMARY KEY,
        slide_id TEXT NOT NULL,
        time TEXT NOT NULL,
        reviewer TEXT NOT NULL CHECK (reviewer <> ''),
        verdict TEXT NOT NULL CHECK (verdict IN ('agree', 'overrule', 'unsure')),
        score TEXT CHECK (score IN ('0', '1+', '2+', '3+')),
        called TEXT,
        reason TEXT NOT NULL,
        comment TEXT NOT NULL,
        regions INTEGER REFERENCES drawn (number),
        rescored TEXT,
        version TEXT NOT NULL,
        model TEXT NOT NULL,
        model_sha256 TEXT NOT NULL,
        fingerprint TEXT NOT NULL
    )
    """,
    "CREATE INDEX drawn_by_slide ON drawn (slide_id, number)",
    "CREATE INDEX reviews_by_slide ON reviews (slide_id, number)",
    *_append_only("drawn"),
    *_append_only("reviews"),
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
