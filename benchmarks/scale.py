"""How the schedule, the tables and the client's memory hold with ten thousand slides, pixels left out.

A stand-in takes the place of the steps that read, score and draw: it gives the numbers that the schedule counts
and writes a slide's `result.json`, so that what is measured is everything else.

    python benchmarks/scale.py -o OUT [--slides 10000] [--table docs/simulated_run.md]

Ten thousand slides of two blocks each, and then some slides of many blocks, because real slides have hundreds.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import time
from pathlib import Path

from machine import machine
from rich.console import Console

from pipelines.configuration import load_config
from pipelines.results import publish, write_result
from pipelines.run import score
from pipelines.schedule import Steps
from pipelines.steps import BlockScored, CellsPlanned, Prepared, SlideTask, fingerprint_of
from wsi_her2.scoring.result import ModelInfo, SlideResult

BLOCKS = 2
STEPS_BESIDE_BLOCKS = 3


def prepare(task: SlideTask) -> Prepared:
    """A slide of some blocks."""
    task.partial.mkdir(parents=True, exist_ok=True)
    return Prepared(fingerprint_of(task), BLOCKS, tuple(range(BLOCKS)))


def block(*_: object) -> BlockScored:
    """A block that takes no time."""
    return BlockScored(64, 0.0)


def no_cells(*_: object) -> CellsPlanned:
    """No cells to count."""
    return CellsPlanned(0, ())


def finish(task: SlideTask, fingerprint: str, *_: float) -> SlideResult:
    """A slide's result, without anything that was measured."""
    model = ModelInfo("stand-in", "0" * 64, ("other", "0", "1+", "2+", "3+"), 256, 0.5)
    result = SlideResult(
        slide_id=task.slide_id,
        path=str(task.path),
        status="not_assessable",
        reason="a simulated slide",
        modality="ihc",
        model=model,
        version="",
        fingerprint=fingerprint,
        timings_s={"blocks": 0.0},
    )
    write_result(task.partial, result)
    publish(task.output, task.slide_id)
    return result


def main() -> None:
    """Simulate, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--slides", type=int, default=10_000)
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    folder, output = asked.output / "slides", asked.output / "run"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(asked.slides):
        (folder / f"case_{number:05}.svs").write_bytes(b"simulated")
    config = load_config(None)
    steps = Steps(prepare=prepare, block=block, plan_cells=no_cells, finish=finish)
    said = Console(file=io.StringIO())
    before = os.times()
    started = time.perf_counter()
    summary = score([folder], output, config, steps=steps, console=said)
    seconds = time.perf_counter() - started
    spent = os.times()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if len(summary.results) != asked.slides:
        raise SystemExit(f"{len(summary.results)} of {asked.slides} slides have a result")
    started = time.perf_counter()
    score([folder], output, config, console=said)
    again = time.perf_counter() - started
    blocks, all_steps = asked.slides * BLOCKS, asked.slides * (BLOCKS + STEPS_BESIDE_BLOCKS)
    client = (spent.user + spent.system) - (before.user + before.system)
    rows = [
        ("slides, blocks, steps", f"{asked.slides:,}, {blocks:,}, {all_steps:,}"),
        ("wall time, all of it", f"{seconds:.0f} s"),
        ("wall time for each block", f"{1000 * seconds / blocks:.2f} ms"),
        ("wall time for each step", f"{1000 * seconds / all_steps:.2f} ms"),
        ("CPU time of client and scheduler for each step", f"{1000 * client / all_steps:.2f} ms"),
        ("largest memory of client and scheduler", f"{memory:.0f} MB"),
        ("`slides.csv`", f"{(output / 'slides.csv').stat().st_size / 2**20:.1f} MB"),
        ("`index.html`", f"{(output / 'index.html').stat().st_size / 2**20:.1f} MB"),
        ("`ledger.csv`", f"{(output / 'ledger.csv').stat().st_size / 2**20:.1f} MB"),
    ]
    table = "\n".join(["| figure | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    text = (
        "# A simulated run\n\n"
        f"Made by `python benchmarks/scale.py -o OUT --slides {asked.slides} --table docs/simulated_run.md` on "
        f"{machine()}.\n\nSteps that read, score and draw are replaced by a stand-in that takes no time; "
        "schedule, tables, claims, ledger and page are those of every run. Wall times count "
        "whatever else the machine did at the time, CPU times do not.\n\n"
        f"{table}\n\nA second run, of the real steps, found all results as they were in {again:.0f} s.\n"
    )
    print(text)
    if asked.table:
        asked.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
