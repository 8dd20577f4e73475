"""What reading a slide over HTTP asks of the server, by how its bytes are fetched.

    python benchmarks/remote_slides.py [--delay-ms 20] [--regions 12] [--seed 0] [--table FILE.md]

Makes a tiled slide from a real IHC image, serves it on this machine by a server that answers range requests after
a delay, and reads regions of the size of a block of patches at random places, as a worker of a run does: as this
package fetches (blocks of several sizes, all those of a region at once), and through the caches of fsspec, which
tifffile asks for one tile after the other. --table writes the summary as a page.
"""

from __future__ import annotations

import argparse
import http.server
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import skimage.data
import tiffslide
from machine import machine

from wsi_her2.slides import remote
from wsi_her2.slides.backends import TiffSlideBackend
from wsi_her2.slides.location import SlideUrl
from wsi_her2.slides.pyramid import write_pyramid

WIDTH, HEIGHT, MPP = 32_768, 12_288, 0.25
REGION_PX = 14 * 256
"""Eight patches of 112 um at 0.25 um/px."""

KIB = 1024

Read = Callable[[int, int], Any]


class Counting(http.server.BaseHTTPRequestHandler):
    """Answers range requests for one file after a delay, and counts them."""

    protocol_version = "HTTP/1.1"
    path_on_disk: Path
    delay_s = 0.0
    requests = 0
    sent = 0
    lock = threading.Lock()

    def do_HEAD(self) -> None:
        """Say how large the file is."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Send a part."""
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, body: bool) -> None:
        time.sleep(self.delay_s)
        size = self.path_on_disk.stat().st_size
        asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), min(size, int(asked[2]) + 1)) if asked else (0, size)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        with Counting.lock:
            Counting.requests += 1
            Counting.sent += (end - start) * body
        if body:
            with self.path_on_disk.open("rb") as file:
                file.seek(start)
                self.wfile.write(file.read(end - start))


@contextmanager
def serving(path: Path, delay_s: float) -> Iterator[str]:
    """The URL of a file while it is served."""
    Counting.path_on_disk, Counting.delay_s = path, delay_s
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{path.name}"
    server.shutdown()
    server.server_close()


def draw_slide(folder: Path) -> Path:
    """A slide of mirrored tissue; large enough for rows of tiles to lie far apart."""
    field = skimage.data.immunohistochemistry()
    pair = np.concatenate([field, field[:, ::-1]], axis=1)
    tissue = np.concatenate([pair, pair[::-1]], axis=0)

    def render(x: int, y: int, w: int, h: int) -> Any:
        return tissue[np.arange(y, y + h)[:, None] % len(tissue), np.arange(x, x + w)[None] % len(tissue)]

    return write_pyramid(folder / "slide.tif", WIDTH, HEIGHT, render, mpp=MPP)


def in_blocks(url: str, block_bytes: int) -> Read:
    """As this package reads."""
    remote.BLOCK_BYTES = block_bytes
    backend = TiffSlideBackend(SlideUrl(url))
    backend.read(len(backend.levels) - 1, 0, 0, 1, 1)
    return lambda x, y: backend.read(0, x, y, REGION_PX, REGION_PX)


def through_fsspec(url: str, **options: Any) -> Read:
    """As tiffslide reads from a file of fsspec."""
    fs, path = fsspec.core.url_to_fs(url)
    slide = tiffslide.TiffSlide(fs.open(path, "rb", **options))
    slide.read_region((0, 0), slide.level_count - 1, (1, 1))
    return lambda x, y: slide.read_region((x, y), 0, (REGION_PX, REGION_PX), as_array=True)


WAYS: dict[str, Callable[[str], Read]] = {
    "blocks of 16 KiB, those of a region at once": lambda url: in_blocks(url, 16 * KIB),
    "blocks of 64 KiB, those of a region at once": lambda url: in_blocks(url, 64 * KIB),
    "blocks of 256 KiB, those of a region at once": lambda url: in_blocks(url, 256 * KIB),
    "blocks of 1 MiB, those of a region at once": lambda url: in_blocks(url, 1024 * KIB),
    "fsspec, no cache": lambda url: through_fsspec(url, cache_type="none"),
    "fsspec, blockcache of 64 KiB": lambda url: through_fsspec(url, cache_type="blockcache", block_size=64 * KIB),
    "fsspec, blockcache of 1 MiB": lambda url: through_fsspec(url, cache_type="blockcache", block_size=1024 * KIB),
    "fsspec, background of 256 KiB": lambda url: through_fsspec(
        url, cache_type="background", block_size=256 * KIB
    ),
    "fsspec, readahead of 1 MiB": lambda url: through_fsspec(url, cache_type="readahead", block_size=1024 * KIB),
    "fsspec, as it comes (bytes, 5 MiB)": through_fsspec,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay-ms", type=float, default=20.0, help="before each answer")
    parser.add_argument("--regions", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    corners = [
        (int(rng.integers((WIDTH - REGION_PX) // 256)) * 256, int(rng.integers((HEIGHT - REGION_PX) // 256)) * 256)
        for _ in range(given.regions)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = draw_slide(Path(folder))
        with tiffslide.TiffSlide(path) as slide:
            page = slide.ts_tifffile.series[0].levels[0].pages[0]
            tile_kib = float(np.mean(page.databytecounts)) / KIB
            needed = tile_kib * 14 * 14 / KIB
        with serving(path, given.delay_ms / 1000) as url:
            rows = [measure(name, way, url, corners) for name, way in WAYS.items()]
        size = path.stat().st_size
    lines = [
        "| how | requests to open | MiB to open | requests per region | MiB per region | s per region |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    intro = [
        "# Reading slides over HTTP",
        "",
        f"Made by `python benchmarks/remote_slides.py --delay-ms {given.delay_ms:g} --regions {given.regions} "
        f"--seed {given.seed} --table docs/remote_slides.md` on {machine()}. A slide of {WIDTH} x {HEIGHT} px, "
        f"{size / KIB**2:.0f} MiB, JPEG tiles of 256 px and {tile_kib:.1f} KiB; regions of 14 x 14 tiles "
        f"({needed:.2f} MiB) at {given.regions} random places, one after the other, decoding included. Each "
        "answer comes after the delay, and then as fast as the machine copies, so that bytes cost less here than "
        "on a network.",
        "",
    ]
    page_text = "\n".join([*intro, *lines]) + "\n"
    print(page_text)
    if given.table:
        given.table.write_text(page_text, encoding="utf-8")


def measure(name: str, way: Callable[[str], Read], url: str, corners: list[tuple[int, int]]) -> str:
    """A row of the table."""
    Counting.requests = Counting.sent = 0
    read = way(f"{url}?{os.urandom(4).hex()}")
    opened = (Counting.requests, Counting.sent)
    began = time.perf_counter()
    for x, y in corners:
        read(x, y)
    seconds = (time.perf_counter() - began) / len(corners)
    requests, sent = Counting.requests - opened[0], Counting.sent - opened[1]
    each = f"{requests / len(corners):.1f} | {sent / len(corners) / KIB**2:.2f} | {seconds:.2f}"
    return f"| {name} | {opened[0]} | {opened[1] / KIB**2:.2f} | {each} |"


if __name__ == "__main__":
    main()
