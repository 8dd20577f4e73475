"""The journal keeps what was signed: all of it, once, whoever writes at the same time and whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.review.journal import JOURNAL_FILE, MAX_COMMENT, SCHEMA_VERSION, Journal, NewReview, new_review
from wsi_her2.errors import JournalError, RegionsError, ReviewError

SIGNS_FOR_EVER = """
import sys
from pathlib import Path
from pipelines.review.journal import Journal, new_review
journal = Journal(Path(sys.argv[1]))
while True:
    review = new_review(slide_id="s", reviewer=sys.argv[2], verdict="unsure", comment="x" * 4000)
    print(journal.add_review(review).number, flush=True)
"""

SIGNS_A_HUNDRED = """
import sys
from pathlib import Path
from pipelines.review.journal import Journal, new_review
journal = Journal(Path(sys.argv[1]))
for number in range(100):
    journal.add_review(new_review(slide_id="s", reviewer=sys.argv[2], verdict="unsure", comment=str(number)))
"""

LEAVES_HALF_A_TRANSACTION = """
import os, signal, sqlite3, sys
journal = sqlite3.connect(sys.argv[1], isolation_level=None)
journal.execute("PRAGMA cache_size = 2")
journal.execute("BEGIN IMMEDIATE")
for number in range(200):
    journal.execute(
        "INSERT INTO reviews (slide_id, time, reviewer, verdict, reason, comment, version, model, model_sha256,"
        " fingerprint) VALUES ('s', 't', 'half', 'unsure', '', ?, '', '', '', '')", ("x" * 4000,))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / JOURNAL_FILE)


def unsure(slide_id: str = "s", reviewer: str = "A", **more: object) -> NewReview:
    return new_review(slide_id=slide_id, reviewer=reviewer, verdict="unsure", **more)


def square(name: str = "exclude", side: float = 100.0) -> dict[str, object]:
    ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    feature = {
        "type": "Feature",
        "properties": {"name": name},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    return {"type": "FeatureCollection", "features": [feature]}


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_review_comes_back_as_it_was_signed(journal: Journal) -> None:
    regions = journal.add_drawn("case 1", square(), "Dr. Ä")
    signed = journal.add_review(
        new_review(
            slide_id="case 1",
            reviewer=" Dr.\u0001 A\u0308 ",
            verdict="overrule",
            score="3+",
            called="2+",
            reason="border case",
            comment="first line\r\nsecond <b>line</b>\v",
            regions=regions,
            rescored="3+",
            version="0.1.0",
            model="membrane",
            model_sha256="a" * 64,
            fingerprint="f" * 64,
        )
    )
    assert (signed.number, signed.reviewer, signed.comment) == (1, "Dr. Ä", "first line\nsecond <b>line</b>")
    assert signed.time.endswith("+00:00")
    assert journal.reviews() == journal.reviews("case 1") == [signed]
    assert journal.latest() == {"case 1": signed}
    assert signed.is_of("f" * 64)
    assert not signed.is_of("0" * 64)


def test_the_newest_review_of_a_slide_is_its_latest_and_older_ones_stay(journal: Journal) -> None:
    for slide_id, reviewer in (("a", "one"), ("b", "one"), ("a", "two")):
        journal.add_review(unsure(slide_id, reviewer))
    assert {name: review.reviewer for name, review in journal.latest().items()} == {"a": "two", "b": "one"}
    assert [review.reviewer for review in journal.reviews("a")] == ["one", "two"]
    assert [review.number for review in journal.reviews()] == [1, 2, 3]


def test_the_newest_drawing_is_in_force_and_one_without_regions_withdraws_them(journal: Journal) -> None:
    assert journal.drawn("s") is None
    first = journal.add_drawn("s", square(side=99.6), "A")
    drawn = journal.drawn("s")
    assert drawn is not None
    assert (drawn.number, drawn.reviewer) == (first, "A")
    corners = drawn.regions["features"][0]["geometry"]["coordinates"][0]
    assert corners == [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
    assert journal.add_drawn("s", {"type": "FeatureCollection", "features": []}, "B") == first + 1
    drawn = journal.drawn("s")
    assert drawn is not None
    assert drawn.regions["features"] == []
    assert [one.number for one in journal.drawings()] == [first, first + 1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"verdict": "overrule", "called": "2+"}, "which score is right"),
        ({"verdict": "overrule", "called": "2+", "score": "2+"}, "agree with it"),
        ({"verdict": "overrule", "score": "4+"}, "'3\\+'"),
        ({"verdict": "agree", "called": "2+", "score": "1+"}, "overrule it"),
        ({"verdict": "agree", "score": "1+"}, "overrule it"),
        ({"verdict": "unsure", "score": "1+"}, "gives no score"),
        ({"verdict": "perhaps"}, "verdict"),
        ({"verdict": "unsure", "reviewer": " \u0000\n"}, "give a name"),
        ({"verdict": "unsure", "reviewer": "x" * 101}, "reviewer"),
        ({"verdict": "unsure", "reason": "because"}, "border case"),
        ({"verdict": "unsure", "comment": "x" * (MAX_COMMENT + 1)}, "comment"),
        ({"verdict": "unsure", "comment": "\ud800"}, "comment"),
        ({"verdict": "unsure", "regions": 0}, "regions"),
        ({"verdict": "unsure", "number": 7}, "number"),
    ],
)
def test_what_is_no_review_is_refused_with_words_that_say_why(given: dict[str, object], words: str) -> None:
    with pytest.raises(ReviewError, match=words):
        new_review(**{"slide_id": "s", "reviewer": "A", **given})


