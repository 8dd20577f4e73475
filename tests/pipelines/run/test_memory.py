"""Memory does not grow with the slide."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.pipelines.conftest import GLASS, cli_command, ihc_pixels, rows
from wsi_her2.slides.pyramid import write_pyramid

LIMIT_BYTES = 1.5 * 2**30


class TiledTissue:
    """Renders glass with one large piece of tissue, a quarter of the slide, that repeats a small field."""

    def __init__(self, width: int, height: int) -> None:
        self.field = ihc_pixels()[300:812, 300:812]
        self.box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)

    def __call__(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        region = np.full((height, width, 3), GLASS, np.uint8)
        left, top, right, bottom = self.box
        rows_, columns = np.arange(y, y + height), np.arange(x, x + width)
        inside = ((rows_ >= top) & (rows_ < bottom))[:, None] & ((columns >= left) & (columns < right))[None]
        if inside.any():
            side = len(self.field)
            region[inside] = self.field[np.ix_(rows_ % side, columns % side)][inside]
        return region


@contextmanager
def peak_memory(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Watch the resident memory of a process and all below it; shared pages count once for each."""
    peak = [0]
    over = threading.Event()

    def watch() -> None:
        root = psutil.Process(process.pid)
        while not over.is_set():
            total = 0
            try:
                for each in (root, *root.children(recursive=True)):
                    total += each.memory_info().rss
            except psutil.NoSuchProcess:
                pass
            peak[0] = max(peak[0], total)
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(10_000, 8_000), (60_000, 50_000)])
def test_peak_memory_stays_under_a_bound_whatever_the_size(tmp_path: Path, width: int, height: int) -> None:
    slide = tmp_path / "slide.tif"
    write_pyramid(slide, width, height, TiledTissue(width, height), mpp=0.25, workers=2)
    process = subprocess.Popen(cli_command("score", slide, "-o", tmp_path / "out", "--workers", "2"))
    with peak_memory(process) as peak:
        assert process.wait(timeout=1800) == 0
    found = rows(tmp_path / "out")["slide"]
    assert int(found["n_patches"]) > 0.9 * (width / 2) * (height / 2) / 256**2
    assert peak[0] < LIMIT_BYTES, f"{peak[0] / 2**20:.0f} MiB at {width} x {height} px"
