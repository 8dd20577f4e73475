"""A slide that is named or described like an attack stays a slide: nothing runs, nothing lands elsewhere."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.pipelines.conftest import ihc_pixels, rows

SCRIPT = '<script>document.title="taken"</script>'
MARKUP = "\"'><img src=x onerror='document.title=\"taken\"'><svg onload=document.title=1>"

STEMS = {
    "script": "<script>document.title='taken'<",
    "attribute": "\"'><img src=x onerror=document.title='taken'>",
    "formula": "=cmd|' -C calc'!A0",
    "dash": "-rf",
    "dots": "..",
    "long": "x" * 240,
    "lines": "a\nb\r\tc",
    "right to left": "gpj.\u202esvs\u2066 \u200b",
    "template": "{{7*7}}{% raw %}${7*7}#{7*7}",
    "shell": "$(touch taken)`touch taken`;&|",
    "link": "javascript:document.title='taken'",
    "comment": "--><!--]]>",
}
"""Stems that a file may have on a Linux disk, by what they try."""

SCORED = 3
"""How many of them, from the first on, are slides that can be scored."""


class Live(HTMLParser):
    """What a browser would act on: tags, attributes that run code, links that leave."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.live: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            leaves = name in ("href", "src", "action", "data") and ":" in (value or "")
            if name.startswith("on") or (leaves and not (value or "").startswith("data:image/")):
                self.live.append(f"{tag} {name}={value}")


def _describe(slide: Path, description: str) -> None:
    """Put text into the file's own description."""
    with tifffile.TiffFile(slide, mode="r+b") as file:
        tag = file.pages[0].tags.get("ImageDescription")  # type: ignore[union-attr]
        assert tag is not None
        tag.overwrite(description.encode())