def test_who_agrees_gives_the_score_of_the_call_if_it_is_one() -> None:
    agree = {"slide_id": "s", "reviewer": "A", "verdict": "agree"}
    assert new_review(**agree, called="2+").score == "2+"
    assert new_review(**agree, called="positive").score is None
    assert new_review(**agree).score is None
    with pytest.raises(ValidationError):
        NewReview.model_validate({**agree, "called": "5+"})


def test_a_review_names_no_regions_but_those_drawn_on_its_slide(journal: Journal) -> None:
    number = journal.add_drawn("another", square(), "A")
    for wrong in (number, number + 1):
        with pytest.raises(ReviewError, match="drawn on s"):
            journal.add_review(unsure(regions=wrong))
    assert journal.reviews() == []


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        (square(name="tumour"), "tumour: a drawn region is named"),
        (square(side=float("nan")), "numbers"),
        (square(side=1e300), "far beyond"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": None}]}, "polygons"),
        ({"type": "FeatureCollection", "features": "x"}, "attribute"),
        ({"type": "Feature"}, "FeatureCollection"),
        ({"type": "FeatureCollection", "features": square()["features"] * 501}, "500 regions"),  # type: ignore[operator]
        (
            {
                "type": "FeatureCollection",
                "features": [{"type": "Polygon", "coordinates": [[[0, n] for n in range(50_001)]]}],
            },
            "50,000 corners",
        ),
    ],
    ids=["unknown name", "no number", "far away", "no polygon", "no list", "no collection", "many", "long"],
)
def test_what_was_not_drawn_by_hand_is_not_kept(journal: Journal, hostile: dict[str, object], words: str) -> None:
    with pytest.raises(RegionsError, match=words):
        journal.add_drawn("s", hostile, "A")
    assert journal.drawings() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE reviews SET score = '0'",
        "UPDATE OR REPLACE reviews SET number = 2 WHERE number = 1",
        "DELETE FROM reviews",
        "INSERT OR REPLACE INTO reviews SELECT 1, slide_id, time, 'B', verdict, score, called, reason, comment,"
        " regions, rescored, version, model, model_sha256, fingerprint FROM reviews WHERE number = 2",
        "DELETE FROM drawn",
        "UPDATE drawn SET regions = ''",
    ],
)
def test_the_file_itself_refuses_changes(journal: Journal, tmp_path: Path, statement: str) -> None:
    journal.add_drawn("s", square(), "A")
    for _ in range(2):
        journal.add_review(unsure())
    before = (journal.reviews(), journal.drawings())
    direct = sqlite3.connect(tmp_path / JOURNAL_FILE, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
        direct.execute(statement)
    direct.close()
    assert (journal.reviews(), journal.drawings()) == before


def test_looking_makes_no_file_and_an_empty_one_is_an_empty_journal(journal: Journal, tmp_path: Path) -> None:
    assert (journal.reviews(), journal.latest(), journal.drawn("s")) == ([], {}, None)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / JOURNAL_FILE).touch()
    assert journal.reviews() == []
    journal.add_review(unsure())
    assert len(journal.reviews()) == 1
    beside = [path.name for path in tmp_path.iterdir()]
    assert beside == [JOURNAL_FILE], "no shared memory, which a network disk does not have"


