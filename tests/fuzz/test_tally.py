"""What is told of many hostile files: nothing is left out, and a finding makes the run fail."""

from __future__ import annotations

from tests.fuzz.tally import Tally
from tests.fuzz.verdicts import Verdict

VERDICTS = [
    ("slide", Verdict("ok", seconds=0.5, peak_mb=300)),
    ("slide", Verdict("refused", "UnsupportedSlide", "claims.py:1", "said", 0.1, 310)),
    ("slide", Verdict("third-party crash", "SIGABRT", "lowlevel.py:435")),
    ("lab", Verdict("finding", "LinAlgError", "density.py:47", "Singular matrix", 0.0, 200)),
    ("lab", Verdict("finding", "LinAlgError", "density.py:47", "Singular matrix", 7.0, 200)),
]


def tally_of(verdicts: list[tuple[str, Verdict]]) -> Tally:
    tally = Tally(("slide", "lab", "store"))
    for number, (kind, verdict) in enumerate(verdicts):
        tally.add(kind, f"number {number}", verdict)
    return tally


def test_equal_findings_are_counted_together() -> None:
    tally = Tally(("slide", "lab"))
    assert [tally.add(kind, "x", verdict) for kind, verdict in VERDICTS] == [0, 0, 1, 1, 2]


def test_only_findings_make_a_run_fail() -> None:
    assert tally_of(VERDICTS).has_findings
    assert not tally_of(VERDICTS[:3]).has_findings


def test_the_page_has_every_input_and_what_took_most() -> None:
    limits = {"memory_mb": 3000, "seconds": 20.0}
    page = tally_of(VERDICTS).page(command="python -m tests.fuzz 5", machine="this machine", **limits)
    rows = {cells[1]: cells[2:-1] for line in page.splitlines() if len(cells := line.split("|")) > 3}
    by_kind = {kind.strip(): [cell.strip() for cell in cells] for kind, cells in rows.items()}
    assert by_kind["slide"] == ["3", "1", "1", "1", "0", "0.5", "310"]
    assert by_kind["lab"] == ["2", "0", "0", "0", "2", "7.0", "200"]
    assert by_kind["store"][:5] == ["0"] * 5
    assert by_kind["all"] == ["5", "1", "1", "1", "2", "7.0", "310"]
    assert "python -m tests.fuzz 5" in page
    assert "7.0 s: number 4" in page
    assert "LinAlgError at density.py:47" in page


def test_the_terminal_shows_the_first_of_each_place() -> None:
    said = "\n".join(tally_of(VERDICTS).lines())
    assert "Findings: 2 in 1 places" in said
    assert "first number 3: 'Singular matrix'" in said
