"""What only a browser can say of the report of a slide: where its places lead, and how it comes on paper."""

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.reports.browser import Browser
from tests.reports.conftest import summary_of
from wsi_her2.reports.heatmap import draw_layer
from wsi_her2.reports.review_words import ReportedReview
from wsi_her2.reports.slide_content import slide_content
from wsi_her2.reports.slide_report import write_slide_report

A4, LETTER = (8.27, 11.69), (8.5, 11.0)
REVIEW = ReportedReview(
    "overrule",
    "1+",
    "2+",
    "Dr Example",
    "2025-03-04T05:06:07Z",
    "staining is cytoplasmic",
    "Ducts. " * 20,
    "1+",
    True,
    ("2+ by Dr Other",) * 6,
)


@pytest.fixture
def report(scored, make_result, tmp_path: Path) -> Callable[..., Path]:
    """A report with everything that one can hold."""

    def write(**more: object) -> Path:
        generator = np.random.default_rng(5)
        noise = generator.integers(0, 256, (64, 64, 3), np.uint8)
        examples = {name: [(4711, 815 + 128 * n, noise) for n in range(6)] for name in scored.classes}
        views = [(1000 * n, 2000, np.zeros((448, 896, 3), np.uint8)) for n in range(4)]
        cells = summary_of(400, 300, 200, 100)
        result = make_result(slide_id="case 1", call=cells.call, call_from="cells", cells=cells)
        layer = draw_layer(scored.mask, scored.store, scored.classes)
        content = slide_content(result, scored.mask, layer, examples, cell_views=views, **more)
        path = tmp_path / "report.html"
        write_slide_report(path, content)
        return path

    return write


class _Served(SimpleHTTPRequestHandler):
    """The file as the review pages serve it, and an empty page where their viewer would be."""

    def do_GET(self) -> None:
        if self.path == "/report/case%201":
            self.path = "/report.html"
            super().do_GET()
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>viewer</title>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(report, tmp_path: Path) -> Iterator[str]:
    report()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Served, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_served_a_click_on_a_field_goes_to_its_place_on_the_slide(browser: Browser, served: str):
    browser.complaints.clear()
    browser.open(f"{served}/report/case%201")
    # A patch of 128 px at 0.5 um/px on a slide of 0.2523 um/px, seen in the middle of three times its side.
    side = round(128 * 0.5 / 0.2523456789)
    browser.run("document.querySelector('.group-of-tiles img').click()")
    browser.until("document.title === 'viewer'")
    assert browser.run("location.pathname") == "/slide/case%201"
    assert browser.run("location.hash") == f"#x={4711 + round(side / 2)}&y={815 + round(side / 2)}&w={3 * side}"
    browser.open(f"{served}/report/case%201")
    browser.run("document.querySelectorAll('.fields-of-cells img')[3].click()")
    browser.until("document.title === 'viewer'")
    assert browser.run("location.hash").startswith(f"#x={3000 + round(side / 2)}&y=")
    browser.open(f"{served}/report/case%201")
    assert browser.run("document.getElementById('open').checkVisibility()")
    assert browser.run("document.getElementById('open').getAttribute('href')") == "/slide/case%201"
    # The browser asks for an icon by itself; it is not the page's.
    assert [said for said in browser.complaints if "favicon" not in said] == []


def test_opened_as_a_file_it_shows_coordinates_and_links_nowhere(browser: Browser, report):
    browser.complaints.clear()
    browser.open(report().as_uri())
    assert browser.run("[...document.links].filter(a => a.checkVisibility()).length") == 0
    assert browser.run("document.querySelector('.group-of-tiles li span').textContent") == "x 4711, y 815"
    assert browser.run("document.getElementById('tools').checkVisibility()")
    assert browser.complaints == []


@pytest.mark.parametrize("paper", [A4, LETTER], ids=["A4", "Letter"])
@pytest.mark.parametrize("review", [None, REVIEW], ids=["", "reviewed"])
def test_on_paper_the_call_its_fields_and_its_provenance_take_a_page_each(browser, report, paper, review):
    browser.open(report(review=review).as_uri())
    pages = re.findall(rb"/Type\s*/Page\b", browser.printed(*paper))
    assert len(pages) == 3


def test_nothing_is_wider_than_the_paper(browser: Browser, report):
    browser.open(report(review=REVIEW).as_uri())
    browser.as_printed(width_px=660)
    try:
        assert browser.run("document.documentElement.scrollWidth") <= 660
    finally:
        browser.as_printed(width_px=None)
