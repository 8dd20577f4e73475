"""What only a browser can say of the review pages: a reader looks, signs and draws, with a mouse or without."""

from __future__ import annotations

import csv
import json
import math
import shutil
import struct
import time
from base64 import b64encode
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import numpy as np
import pytest

from pipelines.results import read_result
from pipelines.review.access import Access
from pipelines.review.journal import Journal, NewReview
from pipelines.review.rescoring import rescore
from pipelines.review.run_folder import ReviewRun
from tests.pipelines.review.conftest import serving
from tests.reports.browser import Browser
from wsi_her2.reports.palette import CLASS_COLOURS
from wsi_her2.slides.regions import Region

SIZE = (1280, 720)
AXE = Path(__file__).parent / "axe-core" / "axe.min.js"
READER = "Dr Weber"

_COPY = (
    "(() => { const from = document.querySelector('canvas.overlay');"
    " const c = new OffscreenCanvas(from.width, from.height).getContext('2d', {willReadFrequently: true});"
    " c.drawImage(from, 0, 0); return c })()"
)
"""Reading a canvas often would make it a slower one: what is read is a copy."""


class Reader:
    """Somebody before a browser at the pages of a run."""

    def __init__(self, browser: Browser, address: str, run: Path) -> None:
        self.browser, self.address, self.run = browser, address, run

    def visit(self, path: str) -> None:
        """Open a page and wait for all that it shows at once."""
        self.browser.open(self.address + path)
        self.browser.until("document.documentElement.dataset.ready === 'true'")

    def reload(self) -> None:
        self.browser.reload()
        self.browser.until("document.documentElement.dataset.ready === 'true'")

    def press(self, keys: str) -> None:
        """Press keys, one letter each."""
        self.browser.type(keys)

    def text(self, selector: str) -> str:
        return str(self.browser.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.browser.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText.trim())"
        )
        return found

    def says(self, words: str) -> None:
        """Wait until the pages have announced something."""
        self.browser.until(f"document.getElementById('announcement').textContent.includes({json.dumps(words)})")

    def place(self) -> dict[str, float]:
        """Where the view is, as the address says once it rests."""
        self.browser.until("location.hash.includes('w=')")
        self.rest()
        found = parse_qs(urlsplit(self.browser.run("location.href")).fragment)
        return {name: float(found.get(name, ["0"])[0]) for name in "xywr"}

    def rest(self) -> None:
        """Wait until the view rests and the address says where."""
        time.sleep(0.1)
        self.browser.until("document.documentElement.dataset.view === 'still'")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The point of the window that shows a point of the slide, which must not be turned."""
        place = self.place()
        left, top, width, height = self.browser.run(
            "(() => { const b = document.getElementById('slide').getBoundingClientRect();"
            " return [b.left, b.top, b.width, b.height] })()"
        )
        scale = width / place["w"]
        return left + width / 2 + (x - place["x"]) * scale, top + height / 2 + (y - place["y"]) * scale

    def look_at(self, x: float, y: float, w: float) -> None:
        """Go somewhere by the address."""
        self.browser.run(f"location.hash = 'x={x}&y={y}&w={w}'")
        self.rest()

    def overlay(self, x: float, y: float) -> list[int]:
        """Colour and opacity of what lies over a point of the slide."""
        px, py = self.at(x, y)
        pixels = "(() => { const b = document.querySelector('canvas.overlay').getBoundingClientRect();"
        found: list[int] = self.browser.run(
            f"{pixels} return [...{_COPY}.getImageData({px} - b.left, {py} - b.top, 1, 1).data] }})()"
        )
        return found

    def ink(self) -> int:
        """How much is laid over the slide, all in all."""
        return int(
            self.browser.run(
                f"(() => {{ const c = {_COPY}, d = c.getImageData(0, 0, c.canvas.width, c.canvas.height).data;"
                " let sum = 0; for (let i = 3; i < d.length; i += 4) sum += d[i] * (1 + i % 251); return sum })()"
            )
        )

    def painted(self) -> None:
        """Wait until what was asked for is on the screen."""
        self.browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def patches(self, slide_id: str) -> list[dict[str, str]]:
        with (self.run / slide_id / "patches.csv").open() as stream:
            return list(csv.DictReader(stream))

    def api(self, path: str) -> Any:
        return httpx.get(self.address + path, timeout=60).json()

    def quiet(self) -> None:
        """Nothing was complained of, and nobody else was asked for anything."""
        assert self.browser.complaints == []
        hosts = {urlsplit(url).netloc for url in self.browser.requested if url.startswith("http")}
        assert hosts <= {urlsplit(self.address).netloc}


@pytest.fixture(scope="module")
def reviewed(review_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server before a copy of the run that these tests may write to."""
    run = Path(shutil.copytree(review_run, tmp_path_factory.mktemp("reviewed") / "run"))
    with serving(ReviewRun(run), Access.to("127.0.0.1")) as address:
        yield address, run


