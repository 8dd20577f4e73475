"""Pictures of the review pages for the documentation: of digital slides that are drawn, scored and reviewed here.

    python benchmarks/review_screenshots.py -o docs [--work bench-out/review-screenshots]

Writes `review_worklist.png`, `review_slide.png` and `review_side_by_side.png`, each below 400 kB. It needs
Chromium (see `tests/reports/browser.py`). Slides and results are kept in the folder of `--work` and used again;
reviews are made anew. Names and reviews are made up.
"""

from __future__ import annotations

import argparse
import io
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.cluster import available_cores
from pipelines.configuration import load_config
from pipelines.review.access import Access
from pipelines.review.app import create_app
from pipelines.review.run_folder import ReviewRun
from pipelines.review.server import listening_on, server_of
from pipelines.run.score import score
from tests.reports.browser import HOW_TO_GET_ONE, Browser, browser_program
from wsi_her2.phantom import PhantomSpec, render_phantom
from wsi_her2.reports.palette import CLASS_COLOURS

SIZE = (1280, 720)
MOST_BYTES = 400_000

_SMALL = PhantomSpec(score="0", width_mm=0.8, height_mm=0.8, look="nanozoomer")
_MIXED = PhantomSpec(
    score=None,
    class_fractions=(0.42, 0.22, 0.28, 0.08),
    clustering=1.0,
    width_mm=2.2,
    height_mm=1.5,
    seed=31,
    look="nanozoomer",
    outline="resection",
)

SLIDES = {
    "24-0398 HER2": replace(_SMALL, seed=41),
    "24-0401 HER2": replace(_SMALL, score="3+", seed=42, look="aperio"),
    "24-0402 HER2": replace(_SMALL, score="1+", seed=43),
    "24-0407 HER2": _MIXED,
    "24-0407 HE": replace(_MIXED, modality="he"),
    "24-0409 HER2": replace(_SMALL, score="2+", seed=44, look="bluish"),
    "24-0413 HER2": replace(_SMALL, score="1+", seed=45, artefacts=("pen",)),
    "24-0415 HER2": replace(_SMALL, score="3+", seed=46, clustering=1.0),
    "24-0418 HER2": replace(_SMALL, score="2+", seed=47),
    "24-0420 HER2": replace(_SMALL, score=None, class_fractions=(0.7, 0.12, 0.1, 0.08), seed=48, clustering=1.0),
}
"""File stem to what is drawn; two are sections of one block."""

SHOWN = "24-0407 HER2"

EXCLUDED = (
    ((500, 440), (560, 412), (640, 415), (655, 470), (650, 560), (610, 606), (530, 606), (490, 560)),
    ((330, 290), (365, 255), (480, 255), (505, 300), (500, 345), (478, 405), (440, 405), (330, 390)),
)
"""Outlines on it, points of the window: two clusters of intense staining."""