def test_a_journal_of_a_newer_version_is_left_alone(journal: Journal, tmp_path: Path) -> None:
    journal.add_review(unsure())
    direct = sqlite3.connect(tmp_path / JOURNAL_FILE)
    direct.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    direct.close()
    content = (tmp_path / JOURNAL_FILE).read_bytes()
    for use in (journal.reviews, journal.latest, lambda: journal.add_review(unsure())):
        with pytest.raises(JournalError, match="newer version"):
            use()
    assert (tmp_path / JOURNAL_FILE).read_bytes() == content


@pytest.mark.parametrize("what", ["another database", "no database", "folder", "cut off"])
def test_what_is_no_journal_is_an_error_that_names_it(journal: Journal, tmp_path: Path, what: str) -> None:
    path = tmp_path / JOURNAL_FILE
    if what == "another database":
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE reviews (number INTEGER)")
        other.close()
    elif what == "no database":
        path.write_bytes(b"number,score\n" * 1000)
    elif what == "folder":
        path.mkdir()
    else:
        for _ in range(30):
            journal.add_review(unsure(comment="x" * 4000))
        path.write_bytes(path.read_bytes()[:20_000])
    for use in (journal.reviews, lambda: journal.add_review(unsure())):
        with pytest.raises(JournalError, match=JOURNAL_FILE):
            use()


def test_regions_that_were_damaged_in_the_file_are_an_error(journal: Journal, tmp_path: Path) -> None:
    journal.add_drawn("s", square(), "A")
    direct = sqlite3.connect(tmp_path / JOURNAL_FILE)
    direct.execute("INSERT INTO drawn (slide_id, time, reviewer, regions) VALUES ('s', 't', 'A', '[[[')")
    direct.commit()
    direct.close()
    with pytest.raises(JournalError, match="number 2"):
        journal.drawn("s")