@pytest.fixture
def reader(browser: Browser, reviewed: tuple[str, Path]) -> Iterator[Reader]:
    address, run = reviewed
    for journal in run.glob("reviews.sqlite*"):
        journal.unlink()
    browser.requested.clear()
    browser.complaints.clear()
    browser.resize(*SIZE)
    browser.move(1, 1)
    yield Reader(browser, address, run)
    browser.run("localStorage.clear(); sessionStorage.clear()")


# --- worklist


def test_the_worklist_shows_all_slides_sorts_them_by_every_column_and_opens_one(reader: Reader) -> None:
    reader.visit("/")
    names = "#rows tr[data-place] .name"
    assert reader.texts(names) == ["7_HER2", "12_HE", "12_HER2", "30_HER2"]
    assert reader.text("#counts") == "4 slides, 0 reviewed"
    assert "research use only" in reader.text(".ruo").lower()
    rows = {row["slide_id"]: row for row in reader.api("/api/run")["slides"]}
    heads = reader.browser.run("[...document.querySelectorAll('#heads th')].map(th => th.dataset.name)")
    assert len(heads) == 14
    for name in heads:
        for way in ("ascending", "descending"):
            reader.browser.run(f"document.querySelector('th[data-name={name}] button').click()")
            seen = reader.browser.run(f"document.querySelector('th[data-name={name}]').ariaSort")
            first = "descending" if name == "flagged" else "ascending"
            assert seen == (way if first == "ascending" else {"ascending": "descending"}.get(way, "ascending"))
    reader.browser.run("document.querySelector('th[data-name=h_score] button').click()")
    order = reader.texts(names)
    known = [rows[name]["h_score"] for name in order if rows[name]["h_score"] is not None]
    assert known == sorted(known)
    assert order[-1] == "12_HE"
    assert "sort=h_score" in reader.browser.run("location.hash")
    reader.reload()
    assert reader.texts(names) == order
    reader.browser.press("Home")
    reader.press("jk")
    reader.browser.press("Enter", "\r")
    reader.browser.until("location.pathname.startsWith('/slide/') && document.documentElement.dataset.ready")
    assert reader.text("#name") == order[0]
    assert reader.text("#position") == "1 of 4"
    reader.press("j")
    reader.browser.until("document.getElementById('position').textContent === '2 of 4'")
    assert reader.text("#name") == order[1]
    reader.browser.until("document.documentElement.dataset.ready === 'true'")
    reader.press("w")
    reader.browser.until("location.pathname === '/' && document.querySelector('#rows .name') !== null")
    assert reader.texts(names) == order
    reader.quiet()


def test_filters_count_what_they_would_show_and_stand_in_the_address(reader: Reader) -> None:
    reader.visit("/")
    call_of = {row["slide_id"]: row["her2_score"] for row in reader.api("/api/run")["slides"]}
    calls, score = list(call_of.values()), call_of["30_HER2"]
    shown = dict(
        zip(
            reader.browser.run("[...document.querySelectorAll('[data-facet=call]')].map(b => b.dataset.value)"),
            reader.texts("[data-facet=call] small"),
            strict=True,
        )
    )
    assert shown[score] == str(calls.count(score))
    assert shown["not assessable"] == "1"
    reader.press(score[0])
    reader.browser.until(f"location.hash.includes('call={score[0]}')")
    assert len(reader.texts("#rows tr[data-place]")) == calls.count(score)
    reader.press("/")
    reader.press("30_her2")
    reader.browser.until("location.hash.includes('q=30_her2')")
    assert reader.texts("#rows .name") == ["30_HER2"]
    address = reader.browser.run("location.href")
    reader.browser.press("Escape")
    reader.browser.press("Escape")
    reader.browser.until("document.querySelectorAll('#rows .name').length === 4")
    reader.browser.back()
    reader.browser.until("document.querySelectorAll('#rows .name').length === 1")
    assert reader.browser.run("location.href") == address
    assert reader.browser.run("document.getElementById('text').value") == "30_her2"
    reader.quiet()