def _write(path: Path) -> None:
    pixels = ihc_pixels()
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
        description="a description to be replaced",
        metadata=None,
    )


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run over hostile slides with hostile regions, in folders that are its own: where each of them is."""
    top = tmp_path_factory.mktemp("attack")
    places = {name: top / name for name in ("slides", "out", "home", "tmp", "cwd", "regions")}
    for place in places.values():
        place.mkdir()
    good = top / "good.tif"
    _write(good)
    _describe(good, f"Aperio {SCRIPT}|MPP = 0.5|AppMag = 20|{SCRIPT} = {MARKUP}|=1+1 = @x\r\n")
    for number, stem in enumerate(STEMS.values()):
        path = places["slides"] / f"{stem}.tif"
        if number < SCORED:
            shutil.copyfile(good, path)
        else:
            # Failures are rows and pages too, and cost no time.
            path.write_bytes(SCRIPT.encode() + b"\0" + MARKUP.encode())
    regions = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9000, 0], [9000, 9000], [0, 9000]]]},
        "properties": {"name": "tumour"},
    }
    ignored = {**regions, "properties": {"name": SCRIPT + MARKUP}}
    for stem in list(STEMS.values())[:SCORED]:
        (places["regions"] / f"{stem}.geojson").write_text(json.dumps([regions, ignored]))
    return {**places, "top": top}


def _everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def run(attacked: dict[str, Path]) -> tuple[dict[str, Path], set[str], subprocess.CompletedProcess[str]]:
    from tests.pipelines.conftest import cli_command

    before = _everything_below(attacked["top"])
    root = str(Path(__file__).resolve().parents[3])
    environment = {
        **os.environ,
        "HOME": str(attacked["home"]),
        "XDG_CONFIG_HOME": str(attacked["home"]),
        "TMPDIR": str(attacked["tmp"]),
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    # A name that begins with a dot is passed over in a folder, and used where it is given.
    inputs = (attacked["slides"], attacked["slides"] / f"{STEMS['dots']}.tif")
    arguments = ("score", *inputs, "-o", attacked["out"], "--roi", attacked["regions"], "--workers", 1)
    done = subprocess.run(
        cli_command(*arguments),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        cwd=attacked["cwd"],
        env=environment,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    appeared = _everything_below(attacked["top"]) - before
    return attacked, appeared, done


Run = tuple[dict[str, Path], set[str], subprocess.CompletedProcess[str]]


def test_nothing_is_written_outside_the_output_folder(run: Run) -> None:
    _, appeared, _ = run
    # Dask leaves two empty lock files in the folder for temporary files.
    outside = [name for name in sorted(appeared) if not name.startswith(("out/", "tmp/dask-scratch-space"))]
    assert outside == []


def test_every_slide_has_a_folder_below_the_output_and_a_row(run: Run) -> None:
    places, _, _ = run
    found = rows(places["out"])
    assert len(found) == len(STEMS)
    folders = {path.name for path in places["out"].iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert len(folders) == len(STEMS)
    statuses = [row["status"] for row in found.values()]
    assert statuses.count("failed") == len(STEMS) - SCORED


def test_no_page_holds_live_markup(run: Run) -> None:
    places, _, _ = run
    pages = sorted(places["out"].rglob("*.html"))
    assert len(pages) == len(STEMS) + 1
    for page in pages:
        text = page.read_text(encoding="utf-8")
        live = Live(text)
        # The page of the run has its rows beside its script, as data that no browser runs.
        of_data = text.count('<script type="application/json" id="data">')
        assert of_data == (page.name == "index.html"), page
        assert live.tags.count("script") == 1 + of_data, page
        assert live.live == [], page


def test_no_cell_of_the_table_is_a_formula_and_no_row_breaks(run: Run) -> None:
    places, _, _ = run
    with (places["out"] / "slides.csv").open(newline="", encoding="utf-8") as stream:
        table = list(csv.reader(stream))
    assert len({len(row) for row in table}) == 1
    assert len(table) == len(STEMS) + 1
    for row in table[1:]:
        assert [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))] == []


def test_files_for_programs_parse_and_say_nothing_of_the_description(run: Run) -> None:
    places, _, _ = run
    overlays = list(places["out"].rglob("overlay.geojson"))
    assert overlays
    for overlay in overlays:
        text = overlay.read_text(encoding="utf-8")
        assert json.loads(text)["type"] == "FeatureCollection"
        assert "<" not in text
    for result in places["out"].rglob("result.json"):
        json.loads(result.read_text(encoding="utf-8"))


def test_the_evaluation_of_such_a_run_holds_no_live_markup(run: Run, cli: Callable[..., object]) -> None:
    places, _, _ = run
    truth = places["top"] / "truth.csv"
    with truth.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["slide_id", "her2_score", "group"])
        for slide_id in rows(places["out"]):
            table.writerow([slide_id, "2+", SCRIPT])
        table.writerow([SCRIPT + MARKUP, "1+", MARKUP])
    done = cli("evaluate", places["out"], truth, "-o", places["top"] / "evaluation")
    assert done.returncode in (0, 1), done.stderr  # type: ignore[attr-defined]
    live = Live((places["top"] / "evaluation" / "evaluation.html").read_text(encoding="utf-8"))
    assert live.tags.count("script") == 1
    assert live.live == []


def test_no_script_of_a_slide_runs_in_a_browser(run: Run, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    places, _, _ = run
    ours = tmp_path / "ours.html"
    ours.write_text(f"<!doctype html><title>ours</title>{SCRIPT}")
    assert "<title>taken</title>" in _shown(browser, ours, tmp_path), "a script that is live must be seen to run"
    scored = [path for path in places["out"].glob("*/report.html") if (path.parent / "overlay.geojson").exists()]
    for page in (places["out"] / "index.html", *sorted(scored)[:2]):
        shown = _shown(browser, page, tmp_path)
        assert "</html>" in shown
        assert "<title>taken</title>" not in shown


def _shown(browser: str, page: Path, folder: Path) -> str:
    """The page after its scripts have run."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--dump-dom")
    done = subprocess.run(
        [browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"Chromium does not start here: {done.stderr[-300:]}")
    return done.stdout


def test_a_slide_in_a_folder_of_dots_stays_below_the_output(tmp_path: Path) -> None:
    from pipelines.sources import name_slides

    paths = [
        tmp_path / name for name in ("...tif", "..", ".", "-", "CON.tif", "a/../..tif", "\u2025.tif", " .tif")
    ]
    for source in name_slides(paths):
        assert source.slide_id not in ("", ".", "..")
        assert "/" not in source.slide_id
        assert not source.slide_id.startswith((".", "-", " "))
        assert (tmp_path / source.slide_id).resolve().parent == tmp_path.resolve()


def test_pixels_are_untouched_by_the_description(attacked: dict[str, Path]) -> None:
    with tifffile.TiffFile(attacked["top"] / "good.tif") as file:
        assert SCRIPT in file.pages[0].tags["ImageDescription"].value  # type: ignore[union-attr]
        assert np.asarray(file.pages[0].asarray()).shape[2] == 3