REVIEWS = {
    "24-0398 HER2": {"verdict": "agree", "reviewer": "A. Weber"},
    "24-0401 HER2": {"verdict": "agree", "reviewer": "A. Weber"},
    "24-0402 HER2": {
        "verdict": "unsure",
        "reviewer": "T. Okafor",
        "comment": "Crushed at the edge; look at a deeper section.",
    },
    "24-0413 HER2": {"verdict": "agree", "reviewer": "T. Okafor"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("bench-out/review-screenshots"))
    given = parser.parse_args()
    program = browser_program()
    if program is None:
        sys.exit(HOW_TO_GET_ONE)
    given.output.mkdir(parents=True, exist_ok=True)
    run = make_run(given.work)
    for journal in run.glob("reviews.sqlite*"):
        journal.unlink()
    with serving(run) as address, Browser(program) as browser:
        browser.resize(*SIZE)
        review(address)
        for name, take in (("side_by_side", show_both), ("slide", show_slide), ("worklist", show_worklist)):
            take(browser, address)
            path = given.output / f"review_{name}.png"
            path.write_bytes(fitted(browser.picture()))
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def make_run(work: Path) -> Path:
    """Draw and score what has not been drawn and scored yet."""
    slides = work / "slides"
    slides.mkdir(parents=True, exist_ok=True)
    for name, spec in SLIDES.items():
        path = slides / f"{name}.tif"
        if not path.exists():
            render_phantom(spec, path, workers=available_cores(), cell_format="parquet")
    score([slides / f"{name}.tif" for name in SLIDES], work / "run", load_config(None))
    return work / "run"


@contextmanager
def serving(run: Path) -> Iterator[str]:
    """The address of a server before a run."""
    with listening_on("127.0.0.1", 0) as listening:
        server = server_of(create_app(ReviewRun(run, reviewer="A. Weber"), Access.to("127.0.0.1")))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def review(address: str) -> None:
    """Sign some slides as readers do; one is overruled, whatever its call is."""
    with httpx.Client(base_url=address, headers={"origin": address}, timeout=60) as client:
        for name, said in REVIEWS.items():
            client.post(f"/api/slides/{quote(name)}/reviews", json=said).raise_for_status()
        called = {row["slide_id"]: row["her2_score"] for row in client.get("/api/run").json()["slides"]}
        name = "24-0420 HER2"
        other = "1+" if called[name] == "2+" else "2+"
        said = {"verdict": "overrule", "score": other, "reason": "border case", "reviewer": "T. Okafor"}
        client.post(f"/api/slides/{quote(name)}/reviews", json=said).raise_for_status()


def visit(browser: Browser, address: str) -> None:
    """Open a page and wait until all of it is there."""
    browser.open(address)
    browser.until("document.documentElement.dataset.ready === 'true'")
    settle(browser)


def settle(browser: Browser) -> None:
    """Wait until tiles have come and announcements have gone."""
    time.sleep(2)
    browser.run("document.getElementById('announcement').classList.remove('shown')")
    time.sleep(0.4)


def show_slide(browser: Browser, address: str) -> None:
    """Classes, a patch under the pointer, a drawn exclusion and the call with it, a verdict not yet signed."""
    visit(browser, f"{address}/slide/{quote(SHOWN)}")
    for number, outline in enumerate(EXCLUDED, start=1):
        browser.run("document.getElementById('draw-exclude').click()")
        browser.drag([*outline, outline[0]])
        browser.until(f"document.querySelectorAll('#redrawn .regions li').length === {number}")
        browser.until("document.querySelector('#redrawn .old-new') !== null")
    browser.press("2", "2")
    browser.move(205, 505)
    settle(browser)


def show_both(browser: Browser, address: str) -> None:
    """The two stains of a block at one place."""
    visit(browser, f"{address}/slide/{quote(SHOWN)}#with={quote('24-0407 HE')}")
    for key in "hc":
        browser.press(key, key)
    browser.move(300, 420)
    settle(browser)
    browser.press("c", "c")
    browser.run("document.getElementById('announcement').classList.remove('shown')")


def show_worklist(browser: Browser, address: str) -> None:
    """All slides, one of them chosen."""
    visit(browser, f"{address}/")
    for _ in range(4):
        browser.press("j", "j")
    settle(browser)


def fitted(png: bytes) -> bytes:
    """A picture with no more colours than it may take room; those of the classes stay as they are."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    fixed = [*CLASS_COLOURS.values(), (255, 255, 255), (22, 33, 44), (255, 244, 220), (219, 232, 245)]
    for colours in (240, 192, 128, 96, 64, 48):
        found = picture.quantize(colours, Image.Quantize.MEDIANCUT).getpalette() or []
        palette = Image.new("P", (1, 1))
        palette.putpalette([*(value for colour in fixed for value in colour), *found[: 3 * colours]])
        stream = io.BytesIO()
        picture.quantize(palette=palette, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
        if stream.tell() <= MOST_BYTES:
            break
    return stream.getvalue()


if __name__ == "__main__":
    main()
