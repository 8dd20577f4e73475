"""How fast the review pages answer: a slide of 41,000 x 33,000 px with 20,480 patches, and lists of many slides.

    python benchmarks/review.py -o OUT [--repeats N] [--table docs/review_speed.md]

Draws the slide as Aperio scanners write them (JPEG tiles of 256 px, every other level), scores it once with
`wsi-her2 score`, starts `wsi-her2 view` as a user does and asks it for what a browser asks for, over HTTP on this
machine. A first view is measured on a server that has just started, each time on a new one: the page with all
that it loads, the list, the slide, its patches and tissue, and the tiles that fill a window of 1920 x 1080, six
at a time as browsers do. Single tiles lie at random places, none twice, one at a time. What a browser then draws
is not in these figures.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
from bench_slides import write_section
from machine import machine

from pipelines.cluster import available_cores
from pipelines.results import read_result, write_result
from pipelines.review.access import Access
from pipelines.review.app import create_app
from pipelines.review.run_folder import ReviewRun
from pipelines.review.server import listening_on, server_of
from pipelines.review.tiles import TileGrid
from wsi_her2.scoring.result import SlideResult

WIDTH_MM, HEIGHT_MM = 10.24, 8.192
WINDOW_PX = (1920, 1080)
BROWSER_CONNECTIONS = 6
LISTS = (1_000, 10_000)
SIDES = (256, 512, 1024)
LEVELS_BELOW_FULL = (0, 1, 3)


@dataclass(frozen=True)
class View:
    """A view of a slide: level of its tiles, and which of them fill the window."""

    level: int
    columns: range
    rows: range

    @classmethod
    def whole(cls, grid: TileGrid) -> View:
        """The whole slide in the window: the coarsest level that is no smaller than it is shown."""
        shown = min(WINDOW_PX[0] / grid.width, WINDOW_PX[1] / grid.height)
        below = int(np.floor(np.log2(1 / shown)))
        scale = 2**below
        across = -(-grid.width // (scale * grid.tile_px))
        down = -(-grid.height // (scale * grid.tile_px))
        return cls(grid.max_level - below, range(across), range(down))

    @classmethod
    def close(cls, grid: TileGrid, rng: np.random.Generator) -> View:
        """A window at full size, somewhere."""
        x, y = int(rng.integers(grid.width - WINDOW_PX[0])), int(rng.integers(grid.height - WINDOW_PX[1]))
        side = grid.tile_px
        return cls(
            grid.max_level,
            range(x // side, (x + WINDOW_PX[0]) // side + 1),
            range(y // side, (y + WINDOW_PX[1]) // side + 1),
        )

    def addresses(self, slide: str) -> list[str]:
        """Of its tiles."""
        return [f"{slide}/tiles/{self.level}/{column}_{row}.jpg" for row in self.rows for column in self.columns]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5, help="servers that are started for first views")
    parser.add_argument("--tiles", type=int, default=150, help="at each level")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    run = asked.output / "run"
    if asked.serve is not None:
        serve(run, asked.serve)
        return
    slide_id = scored_slide(asked.output, run)
    result = result_of(run / slide_id)
    grid = TileGrid(*result.reader.dimensions)
    parts = [one_first_view(run, slide_id, grid) for _ in range(asked.repeats)]
    tiles, patches = single_tiles(run, slide_id, grid, asked.tiles)
    sides = [(side, *windows(run, slide_id, replace(grid, tile_px=side))) for side in SIDES]
    lists = [(count, *listing(asked.output, run / slide_id, count)) for count in LISTS]
    text = page(asked, result.n_patches, grid, parts, tiles, patches, sides, lists)
    print(text)
    if asked.table:
        asked.table.write_text(text, encoding="utf-8")


def scored_slide(folder: Path, run: Path) -> str:
    """Draw the slide and score it, unless that is done; its identifier."""
    name = "review"
    slide = write_section(
        folder, name, tissue_mm=WIDTH_MM, slide_mm=WIDTH_MM, workers=available_cores(), height_mm=HEIGHT_MM
    )
    if read_result(run / name) is None:
        command = [sys.executable, "-m", "pipelines.cli", "score", str(slide), "-o", str(run)]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    return name


def result_of(folder: Path) -> SlideResult:
    """The result in a folder."""
    result = read_result(folder)
    if result is None or result.reader is None:
        raise SystemExit(f"{folder} holds no result: the slide was not scored")
    return result


@contextmanager
def viewing(run: Path, tile_px: int | None = None) -> Iterator[tuple[httpx.Client, float]]:
    """A server in a process of its own: a client of it, and the seconds until it had said its address."""
    started = time.perf_counter()
    command = (
        ["-m", "pipelines.cli", "view", str(run), "--no-browser"]
        if tile_px is None
        else [__file__, "-o", str(run.parent), "--serve", str(tile_px)]
    )
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r"http://\S+", process.stdout.readline() if process.stdout else "")
        if found is None:
            raise SystemExit("the server did not start")
        seconds = time.perf_counter() - started
        limits = httpx.Limits(max_connections=BROWSER_CONNECTIONS)
        headers = {"accept-encoding": "gzip"}
        with httpx.Client(base_url=found[0], limits=limits, headers=headers, timeout=120) as client:
            yield client, seconds
    finally:
        process.terminate()
        process.wait()


def serve(run: Path, tile_px: int) -> None:
    """As `view` does, with tiles of another size."""
    with listening_on("127.0.0.1", 0) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        app = create_app(ReviewRun(run), Access.to("127.0.0.1"), tile_px=tile_px)
        server_of(app).run(sockets=[listening])


def fetch(client: httpx.Client, address: str) -> tuple[float, int]:
    """Seconds and bytes of an answer."""
    started = time.perf_counter()
    answer = client.get(address)
    answer.raise_for_status()
    return time.perf_counter() - started, len(answer.content)


def at_once(client: httpx.Client, addresses: list[str]) -> float:
    """Seconds for several answers, as many at a time as browsers ask for."""
    started = time.perf_counter()
    with ThreadPoolExecutor(BROWSER_CONNECTIONS) as pool:
        list(pool.map(lambda address: fetch(client, address), addresses))
    return time.perf_counter() - started


def one_first_view(run: Path, slide_id: str, grid: TileGrid) -> dict[str, float]:
    """Seconds of each part of a first view on a new server."""
    slide = f"/api/slides/{slide_id}"
    with viewing(run) as (client, start_s):
        parts = {"the server says its address": start_s}
        parts["page, styles, scripts"] = at_once(client, loaded_by(client, f"/slide/{slide_id}"))
        parts["`/api/run`"] = fetch(client, "/api/run")[0]
        parts["`/api/slides/ID`"] = fetch(client, slide)[0]
        parts["patches"] = fetch(client, f"{slide}/patches")[0]
        parts["tissue"] = fetch(client, f"{slide}/tissue.png")[0]
        parts["tiles of the whole slide"] = at_once(client, View.whole(grid).addresses(slide))
    return parts


def loaded_by(client: httpx.Client, page: str) -> list[str]:
    """The page, and every file of the package that it or its scripts name."""
    addresses, waiting = [], [page]
    while waiting:
        address = waiting.pop(0)
        if address in addresses:
            continue
        addresses.append(address)
        if address.endswith((".css", ".svg", ".png", ".min.js")):
            continue
        text = client.get(address).text
        waiting += re.findall(r"/static/[\w./-]+", text)
        waiting += [f"/static/{name}" for name in re.findall(r'from "\./([\w.-]+)"', text)]
    return addresses


def single_tiles(
    run: Path, slide_id: str, grid: TileGrid, count: int
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of tiles one at a time, by their level, and of the patches once they were asked for before."""
    rng = np.random.default_rng(0)
    slide = f"/api/slides/{slide_id}"
    found: dict[str, list[float]] = {}
    with viewing(run) as (client, _):
        at_once(client, View.whole(grid).addresses(slide))
        for below in LEVELS_BELOW_FULL:
            scale = 2**below * grid.tile_px
            places = [(c, r) for c in range(grid.width // scale) for r in range(grid.height // scale)]
            chosen = [places[index] for index in rng.permutation(len(places))[:count]]
            addresses = [f"{slide}/tiles/{grid.max_level - below}/{c}_{r}.jpg" for c, r in chosen]
            found[f"1 : {2**below}"] = [fetch(client, address)[0] for address in addresses]
        patches = [fetch(client, f"{slide}/patches")[0] for _ in range(10)]
    return found, patches[1:]


def windows(run: Path, slide_id: str, grid: TileGrid) -> tuple[float, float, float, float]:
    """Seconds until windows at full size are filled: the first, and others in the median; tiles and kB of one."""
    rng = np.random.default_rng(1)
    slide = f"/api/slides/{slide_id}"
    views = [View.close(grid, rng) for _ in range(12)]
    with viewing(run, grid.tile_px) as (client, _):
        seconds = [at_once(client, view.addresses(slide)) for view in views]
        sizes = [fetch(client, address)[1] for address in views[0].addresses(slide)]
    tiles = statistics.mean(len(view.addresses(slide)) for view in views)
    return seconds[0], statistics.median(seconds[1:]), tiles, sum(sizes) / 1000


def listing(folder: Path, slide: Path, count: int) -> tuple[float, float, float, float]:
    """Seconds until a server of many slides says its address and lists them, then again; and MB of the list."""
    run = folder / f"list-{count}"
    result = result_of(slide)
    for number in range(count):
        name = f"case_{number:05}"
        (run / name).mkdir(parents=True, exist_ok=True)
        if not (run / name / "result.json").exists():
            write_result(run / name, replace(result, slide_id=name))
    with viewing(run) as (client, start_s):
        first, size = fetch(client, "/api/run")
        again = statistics.median(fetch(client, "/api/run")[0] for _ in range(5))
    return start_s, first, again, size / 1e6


def page(
    asked: argparse.Namespace,
    n_patches: int,
    grid: TileGrid,
    parts: list[dict[str, float]],
    tiles: dict[str, list[float]],
    patches: list[float],
    sides: list[tuple[int, float, float, float, float]],
    lists: list[tuple[int, float, float, float, float]],
) -> str:
    """The document."""

    def ms(seconds: float) -> str:
        return f"{1000 * seconds:.0f} ms"

    def spread(times: list[float]) -> str:
        return f"{len(times)} | {ms(statistics.median(times))} | {ms(float(np.quantile(times, 0.95)))}"

    view = View.whole(grid)
    names = list(parts[0])
    of_view = [name for name in names if name != names[0]]
    whole = [sum(part[name] for name in of_view) for part in parts]
    first = [
        *(f"| {name} | {ms(statistics.median(part[name] for part in parts))} |" for name in of_view),
        f"| **together** | **{ms(statistics.median(whole))}**, at most {ms(max(whole))} |",
    ]
    every = sorted(seconds for level in tiles.values() for seconds in level)
    levels = [*tiles.items(), ("all", every)]
    return "\n".join(
        [
            "# Speed of the review pages",
            "",
            f"Made by `python benchmarks/review.py -o OUT --repeats {asked.repeats} --tiles {asked.tiles} "
            f"--table docs/review_speed.md` on {machine()}. A slide of {grid.width:,} x {grid.height:,} px, tiled "
            f"JPEG with levels of 1 : 4 and 1 : 16, with {n_patches:,} scored patches; tiles of "
            f"{grid.tile_px} px. Server and client are on one machine; times are those of the client, and hold "
            "whatever else the machine did.",
            "",
            "## First view",
            "",
            f"On a server that has just started; median of {asked.repeats}. The whole slide in a window of "
            f"{WINDOW_PX[0]} x {WINDOW_PX[1]} px is {len(view.addresses(''))} tiles. The server says its address "
            f"after {statistics.median(part[names[0]] for part in parts):.1f} s.",
            "",
            "| part | time |",
            "|---|---|",
            *first,
            "",
            "## Tiles",
            "",
            "Random places, none asked for before, one at a time.",
            "",
            "| scale | tiles | median | 95th percentile |",
            "|---|---|---|---|",
            *(f"| {name} | {spread(times)} |" for name, times in levels),
            "",
            f"The patches of the slide, asked for again: {ms(statistics.median(patches))}.",
            "",
            "## Side of a tile",
            "",
            "A window at full size, at random places; six tiles at a time.",
            "",
            "| side | tiles | kB | first window | others, median |",
            "|---|---|---|---|---|",
            *(
                f"| {side} px | {count:.0f} | {size:.0f} | {ms(first_s)} | {ms(other_s)} |"
                for side, first_s, other_s, count, size in sides
            ),
            "",
            "## Lists",
            "",
            "| slides | until the server says its address | list | list, again | MB, packed out |",
            "|---|---|---|---|---|",
            *(
                f"| {count:,} | {start_s:.1f} s | {ms(first_s)} | {ms(again_s)} | {size:.1f} |"
                for count, start_s, first_s, again_s, size in lists
            ),
            "",
        ]
    )


if __name__ == "__main__":
    main()