def test_thousands_of_slides_stay_quick_because_only_what_is_seen_is_drawn(reader: Reader) -> None:
    run = reader.api("/api/run")
    scores = ("0", "1+", "2+", "3+")
    one = next(row for row in run["slides"] if row["slide_id"] == "7_HER2")
    run["slides"] = [
        {**one, "slide_id": f"case {n}", "her2_score": scores[n % 4], "h_score": float(n * 7919 % 301)}
        for n in range(8000)
    ]
    answer = f"const many = {json.dumps(json.dumps(run))}, real = fetch;" + (
        "window.fetch = (path, how) => String(path) === '/api/run'"
        " ? Promise.resolve(new Response(many)) : real(path, how)"
    )
    with reader.browser.beforehand(answer):
        reader.visit("/")
        assert reader.text("#counts") == "8,000 slides, 0 reviewed"
        assert len(reader.texts("#rows tr[data-place]")) < 80
        took = reader.browser.run(
            "(() => { const t = performance.now(); document.querySelector('th[data-name=h_score] button').click();"
            " document.body.offsetHeight; return performance.now() - t })()"
        )
        assert took < 700
        reader.browser.press("End")
        assert reader.browser.run("document.activeElement.closest('tr').ariaRowIndex") == "8001"
        assert reader.browser.run(
            "(() => { const t = document.getElementById('table').getBoundingClientRect();"
            " const r = document.activeElement.getBoundingClientRect();"
            " return r.top >= t.top && r.bottom <= t.bottom })()"
        )
    reader.quiet()


# --- looking


def test_the_scale_bar_and_the_magnification_are_true_and_follow_the_zoom(reader: Reader) -> None:
    reader.visit("/slide/7_HER2")
    mpp = reader.api("/api/slides/7_HER2")["mpp"]
    for number, magnification in enumerate((5, 10, 20), start=1):
        reader.browser.press(str(number), shift=True)
        reader.browser.until(f"document.getElementById('magnification').textContent === '{magnification}×'")
        place = reader.place()
        width, bar = reader.browser.run(
            "[document.getElementById('slide').clientWidth, document.getElementById('bar').clientWidth + 4]"
        )
        um_per_px = place["w"] * mpp / width
        assert um_per_px == pytest.approx(10 / magnification, rel=0.01)
        label = reader.text("#bar-label").replace("\N{NO-BREAK SPACE}", " ")
        length, unit = label.split()
        assert float(length) * {"µm": 1, "mm": 1000}[unit] == pytest.approx(bar * um_per_px, rel=0.03)
    # More room shows more of the slide, not a larger one.
    reader.press("i")
    reader.rest()
    assert reader.text("#magnification") == "20×"
    assert reader.place()["w"] > place["w"]
    before = reader.place()
    reader.browser.wheel(500, 400, -240)
    assert reader.place()["w"] < before["w"]
    reader.press("r")
    assert reader.place()["r"] == 90
    reader.quiet()


