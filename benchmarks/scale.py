"""How the schedule, the tables and the client's memory hold with ten thousand slides, pixels left out.

A stand-in takes the place of the steps that read, score and draw: it gives the numbers that the schedule counts
and writes a slide's `result.json`, so that what is measured is everything else.

    python benchmarks/scale.py -o OUT [--slides 10000] [--large-slides 100] [--table docs/simulated_run.md]

Ten thousand slides of two blocks each, and then some slides of many blocks, because real slides have hundreds.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from machine import machine
from rich.console import Console

from pipelines.configuration import load_config
from pipelines.results import publish, write_result
from pipelines.run.score import score
from pipelines.worker.counting_cells import CellsPlanned
from pipelines.worker.preparing import Prepared
from pipelines.worker.scoring_blocks import BlockScored
from pipelines.worker.steps import Steps
from pipelines.worker.task import SlideTask
from wsi_her2.scoring.result import ModelInfo, SlideResult

BLOCKS, BLOCKS_OF_A_LARGE_SLIDE = 2, 200
STEPS_BESIDE_BLOCKS = 3


def prepare(task: SlideTask) -> Prepared:
    """A slide of some blocks."""
    return prepared(task, BLOCKS)


def prepare_large(task: SlideTask) -> Prepared:
    """A slide of many blocks."""
    return prepared(task, BLOCKS_OF_A_LARGE_SLIDE)


def prepared(task: SlideTask, blocks: int) -> Prepared:
    """A slide whose blocks all wait."""
    task.partial.mkdir(parents=True, exist_ok=True)
    return Prepared(task.fingerprint(), blocks, tuple(range(blocks)))


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


@dataclass(frozen=True)
class Simulated:
    """A run without pixels.

    Attributes
    ----------
    slides, blocks : int
        Blocks of all slides together.
    seconds, client_cpu_s : float
        On the clock, and of the processor by client and scheduler.
    memory_mb : float
        Largest of this process until then.
    """

    slides: int
    blocks: int
    seconds: float
    client_cpu_s: float
    memory_mb: float

    @property
    def steps(self) -> int:
        """Blocks and what each slide has beside them."""
        return self.blocks + self.slides * STEPS_BESIDE_BLOCKS


def simulate(folder: Path, output: Path, slides: int, blocks: int, steps: Steps) -> Simulated:
    """Make files that stand for slides, run over them, and see that each has a result."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(slides):
        (folder / f"case_{number:05}.svs").write_bytes(b"simulated")
    before = os.times()
    started = time.perf_counter()
    summary = score([folder], output, load_config(None), steps=steps, console=Console(file=io.StringIO()))
    seconds = time.perf_counter() - started
    spent = os.times()
    if len(summary.results) != slides:
        raise SystemExit(f"{len(summary.results)} of {slides} slides have a result")
    return Simulated(
        slides,
        slides * blocks,
        seconds,
        (spent.user + spent.system) - (before.user + before.system),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def main() -> None:
    """Simulate, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--slides", type=int, default=10_000)
    parser.add_argument("--large-slides", type=int, default=100)
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    few = Steps(prepare=prepare, block=block, plan_cells=no_cells, finish=finish)
    many = Steps(prepare=prepare_large, block=block, plan_cells=no_cells, finish=finish)
    folder, output = asked.output / "slides", asked.output / "run"
    small = simulate(folder, output, asked.slides, BLOCKS, few)
    started = time.perf_counter()
    score([folder], output, load_config(None), console=Console(file=io.StringIO()))
    again = time.perf_counter() - started
    place = asked.output / "large"
    large = simulate(place / "slides", place / "run", asked.large_slides, BLOCKS_OF_A_LARGE_SLIDE, many)
    rows = [
        ("slides", *(f"{run.slides:,}" for run in (small, large))),
        ("blocks of each", f"{BLOCKS}", f"{BLOCKS_OF_A_LARGE_SLIDE}"),
        ("steps in all", *(f"{run.steps:,}" for run in (small, large))),
        ("wall time, all of it", *(f"{run.seconds:.0f} s" for run in (small, large))),
        ("wall time for each block", *(f"{1000 * run.seconds / run.blocks:.2f} ms" for run in (small, large))),
        ("wall time for each step", *(f"{1000 * run.seconds / run.steps:.2f} ms" for run in (small, large))),
        (
            "CPU time of client and scheduler for each step",
            *(f"{1000 * run.client_cpu_s / run.steps:.2f} ms" for run in (small, large)),
        ),
        (
            "CPU time of client and scheduler for each block",
            *(f"{1000 * run.client_cpu_s / run.blocks:.2f} ms" for run in (small, large)),
        ),
        ("largest memory of client and scheduler", *(f"{run.memory_mb:.0f} MB" for run in (small, large))),
        *(
            (f"`{name}`", *(f"{(run / name).stat().st_size / 2**20:.1f} MB" for run in (output, place / "run")))
            for name in ("slides.csv", "index.html", "ledger.csv")
        ),
    ]
    table = "\n".join(
        ["| figure | many slides | large slides |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    )
    text = (
        "# A simulated run\n\n"
        f"Made by `python benchmarks/scale.py -o OUT --slides {asked.slides} --large-slides {asked.large_slides} "
        f"--table docs/simulated_run.md` on {machine()}.\n\n"
        "Steps that read, score and draw are replaced by a stand-in that takes no time; schedule, tables, claims, "
        f"ledger and page are those of every run. Each slide has {STEPS_BESIDE_BLOCKS} steps beside its blocks. "
        "Wall times count whatever else the machine did at the time, CPU times do not. The large slides run after "
        f"the others in the same process, so its largest memory is that of both.\n\n{table}\n\n"
        f"A second run over the many slides, of the real steps, found all results as they were in {again:.0f} s.\n"
    )
    print(text)
    if asked.table:
        asked.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
