"""What only a browser can say of the page of a run: it is quick, keeps its state and works from the keyboard."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from tests.reports.browser import Browser
from wsi_her2.reports.heatmap import write_png
from wsi_her2.reports.run_page import write_run_page
from wsi_her2.reports.slide_table import SlideRow

MANY = 10_000
SCORES = ("0", "1+", "2+", "3+")
SHOWN = "[...document.querySelectorAll('#slides tbody tr')].map(tr => tr.cells[1].firstChild.textContent)"


def column(name: str) -> str:
    return (
        f"(() => {{ const at = document.querySelector('th[data-sort={name}]').cellIndex;"
        "return [...document.querySelectorAll('#slides tbody tr')].map(tr => tr.cells[at]?.textContent) })()"
    )


def click(name: str) -> str:
    return f"document.querySelector('th[data-sort={name}] button').click()"


@pytest.fixture
def row(make_result) -> SlideRow:
    return SlideRow.of(make_result())


def varied(row: SlideRow, count: int) -> Iterator[SlideRow]:
    for number in range(count):
        changed = replace(
            row,
            slide_id=f"case {number}",
            path=f"/archive/{number % 7}/case {number}.svs",
            her2_score=SCORES[number % 4],
            confidence=0.5 + (number * 37 % 1000) / 2000,
            h_score=float(number * 7919 % 301),
            review=number % 10 == 3,
            disagreement="patches give 2+" if number % 10 == 3 else "",
        )
        if number % 50 == 49:
            changed = replace(
                changed, status="failed", reason=f"{changed.path}: no such file", her2_score=None,
                her2_group=None, confidence=None, h_score=None, review=None, disagreement="",
            )  # fmt: skip
        yield changed


@pytest.fixture
def many(browser: Browser, row: SlideRow, tmp_path: Path) -> str:
    write_run_page(tmp_path / "index.html", varied(row, MANY), {})
    address = (tmp_path / "index.html").as_uri()
    browser.requested.clear()
    browser.complaints.clear()
    browser.open(address)
    return address


def test_ten_thousand_slides_open_and_sort_without_a_wait_and_nothing_is_fetched(browser: Browser, many: str):
    assert len(browser.run(SHOWN)) == 50
    loaded = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    took = (
        "(() => {{ const t = performance.now(); {}; document.body.offsetHeight; return performance.now() - t }})()"
    )
    opened, sorted_by_number, sorted_by_name = [], [], []
    # The best of three, because the machine has other work, and that is not what is asked for.
    for _ in range(3):
        opened.append(browser.run(loaded))
        sorted_by_number.append(browser.run(took.format(click("h_score"))))
        sorted_by_name.append(browser.run(took.format(click("slide"))))
        browser.open(many)
    assert min(opened) < 1500
    assert min(sorted_by_number) < 500
    assert min(sorted_by_name) < 500
    assert {address.split("#")[0] for address in browser.requested} <= {many, "about:blank"}
    assert browser.complaints == []


def test_numbers_sort_as_numbers_scores_in_their_order_and_names_as_people_count(browser: Browser, many: str):
    numbers = []
    for page in range(1, 9):
        browser.open(f"{many}#sort=h_score&page={page}")
        numbers += [int(cell) for cell in browser.run(column("h_score"))]
    assert numbers == sorted(numbers)
    assert {0, 9, 10, 11} <= set(numbers)
    browser.run(click("h_score"))
    assert browser.run(column("h_score"))[0] == "300"
    assert browser.run("document.querySelector('th[data-sort=h_score]').ariaSort") == "descending"
    browser.run(click("result"))
    assert browser.run(column("result"))[0].startswith("0")
    browser.run(click("result"))
    assert browser.run(column("result"))[0] == "failed"
    browser.run(click("slide"))
    assert browser.run(SHOWN)[:12] == [f"case {number}" for number in range(12)]


def test_what_is_not_known_comes_last_whichever_way_is_sorted(browser: Browser, many: str):
    for address in ("#sort=confidence&page=200", "#sort=-confidence&page=200"):
        browser.open(many + address)
        assert set(browser.run(column("result"))) == {"failed"}


@pytest.mark.parametrize(
    ("searched", "found"),
    [
        ("case 4321", ["case 4321"]),
        ("4321 failed", []),
        ("/archive/3/ 3+ review", None),
        ("no such file 9949", ["case 9949"]),
    ],
)
def test_search_finds_slides_by_name_path_status_score_flag_and_reason(
    browser: Browser, many: str, searched: str, found: list[str] | None
):
    browser.open(f"{many}#q={quote(searched)}")
    if found is not None:
        assert browser.run(SHOWN) == found
        return
    shown = browser.run(SHOWN)
    assert shown
    for name in shown:
        number = int(name.removeprefix("case "))
        assert (number % 7, number % 4, number % 10) == (3, 3, 3)


def test_reload_and_back_keep_what_was_looked_at(browser: Browser, many: str):
    browser.run("document.querySelector('a[href=\"#review=1\"]').click()")
    browser.until("document.getElementById('where').textContent.endsWith('of 1,000')")
    browser.run(click("confidence"))
    browser.run("document.querySelector('[data-step=\"1\"]').click()")
    assert "review=1&sort=confidence&page=2" in browser.run("location.hash")
    second = browser.run(SHOWN)
    browser.reload()
    assert browser.run(SHOWN) == second
    browser.back()
    browser.until("!location.hash.includes('page')")
    browser.until("document.getElementById('where').textContent.startsWith('1 to 50')")
    assert browser.run("document.querySelector('th[data-sort=confidence]').ariaSort") == "ascending"
    browser.back()
    browser.until("location.hash === '#review=1'")
    browser.until("!document.querySelector('[aria-sort]')")


def test_a_slide_is_found_from_the_keyboard_alone(browser: Browser, row: SlideRow, tmp_path: Path):
    (tmp_path / "case 42").mkdir()
    (tmp_path / "case 42" / "report.html").write_text("x")
    write_run_page(tmp_path / "index.html", varied(row, 100), {})
    browser.open((tmp_path / "index.html").as_uri())
    browser.press("/", "/")
    for letter in "42.svs":
        browser.press(letter, letter)
    browser.press("Enter", "\r")
    assert browser.run("document.activeElement.textContent") == "case 42"
    assert browser.run("document.activeElement.getAttribute('href')") == "case%2042/report.html"
    assert browser.run("location.hash") == "#q=42.svs"


def test_the_script_draws_the_rows_that_stood_there_without_it(
    browser: Browser, row: SlideRow, tmp_path: Path, hostile: str
):
    (tmp_path / "case 3").mkdir()
    (tmp_path / "case 3" / "report.html").touch()
    write_png(tmp_path / "case 3" / "heatmap.png", np.zeros((2, 2, 3), np.uint8))
    rows = [*varied(row, 50), replace(row, slide_id=hostile, path=hostile, status="failed", reason=hostile)]
    write_run_page(tmp_path / "index.html", rows[1:], {})
    drawn = """[...document.querySelectorAll('#slides tbody tr')].map(tr => [tr, ...tr.querySelectorAll('*')].map(
        e => [e.tagName, e.getAttribute('href'), e.className, e.title, e.style.background, e.colSpan,
              e.children.length || e.textContent]))"""
    browser.without_script(True)
    browser.open((tmp_path / "index.html").as_uri())
    plain = browser.run(drawn)
    assert not browser.run("document.getElementById('tools').checkVisibility()")
    browser.without_script(False)
    browser.open((tmp_path / "index.html").as_uri())
    browser.until("document.querySelectorAll('#slides tbody tr').length === 50")
    for by_script, by_python in zip(browser.run(drawn), plain, strict=True):
        assert by_script == by_python
    assert browser.run("document.querySelectorAll('script').length") == 2


def test_without_script_a_long_run_says_where_the_rest_is(browser: Browser, many: str):
    browser.without_script(True)
    browser.open(many)
    assert "first 50 of 10,000 slides" in browser.run("document.querySelector('noscript').innerText")
    assert len(browser.run(SHOWN)) == 50
    browser.without_script(False)


def test_slides_unlike_the_others_are_counted_and_shown(browser: Browser, row: SlideRow, tmp_path: Path):
    rows = [replace(one, mpp=0.5 if number in (7, 70) else 0.25) for number, one in enumerate(varied(row, 99))]
    write_run_page(tmp_path / "index.html", rows, {})
    browser.open((tmp_path / "index.html").as_uri())
    assert browser.run("document.querySelector('a[href=\"#outlier=scale\"] b').textContent") == "2"
    browser.run("document.querySelector('a[href=\"#outlier=scale\"]').click()")
    browser.until("location.hash === '#outlier=scale'")
    assert browser.run(SHOWN) == ["case 7", "case 70"]
    assert "another scale than most (0.25 µm per pixel)" in browser.run(
        "document.getElementById('wanted').textContent"
    )
    browser.open(f"{(tmp_path / 'index.html').as_uri()}#outlier=nothing-of-this-run")
    assert browser.run(SHOWN) == []


def test_served_by_the_review_pages_each_slide_leads_to_the_viewer_and_as_a_file_none(
    browser: Browser, row: SlideRow, tmp_path: Path
):
    for name in ("run", "run/case 3"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "case 3" / "report.html").touch()
    write_run_page(tmp_path / "run" / "index.html", varied(row, 5), {})
    shown = "#slides .view, #worklist:not([hidden]) a"
    links = f"[...document.querySelectorAll('{shown}')].map(a => a.getAttribute('href'))"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        browser.open(f"http://127.0.0.1:{server.server_port}/run/")
        assert browser.run(links) == ["/", "/slide/case%203"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    browser.open((tmp_path / "run" / "index.html").as_uri())
    assert browser.run(links) == []
