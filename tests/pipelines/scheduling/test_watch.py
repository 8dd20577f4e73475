"""`score --watch` takes slides as they come, whole, once, until it is told to end."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from pipelines.scheduling.watch import FolderWatch
from tests.pipelines.conftest import PATIENCE_S, cli_command, differing_files, rows
from tests.pipelines.scheduling.test_faults import ledger


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_file_is_taken_once_and_only_when_it_has_stopped_growing(tmp_path: Path) -> None:
    clock = Clock()
    watch = FolderWatch([tmp_path], 10, clock)
    slide = tmp_path / "case.svs"
    assert watch.arrivals() == []
    slide.touch()
    assert watch.arrivals() == []
    for size in (10, 20, 30):
        slide.write_bytes(bytes(size))
        clock.now += 9
        assert watch.arrivals() == [], "it has changed since the last look"
    clock.now += 9
    assert watch.arrivals() == []
    clock.now += 1
    assert watch.arrivals() == [slide]
    clock.now += 100
    assert watch.arrivals() == []
    slide.write_bytes(bytes(40))
    watch.arrivals()
    clock.now += 10
    assert watch.arrivals() == [slide], "what was scanned again is scored again"


def test_a_slide_whose_pixels_lie_beside_it_waits_for_them(tmp_path: Path) -> None:
    clock = Clock()
    watch = FolderWatch([tmp_path], 10, clock)
    slide = tmp_path / "case.mrxs"
    slide.write_bytes(b"index")
    pixels = tmp_path / "case" / "Data0000.dat"
    pixels.parent.mkdir()
    for size in (1, 2, 3):
        pixels.write_bytes(bytes(size))
        assert watch.arrivals() == []
        clock.now += 9
    assert watch.arrivals() == []
    clock.now += 2
    assert watch.arrivals() == [slide]


def test_slides_that_come_while_it_watches_are_scored_whole(ihc_slide: Path, tmp_path: Path) -> None:
    folder, output, config = tmp_path / "scanner", tmp_path / "out", tmp_path / "fast.yaml"
    folder.mkdir()
    config.write_text("compute: {settle_s: 3, workers: 1}\n")
    whole = ihc_slide.read_bytes()
    (folder / "first.tif").write_bytes(whole)
    process = subprocess.Popen(
        cli_command("score", folder, "-o", output, "--watch", "--config", config),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(output, process, {"first"})
        with (folder / "second.tif").open("wb") as stream:
            # In all it takes longer than a file has to rest, and each wait is far shorter.
            part = -(-len(whole) // 8)
            for start in range(0, len(whole), part):
                stream.write(whole[start : start + part])
                stream.flush()
                time.sleep(0.6)
        wait_for(output, process, {"first", "second"})
        deadline = time.monotonic() + PATIENCE_S
        while "second" not in (output / "index.html").read_text():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "the page is brought up to date while it waits"
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    states = [(line["slide_id"], line["state"]) for line in ledger(output) if line["state"] != "waiting"]
    assert states == [("first", "started"), ("first", "scored"), ("second", "started"), ("second", "scored")]
    again = subprocess.run(
        cli_command("score", folder, "-o", tmp_path / "plain", "--workers", 1), capture_output=True, check=False
    )
    assert again.returncode == 0
    assert differing_files(tmp_path / "plain", output) == []


def wait_for(output: Path, process: subprocess.Popen[str], slides: set[str]) -> None:
    """Wait until slides have rows."""
    deadline = time.monotonic() + PATIENCE_S
    while not (output / "slides.csv").exists() or not slides <= set(rows(output)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)
