"""A run may be interrupted at any moment; the same command continues it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.conftest import PATIENCE_S, cli_command, differing_files, ihc_pixels, write_slide

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def large_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of some twenty blocks."""
    return write_slide(tmp_path_factory.mktemp("large") / "large.tif", ihc_pixels(repeats=4))


@pytest.fixture(scope="module")
def undisturbed(large_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    subprocess.run(cli_command("score", large_slide, "-o", output), check=True, capture_output=True)
    return output


def _interrupt(
    slide: Path, output: Path, how: signal.Signals, after_blocks: int = 0, after_parts: int = 0
) -> subprocess.Popen[str]:
    """Start a run and stop it when some blocks, or some parts of the cells, are done."""
    process = subprocess.Popen(
        cli_command("score", slide, "-o", output),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background of a shell ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + PATIENCE_S
    while len(_blocks_done(output)) < after_blocks or len(_cell_parts(output)) < after_parts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no block or part was finished"
        time.sleep(0.01)
    os.killpg(process.pid, how)
    return process


def _blocks_done(output: Path) -> dict[str, int]:
    """Chunk files of probabilities whose block is marked as done, and when each was written."""
    store = output / ".partial" / "large" / "patches.zarr"
    if not store.exists():
        store = output / "large" / "patches.zarr"
    done = store / "done" / "c"
    blocks = [path.name for path in done.iterdir()] if done.exists() else []
    return {
        block: (store / "probabilities" / "c" / block / "0").stat().st_mtime_ns
        for block in blocks
        if block.isdigit()
    }


def _cell_parts(output: Path) -> list[str]:
    return sorted(path.name for path in (output / ".partial" / "large" / "cell_parts").glob("part-*.parquet"))


def test_after_kill_9_the_same_command_continues_and_ends_the_same(
    cli: Cli, large_slide: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = _interrupt(large_slide, output, signal.SIGKILL, after_blocks=4)
    process.communicate(timeout=PATIENCE_S)
    before = _blocks_done(output)
    assert 4 <= len(before) < len(_blocks_done(undisturbed))
    assert not (output / "large").exists()
    again = cli("score", large_slide, "-o", output)
    assert again.returncode == 0, again.stderr
    assert differing_files(undisturbed, output) == []
    after = _blocks_done(output)
    assert {block: after[block] for block in before} == before, "a finished block was scored again"


def test_after_kill_9_while_cells_are_measured_the_same_command_ends_the_same(
    cli: Cli, large_slide: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    _interrupt(large_slide, output, signal.SIGKILL, after_parts=2).communicate(timeout=PATIENCE_S)
    blocks, parts = _blocks_done(output), _cell_parts(output)
    assert len(blocks) == len(_blocks_done(undisturbed))
    assert len(parts) >= 2
    assert not (output / "large").exists()
    again = cli("score", large_slide, "-o", output)
    assert again.returncode == 0, again.stderr
    assert differing_files(undisturbed, output) == []
    assert (output / "large" / "cells.parquet").exists()
    assert _blocks_done(output) == blocks, "a finished block was scored again"


def test_ctrl_c_says_what_to_do_and_the_same_command_continues(
    cli: Cli, large_slide: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = _interrupt(large_slide, output, signal.SIGINT, after_blocks=2)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, stderr
    assert "the same command continues" in stderr
    assert "Traceback" not in stderr
    before = _blocks_done(output)
    again = cli("score", large_slide, "-o", output)
    assert again.returncode == 0, again.stderr
    assert differing_files(undisturbed, output) == []
    after = _blocks_done(output)
    assert {block: after[block] for block in before} == before