def test_each_overlay_changes_what_lies_over_the_slide_and_classes_have_their_colours(reader: Reader) -> None:
    reader.visit("/slide/30_HER2")
    scored = [patch for patch in reader.patches("30_HER2") if patch["label"] != "other"]
    patch = scored[len(scored) // 2]
    side = int(patch["width"])
    reader.look_at(int(patch["x"]) + side / 2, int(patch["y"]) + side / 2, 1500)
    middle = (int(patch["x"]) + side / 2 + 3, int(patch["y"]) + side / 2 + 3)
    red, green, blue, alpha = reader.overlay(*middle)
    assert np.abs(np.array([red, green, blue]) - CLASS_COLOURS[patch["label"]]).max() <= 12
    assert 0 < alpha < 200
    for key, name in (("p", "probability"), ("c", "classes"), ("t", "tissue"), ("c", "classes")):
        before, on = reader.ink(), f"document.getElementById('layer-{name}').checked"
        was = reader.browser.run(on)
        reader.press(key)
        assert reader.browser.run(on) is not was
        reader.painted()
        assert reader.ink() != before, name
    reader.browser.press("3", shift=True)
    reader.browser.until("document.getElementById('magnification').textContent === '20×'")
    before = reader.ink()
    reader.press("n")
    reader.browser.until("document.getElementById('layer-cells').closest('li').innerText.includes('here')")
    reader.painted()
    assert reader.ink() != before
    before = reader.ink()
    reader.browser.hold(" ", " ")
    reader.painted()
    assert reader.ink() == 0
    reader.browser.release(" ")
    reader.painted()
    assert reader.ink() == before
    reader.press(",,")
    reader.painted()
    assert reader.ink() < before
    reader.quiet()


def test_the_scale_of_probabilities_rises_in_lightness_all_the_way(reader: Reader) -> None:
    reader.visit("/")
    scale = np.array(reader.browser.run("import('/static/colour.js').then(m => [...m.SCALE])")).reshape(-1, 3)
    unit = scale / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    # A step of one in 256 may be lost to whole numbers, four are not.
    assert (np.diff((linear @ (0.2126, 0.7152, 0.0722))[::4]) > 0).all()


def test_a_patch_under_the_pointer_or_the_crosshair_tells_its_numbers(reader: Reader) -> None:
    reader.visit("/slide/7_HER2")
    patches = reader.patches("7_HER2")
    for patch in patches[:: max(1, len(patches) // 3)]:
        side, names = int(patch["width"]), [name for name in patch if name.startswith("prob_")]
        centre = int(patch["x"]) + side / 2, int(patch["y"]) + side / 2
        reader.browser.move(*reader.at(*centre))
        reader.browser.until(
            f"document.querySelector('#reading .place')?.textContent === '{patch['x']}, {patch['y']}'"
        )
        shown = [float(text.replace("\N{NO-BREAK SPACE}%", "")) for text in reader.texts("#reading .bar-value")]
        assert shown == pytest.approx([100 * float(patch[name]) for name in names], abs=0.06)
        assert f"tissue {100 * float(patch['tissue']):.0f}" in reader.text("#reading")
    reader.browser.move(1, 1)
    reader.browser.until("document.getElementById('reading').hidden")
    patch = patches[0]
    reader.look_at(int(patch["x"]) + 5, int(patch["y"]) + 5, 900)
    reader.press("q")
    reader.browser.until(f"document.querySelector('#reading .place').textContent === '{patch['x']}, {patch['y']}'")
    reader.says(f"{'not tumour' if patch['label'] == 'other' else patch['label']}: ")
    reader.quiet()


def test_hot_spots_lead_to_where_most_stains_and_back_leads_away(reader: Reader) -> None:
    reader.visit("/slide/7_HER2")
    home = reader.place()
    reader.press("h")
    reader.says("Hot spot 1 of")
    spot = reader.place()
    patches = reader.patches("7_HER2")
    staining = [
        sum(k * float(patch[f"prob_{name}"]) for k, name in enumerate(("0", "1+", "2+", "3+")))
        for patch in patches
    ]
    near = [
        s for s, p in zip(staining, patches, strict=True)
        if math.hypot(int(p["x"]) + 80 - spot["x"], int(p["y"]) + 80 - spot["y"]) < 420
    ]  # fmt: skip
    assert np.mean(near) > np.mean(staining)
    reader.browser.back()
    reader.browser.until(
        f"Math.abs(Number(new URLSearchParams(location.hash.slice(1)).get('x')) - {home['x']}) < 2"
    )
    assert reader.place()["w"] == pytest.approx(home["w"], rel=0.02)
    reader.visit(f"/slide/7_HER2#x={spot['x']:.0f}&y={spot['y']:.0f}&w=800")
    assert reader.place()["w"] == pytest.approx(800, rel=0.01)
    reader.quiet()


# --- signing


def test_a_slide_is_signed_from_the_keyboard_alone_and_signing_again_adds_to_it(reader: Reader) -> None:
    reader.visit("/slide/7_HER2")
    reader.press("m")
    reader.press("as expected: 2 pieces")
    reader.browser.press("Tab")
    assert reader.browser.run("document.activeElement.id") == "reviewer"
    reader.press(READER)
    reader.browser.press("Escape")
    # Nothing that was typed was taken for a key.
    assert reader.browser.run("document.getElementById('sign').disabled") is True
    reader.press("3")
    assert reader.texts("#says .say") == ["Software says\n3+", "You agree\n3+"]
    reader.browser.press("Enter", "\r")
    reader.says(f"Signed by {READER}")
    reader.press("1")
    assert reader.texts("#says .say") == ["Software says\n3+", "You overrule\n1+"]
    reader.browser.press("ArrowDown")
    reader.browser.press("Tab")
    reader.press("faint")
    reader.browser.press("Enter", "\r", ctrl=True)
    reader.browser.until("document.querySelectorAll('#history li').length === 2")
    reader.reload()
    newest, first = reader.texts("#history li")
    assert READER in newest
    assert "overruled" in newest
    assert "1+" in newest
    assert "faint" in newest
    assert "as expected: 2 pieces" in first
    assert "agreed" in first
    assert "overruled" in reader.text("#state")
    kept = reader.api("/api/slides/7_HER2")["reviews"]
    assert [(r["verdict"], r["score"], r["called"]) for r in kept] == [
        ("overrule", "1+", "3+"),
        ("agree", "3+", "3+"),
    ]
    assert kept[0]["reason"] in reader.api("/api/run")["reasons"]
    reader.visit("/#review=overrule")
    assert reader.texts("#rows .name") == ["7_HER2"]
    assert READER in reader.text("#rows td.review")
    assert reader.text("#rows td.review .chip") == "1+"
    reader.quiet()


def test_what_is_not_signed_yet_is_dropped_by_escape_and_survives_another_slide(reader: Reader) -> None:
    reader.visit("/slide/12_HER2")
    reader.press("0")
    reader.browser.press("Escape")
    reader.press("u")
    assert "You are unsure" in reader.text("#says")
    reader.browser.press("Escape")
    assert "not signed" in reader.text("#says")
    reader.press("0")
    reader.visit("/slide/30_HER2")
    assert "not signed" in reader.text("#says")
    reader.visit("/slide/12_HER2")
    assert "You overrule" in reader.text("#says")
    reader.browser.press("Enter", "\r")
    reader.browser.until("document.activeElement.id === 'reviewer'")
    assert reader.api("/api/slides/12_HER2")["reviews"] == []
    reader.quiet()


def test_a_review_of_an_earlier_result_is_told_from_one_of_this_result(reader: Reader) -> None:
    said = {"slide_id": "12_HER2", "reviewer": READER, "verdict": "agree", "called": "2+"}
    journal = Journal(reader.run / "reviews.sqlite")
    journal.add_review(NewReview(**said, fingerprint="0f" * 32))
    reader.visit("/slide/12_HER2")
    assert "of an earlier result" in reader.text("#history li")
    assert "earlier result" in reader.text("#state")
    now = read_result(reader.run / "12_HER2")
    assert now is not None
    journal.add_review(NewReview(**said, fingerprint=now.fingerprint))
    reader.reload()
    assert "earlier" not in reader.text("#history li")
    assert "earlier" not in reader.text("#state")


def test_a_slide_without_a_call_says_why_and_can_be_agreed_with(reader: Reader) -> None:
    reader.visit("/slide/12_HE")
    assert "eosin" in reader.text("#call")
    assert reader.texts("#says .say")[0] == "Software says\nnot assessable"
    reader.browser.run(f"document.getElementById('reviewer').value = {json.dumps(READER)}")
    reader.press("a")
    reader.browser.press("Enter", "\r")
    reader.browser.until("document.querySelectorAll('#history li').length === 1")
    assert reader.api("/api/slides/12_HE")["reviews"][0]["score"] is None
    reader.quiet()


# --- drawing


def square_that_matters(run: Path) -> tuple[str, list[tuple[int, int]], str, str]:
    """A slide, a square (level-0 pixels) without which its call is another, that call and the other.

    A few pixels more or less do not matter, since a mouse does not hit a corner exactly.
    """
    for name in ("30_HER2", "12_HER2", "7_HER2"):
        result = read_result(run / name)
        assert result is not None
        assert result.call is not None
        was = result.call.score
        for left, top, side in product(range(300, 1000, 50), range(200, 750, 50), (300, 400)):
            right, bottom = left + side, top + side
            squares = [
                [(left - d, top - d), (right + d, top - d), (right + d, bottom + d), (left - d, bottom + d)]
                for d in (-8, 0, 8)
            ]
            calls = [rescore(run / name, result, [Region("exclude", (tuple(square),))]).call for square in squares]
            scores = {call.score if call is not None else was for call in calls}
            if len(scores) == 1 and was not in scores:
                return name, squares[1], was, scores.pop()
    raise AssertionError("no call of the run changes where a part of the slide is left out")


def test_an_exclusion_drawn_with_the_mouse_changes_the_call_and_a_reload_finds_it(reader: Reader) -> None:
    slide, square, was, now = square_that_matters(reader.run)
    middle = np.mean(square, axis=0).tolist()
    reader.visit(f"/slide/{slide}")
    reader.browser.run(f"document.getElementById('reviewer').value = {json.dumps(READER)}")
    corners = [reader.at(*corner) for corner in square]
    reader.browser.run("document.getElementById('draw-exclude').click()")
    for corner in corners:
        reader.browser.click(*corner)
    reader.browser.click(*corners[0])
    reader.says(f"With your regions: {now}, was {was}")
    assert reader.texts("#redrawn .old-new .chip") == [was, now]
    drawn = reader.api(f"/api/slides/{slide}")["drawn"]
    ring = np.array(drawn["features"][0]["geometry"]["coordinates"][0])
    assert drawn["features"][0]["properties"]["name"] == "exclude"
    assert np.abs(ring[:4] - square).max() <= 3
    answer = httpx.post(
        f"{reader.address}/api/slides/{slide}/rescore",
        json={"regions": drawn},
        headers={"origin": reader.address},
        timeout=60,
    ).json()
    for name, shown in zip(answer["call"]["percentages"], reader.texts("#redrawn td:nth-child(3)"), strict=True):
        assert shown == f"{answer['call']['percentages'][name]['value']:.1f}\N{NO-BREAK SPACE}%"
    alpha = reader.overlay(*middle)[3]
    reader.reload()
    reader.browser.until(f"document.querySelector('#redrawn .old-new')?.innerText.includes('{now}')")
    assert reader.overlay(*middle)[3] == alpha
    # What is signed now says with which regions, and what the software made of them.
    reader.press("1")
    reader.browser.press("Enter", "\r")
    reader.says("Signed by")
    assert reader.api(f"/api/slides/{slide}")["reviews"][0]["rescored"] == now
    reader.browser.click(*reader.at(*middle))
    reader.browser.until("document.querySelector('#redrawn .chosen') !== null")
    reader.browser.press("Delete")
    reader.browser.until("document.getElementById('redrawn').hidden")
    reader.browser.press("z", ctrl=True)
    reader.browser.until(f"document.querySelector('#redrawn .old-new')?.innerText.includes('{now}')")
    assert len(reader.api(f"/api/slides/{slide}")["drawn"]["features"]) == 1
    reader.quiet()


def test_an_outline_can_be_drawn_free_hand_or_with_keys(reader: Reader) -> None:
    reader.visit("/slide/7_HER2")
    x, y = reader.at(750, 625)
    circle = [(x + 90 * math.cos(a), y + 90 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 40)]
    reader.press("s")
    reader.browser.drag(circle)
    reader.browser.until("document.querySelectorAll('#redrawn .regions li').length === 1")
    # What is drawn is kept under a name, and waits for one.
    reader.browser.until("document.activeElement.id === 'reviewer'")
    assert reader.api("/api/slides/7_HER2")["drawn"]["features"] == []
    reader.press(READER)
    reader.browser.press("Escape")
    reader.browser.move(1, 1)
    reader.press("d")
    before = reader.place()
    reader.press("  ")
    reader.browser.press("ArrowRight")
    reader.rest()
    reader.press(" ")
    reader.browser.press("ArrowDown")
    reader.rest()
    reader.press(" ")
    assert reader.place()["x"] > before["x"]
    reader.browser.press("Enter", "\r")
    reader.browser.until("document.querySelectorAll('#redrawn .regions li').length === 2")
    reader.browser.until("document.querySelector('#redrawn .old-new, #redrawn .flagged') !== null")
    kept = reader.api("/api/slides/7_HER2")["drawn"]["features"]
    assert [feature["properties"]["name"] for feature in kept] == ["score", "exclude"]
    assert len(kept[1]["geometry"]["coordinates"][0]) == 4
    radius = np.hypot(*(np.array(kept[0]["geometry"]["coordinates"][0]) - (750, 625)).T)
    assert radius.std() < 0.05 * radius.mean()
    reader.press("d")
    reader.browser.press("Escape")
    assert reader.browser.run("document.getElementById('draw-exclude').ariaPressed") == "false"
    reader.quiet()


# --- two stains


def test_the_other_stain_moves_along_and_keeps_its_own_shift(reader: Reader) -> None:
    reader.visit("/slide/12_HER2")
    reader.press("o")
    reader.browser.until("!document.getElementById('beside-view').hidden")
    reader.says("moved together")
    reader.browser.press("3", shift=True)
    reader.browser.until("document.getElementById('beside-magnification').textContent === '20×'")
    assert "with=12_HE" in reader.browser.run("location.hash")
    picture = "document.querySelector('#beside-slide canvas').toDataURL()"
    before = reader.browser.run(picture)
    reader.browser.press("ArrowRight")
    reader.rest()
    moved = reader.browser.run(picture)
    assert moved != before
    # The slide beside is dragged alone, and keeps the shift when both move.
    place = reader.place()
    box = reader.browser.run(
        "(() => { const b = document.getElementById('beside-slide').getBoundingClientRect();"
        " return [b.left + b.width / 2, b.top + b.height / 2] })()"
    )
    reader.browser.drag([(box[0], box[1]), (box[0] + 30, box[1] + 10), (box[0] + 60, box[1] + 20)], shift=True)
    assert reader.place() == pytest.approx(place)
    shift = json.loads(reader.browser.run("localStorage.getItem('wsi-her2.pair.12_HER2|12_HE')"))
    mpp = reader.api("/api/slides/12_HE")["mpp"]
    assert shift["x"] == pytest.approx(-30, abs=2 * mpp + 1)
    assert shift["y"] == pytest.approx(-10, abs=2 * mpp + 1)
    # Where the pointer rests does not matter to keys.
    before = reader.browser.run(picture)
    reader.browser.press("ArrowLeft")
    reader.rest()
    assert reader.browser.run(picture) != before
    reader.press("y")
    assert reader.text("#linked") == "Not linked"
    alone = reader.browser.run(picture)
    reader.browser.press("ArrowRight")
    reader.rest()
    assert reader.browser.run(picture) == alone
    reader.reload()
    reader.browser.until("!document.getElementById('beside-view').hidden")
    reader.press("o")
    reader.browser.until("document.getElementById('beside-view').hidden")
    reader.quiet()


# --- everybody


def test_every_key_is_listed_and_none_acts_while_somebody_types(reader: Reader) -> None:
    reader.visit("/slide/7_HER2")
    reader.press("m")
    reader.press("hjkwcptgnxaud0123")
    assert reader.browser.run("document.getElementById('comment').value") == "hjkwcptgnxaud0123"
    assert reader.browser.run("location.pathname") == "/slide/7_HER2"
    assert "not signed" in reader.text("#says")
    reader.browser.press("Escape")
    reader.press("?")
    listed = set(reader.texts("#keys kbd"))
    for key in "JKWOYFRHQICPTGNXLAUMDS":
        assert key in listed
    reader.press("j")
    assert reader.browser.run("location.pathname") == "/slide/7_HER2"
    reader.browser.press("Escape")
    assert reader.browser.run("document.getElementById('help').open") is False
    # Whoever dictates or leans on the keyboard can switch single keys off.
    reader.press("?")
    reader.browser.run("document.getElementById('keys-on').click()")
    reader.browser.press("Escape")
    reader.press("a")
    assert "not signed" in reader.text("#says")
    reader.quiet()


@pytest.mark.parametrize(
    ("scheme", "pages"),
    [
        ("light", [("/", ""), ("/slide/12_HER2", "o1pn"), ("/slide/12_HE", "a"), ("/slide/7_HER2", "?")]),
        # Colours are all that is different.
        ("dark", [("/", ""), ("/slide/12_HER2", "o1pn")]),
    ],
)
def test_no_page_keeps_anybody_out(reader: Reader, scheme: str, pages: list[tuple[str, str]]) -> None:
    source = AXE.read_text()
    reader.browser.prefer(color_scheme=scheme)
    try:
        for path, keys in pages:
            reader.visit(path)
            reader.press(keys)
            reader.browser.run("new Promise(done => setTimeout(done, 400))")
            reader.browser.run(source + "; 0")
            found = reader.browser.run(
                "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v =>"
                " [v.impact, v.id, v.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary).slice(0, 3)]))"
            )
            assert [each for each in found if each[0] in ("serious", "critical")] == [], (path, keys)
    finally:
        reader.browser.prefer()


@pytest.mark.parametrize("size", [(1280, 720), (3840, 2160)])
def test_pages_fit_their_screen_and_every_control_can_be_reached(reader: Reader, size: tuple[int, int]) -> None:
    reader.browser.resize(*size)
    hidden = (
        "[...document.querySelectorAll('button, a, input, select, textarea, summary')]"
        ".filter(e => e.checkVisibility({visibilityProperty: true}) && !e.closest('.panel-scroll, .table'))"
        ".filter(e => { const b = e.getBoundingClientRect();"
        " return b.left < 0 || b.top < 0 || b.right > innerWidth + 1 || b.bottom > innerHeight + 1 })"
        ".map(e => e.id || e.textContent)"
    )
    for path, keys in (("/", ""), ("/slide/12_HER2", "1"), ("/slide/12_HER2", "o")):
        reader.visit(path)
        reader.press(keys)
        reader.painted()
        assert reader.browser.run("document.documentElement.scrollWidth") <= size[0]
        assert reader.browser.run("document.documentElement.scrollHeight") <= size[1]
        assert reader.browser.run(hidden) == []
        letters = reader.browser.run("parseFloat(getComputedStyle(document.body).fontSize)")
        assert letters >= (14 if size[0] < 2000 else 20)
    reader.quiet()


def test_a_slide_that_is_not_there_says_so(reader: Reader) -> None:
    reader.browser.open(f"{reader.address}/slide/{quote('no such <b>slide')}")
    reader.browser.until("!document.getElementById('trouble').hidden")
    assert "no such <b>slide" in reader.text("#trouble-text")
    assert reader.browser.run("document.querySelector('#name b')") is None


def test_a_slide_whose_file_has_gone_shows_what_the_run_kept_and_can_be_signed(
    browser: Browser, run_copy: Path
) -> None:
    kept = run_copy / "7_HER2" / "result.json"
    result = json.loads(kept.read_text())
    kept.write_text(json.dumps({**result, "path": "/no/such/7_HER2.tif"}))
    browser.requested.clear()
    browser.complaints.clear()
    with serving(ReviewRun(run_copy, reviewer=READER), Access.to("127.0.0.1")) as address:
        reader = Reader(browser, address, run_copy)
        reader.visit("/slide/7_HER2")
        assert "no longer there" in reader.text("#no-view")
        reader.browser.until("document.querySelector('#no-view img').naturalWidth > 100")
        assert reader.texts("#says .say")[0] == "Software says\n3+"
        reader.press("dhcra")
        reader.browser.press("Enter", "\r")
        reader.says(f"Signed by {READER}")
        reader.visit("/")
        assert "no file" in reader.text("#rows tr[data-place]:first-child")
        reader.quiet()


def test_panning_stays_smooth_under_twenty_thousand_patches(reader: Reader) -> None:
    columns, rows = 200, 100
    side = 7
    n = columns * rows
    classes = ["other", "0", "1+", "2+", "3+"]
    header = json.dumps({"n": n, "classes": classes, "side_px0": side, "refused_reasons": ["noise"]}).encode()
    header += b" " * (-len(header) % 4)
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), n).astype("<f4")
    label = probabilities.argmax(1).astype(np.uint8)
    label[::50] = 255
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2).astype("<i4") * side
    body = struct.pack("<I", len(header)) + header + grid.tobytes() + np.ones(n, "<f4").tobytes()
    body += probabilities.tobytes() + label.tobytes() + np.where(label == 255, 0, 255).astype(np.uint8).tobytes()
    answer = (
        f"const packed = Uint8Array.from(atob('{b64encode(body).decode()}'), c => c.charCodeAt(0));"
        "const real = fetch; window.fetch = (path, how) => String(path).endsWith('/patches')"
        " ? Promise.resolve(new Response(packed)) : real(path, how)"
    )
    with reader.browser.beforehand(answer):
        reader.visit("/slide/7_HER2")
        reader.browser.press("2", shift=True)
        reader.rest()
        before = reader.ink()
        reader.press("x")
        reader.painted()
        assert 0 < reader.ink() < before
        reader.press("x")
        with_them = _pan(reader)
        reader.press("cx")
        without = _pan(reader)
    print(f"frames of panning, ms: {with_them} with the overlay, {without} without it")  # noqa: T201
    assert with_them["median"] < max(50, 2 * without["median"])
    assert with_them["worst"] < max(400, 3 * without["worst"])


def _pan(reader: Reader) -> dict[str, float]:
    """Milliseconds between frames while the slide is dragged about."""
    reader.browser.run(
        "window.frames = []; window.panning = true; window.last = 0; (function frame(now) {"
        " if (last) frames.push(now - last); last = now || 0; if (panning) requestAnimationFrame(frame) })()"
    )
    for angle in (0.3, 0.3 + math.pi):
        path = [(480 + k * 5 * math.cos(angle), 380 + k * 5 * math.sin(angle)) for k in range(40)]
        reader.browser.drag(path)
    taken = reader.browser.run("window.panning = false; frames.filter(ms => ms > 0)")
    reader.rest()
    return {"median": float(np.median(taken)), "worst": float(max(taken))}