def test_threads_and_processes_sign_at_once_and_nothing_is_lost(journal: Journal, tmp_path: Path) -> None:
    others = [started(SIGNS_A_HUNDRED, tmp_path / JOURNAL_FILE, f"process {n}") for n in range(2)]
    errors: list[BaseException] = []

    def sign(name: str) -> None:
        try:
            for number in range(25):
                journal.add_review(unsure(reviewer=name, comment=str(number)))
                assert journal.latest()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must see it
            errors.append(error)

    threads = [threading.Thread(target=sign, args=(f"thread {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in others:
        assert process.wait(120) == 0, process.stderr and process.stderr.read()
    assert errors == []
    reviews = journal.reviews()
    assert [review.number for review in reviews] == list(range(1, 301))
    for name in {review.reviewer for review in reviews}:
        comments = [review.comment for review in reviews if review.reviewer == name]
        assert comments == [str(number) for number in range(len(comments))]


def test_a_writer_killed_at_any_moment_loses_nothing_that_was_signed(journal: Journal, tmp_path: Path) -> None:
    chance = random.Random(5)
    told: list[int] = []
    for attempt in range(6):
        writer = started(SIGNS_FOR_EVER, tmp_path / JOURNAL_FILE, f"attempt {attempt}")
        assert writer.stdout is not None
        told.append(int(writer.stdout.readline()))
        time.sleep(chance.uniform(0.0, 0.3))
        writer.send_signal(signal.SIGKILL)
        # What it said before it was killed was on the disk by then.
        told += map(int, writer.stdout.read().split())
        writer.wait()
        writer.stdout.close()
        if writer.stderr is not None:
            writer.stderr.close()
        kept = [review.number for review in journal.reviews()]
        assert kept == list(range(1, len(kept) + 1))
        assert set(told) <= set(kept)
    journal.add_review(unsure(reviewer="afterwards"))
    direct = sqlite3.connect(tmp_path / JOURNAL_FILE)
    assert direct.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    direct.close()


def test_half_a_transaction_that_reached_the_file_is_undone(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / JOURNAL_FILE
    signed = journal.add_review(unsure())
    killed = started(LEAVES_HALF_A_TRANSACTION, path)
    assert killed.wait(60) == -signal.SIGKILL
    assert path.stat().st_size > 100_000, "its reviews are in the file"
    assert path.with_name(f"{JOURNAL_FILE}-journal").exists()
    assert journal.reviews() == [signed]
    assert journal.add_review(unsure()).number == 2


def test_a_writer_that_does_not_let_go_is_named(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.add_review(unsure())
    monkeypatch.setattr("pipelines.review.journal._WAIT_S", 0.1)
    hanging = sqlite3.connect(tmp_path / JOURNAL_FILE, isolation_level=None)
    hanging.execute("BEGIN IMMEDIATE")
    assert len(journal.reviews()) == 1, "reading goes on"
    with pytest.raises(JournalError, match="another program"):
        journal.add_review(unsure())
    hanging.close()
    journal.add_review(unsure())


NO_ROOM = """
import resource, signal, sys
from pathlib import Path
from pipelines.review.journal import Journal, new_review
from wsi_her2.errors import JournalError
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5000,) * 2)
try:
    for _ in range(9):
        Journal(path).add_review(new_review(slide_id="s", reviewer="A", verdict="unsure", comment="x" * 4000))
        print("signed")
except JournalError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_where_there_is_no_room_a_review_is_refused_and_the_earlier_ones_stay(
    journal: Journal, tmp_path: Path
) -> None:
    journal.add_review(unsure())
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(tmp_path / JOURNAL_FILE)], capture_output=True, text=True, check=False
    )
    *signed, said = done.stdout.splitlines() or [done.stderr]
    assert "quota" in said
    assert len(journal.reviews()) == 1 + len(signed) < 9
    journal.add_review(unsure())


READ_ONLY = """
import os, sys
from pathlib import Path
from pipelines.review.journal import Journal, new_review
from wsi_her2.errors import JournalError
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
journal = Journal(Path(sys.argv[1]))
print(len(journal.reviews()))
try:
    journal.add_review(new_review(slide_id="s", reviewer="A", verdict="unsure"))
except JournalError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.parametrize("begun", [True, False])
def test_a_folder_that_cannot_be_written_can_be_looked_at_and_says_so_when_signed(
    begun: bool, tmp_path: Path
) -> None:
    # Another user must get there, through one folder more where the tests run in several processes.
    for parent in (tmp_path, *tmp_path.parents):
        if parent != tmp_path and not parent.name.startswith(("pytest-", "popen-")):
            break
        parent.chmod(0o755)
    folder = tmp_path / "run"
    folder.mkdir()
    if begun:
        Journal(folder / JOURNAL_FILE).add_review(unsure())
        (folder / JOURNAL_FILE).chmod(0o444)
    folder.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(folder / JOURNAL_FILE)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    folder.chmod(0o755)
    count, said = done.stdout.splitlines() or ["", done.stderr]
    assert count == str(int(begun))
    assert "cannot be written" in said
    assert JOURNAL_FILE in said


def test_ten_thousand_reviews_are_read_in_a_moment(journal: Journal, tmp_path: Path) -> None:
    journal.add_review(unsure())
    direct = sqlite3.connect(tmp_path / JOURNAL_FILE)
    direct.executemany(
        "INSERT INTO reviews (slide_id, time, reviewer, verdict, reason, comment, version, model, model_sha256,"
        " fingerprint) VALUES (?, 't', 'A', 'unsure', '', '', '', '', '', '')",
        ((f"slide {number % 5000}",) for number in range(10_000)),
    )
    direct.commit()
    direct.close()
    before = time.process_time()
    assert len(journal.latest()) == 5001
    assert len(journal.reviews()) == 10_001
    assert time.process_time() - before < 3
    assert json.dumps([review.model_dump() for review in journal.reviews("slide 7")])
