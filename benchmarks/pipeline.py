"""How much work a patch is: each step alone, the whole of `score`, and the limit that decoding and inference set.

    python benchmarks/pipeline.py -o OUT [--repeats N] [--tissue-mm X] [--table docs/benchmark.md]

Draws slides of 40x as Aperio scanners write them (JPEG tiles, every other level). The limit is what cannot be done
without: decoding once each tile that a patch touches, at the scale it is needed, and running the network on the
patches, nothing else. It is measured anew after each run of the pipeline, so that both meet the same machine, and
every figure is a median over the repeats. Runs are `wsi-her2 score` as a user starts it, with all outputs, counted
cells among them; their CPU time is that of the command and of all its processes, start-up included.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import openslide
import simplejpeg
import tifffile
from bench_slides import write_section
from machine import machine

from pipelines.cluster import WORKER_ENVIRONMENT, available_cores
from pipelines.configuration import load_config
from pipelines.fingerprint import software_version
from pipelines.run.score import resolve_classifier
from pipelines.worker.preparing import prepare_slide
from pipelines.worker.scoring_blocks import score_block
from pipelines.worker.task import SlideTask
from wsi_her2.scoring.quality import QUALITY, measure_quality
from wsi_her2.slides.blocks import read_block
from wsi_her2.slides.slide import open_slide
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.store import PatchStore

STEPS = {
    "decode": "each tile decoded once, at the scale needed (limit)",
    "network": "the network on patches in memory (limit)",
    "openslide": "`openslide.read_region` of each patch, resized",
    "read": "reading a block and cutting it into patches",
    "white": "white point",
    "quality": "quality of each patch",
    "store": "writing the store, without pixels",
    "store_pixels": "writing the store, with pixels",
    "block": "a whole block, as a worker does it",
}
BLOCKS = 8
"""Over which each step is measured."""


@dataclass(frozen=True)
class Case:
    """What is run: a slide, a network, options of the command."""

    name: str
    slide: str
    network: str
    precision: str = "fp32"
    workers: int = 2
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One run of the command on one slide."""

    patches: int
    runtime: str
    wall_s: float
    cpu_s: float
    peak_mb: float

    @property
    def cpu_ms(self) -> float:
        """CPU time of a patch."""
        return 1000 * self.cpu_s / self.patches


ONE_WORKER = "PrunEff4, one worker"
CASES = (
    Case("PrunEff4", "large", "pruneff4-phantoms"),
    Case(ONE_WORKER, "large", "pruneff4-phantoms", workers=1),
    Case("PrunEff4, int8", "large", "pruneff4-phantoms", "int8"),
    Case("ATHER2", "large", "ather2-phantoms"),
    Case("PrunEff4, small slide", "small", "pruneff4-phantoms"),
    Case("pixels kept", "small", "pruneff4-phantoms", options=("--store-patches",)),
    Case("more glass", "wide", "pruneff4-phantoms"),
)


def run_score(slide: Path, case: Case) -> Run:
    """Score a slide as a user does and measure the whole tree of processes."""
    with tempfile.TemporaryDirectory(dir=slide.parent) as folder:
        command = [
            str(Path(sys.executable).with_name("wsi-her2")),
            *("score", str(slide), "-o", f"{folder}/out", "--model", case.network),
            *("--precision", case.precision, "--workers", str(case.workers), *case.options),
        ]
        started = time.perf_counter()
        with Path(f"{folder}/log").open("w") as log:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, process_group=0)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except KeyboardInterrupt:
                # A group of its own, which Ctrl-C does not reach.
                os.killpg(process.pid, signal.SIGINT)
                raise
        wall = time.perf_counter() - started
        usages = [usage, *_usages_of_group(process.pid)]
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}\n{Path(f'{folder}/log').read_text()}")
        result = json.loads((Path(folder) / "out" / slide.stem / "result.json").read_text())
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    peak_mb = max(usage.ru_maxrss for usage in usages) / 1024
    return Run(result["n_patches"], result["model"]["runtime"], wall, cpu, peak_mb)


def _adopt_orphans() -> None:
    """Become the parent of what a command leaves behind, as the process from which its workers are forked.

    Linux only: elsewhere workers are not forked.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


_PR_SET_CHILD_SUBREAPER = 36


def _usages_of_group(leader: int) -> list[resource.struct_rusage]:
    """What the processes of a command used that outlived it, once they have ended."""
    usages = []
    with suppress(ChildProcessError):
        while True:
            usages.append(os.wait4(-leader, 0)[2])
    return usages


def measure_steps(slide: Path, case: Case, runtime: str, steps: list[str]) -> dict[str, float]:
    """CPU-ms per patch of steps, in as many processes at once as the case has workers, with their environment.

    A core is slower when its neighbour is busy too, so the limit of two workers is that of two processes.
    """
    environment = {**os.environ, **{name: str(value) for name, value in WORKER_ENVIRONMENT.items()}}
    command = [
        sys.executable,
        __file__,
        "--steps",
        *steps,
        "--of",
        str(slide),
        case.network,
        case.precision,
        runtime,
    ]
    beside = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(case.workers)
    ]
    found: list[dict[str, float]] = [json.loads(process.communicate()[0]) for process in beside]
    return {name: float(np.mean([one[name] for one in found])) for name in steps}


def print_steps(names: list[str], slide_path: Path, network: str, precision: str, runtime: str) -> None:
    """In the process that `measure_steps` starts: run each step over the same blocks, print its CPU-ms."""
    settings = {"model": network, "precision": precision, "runtime": runtime}
    config = load_config(None, settings)
    choice, classifier = resolve_classifier(config)
    with tempfile.TemporaryDirectory(dir=slide_path.parent) as folder:
        task = SlideTask("slide", slide_path, Path(folder), config, choice, classifier.sha256)
        fingerprint = prepare_slide(task).fingerprint
        planned = PatchStore.open(task.partial / "patches.zarr")
        grid, white = planned.grid, planned.read_overview().white_point
        whole = [b for b in range(grid.n_blocks) if grid.selected[grid.rows(b)].all()]
        blocks = [whole[i] for i in np.linspace(0, len(whole) - 1, BLOCKS).astype(int)]
        slide, glass = open_slide(slide_path), StainCorrection("white-point", white.rgb)
        patches = {block: read_block(slide, grid, block)[0] for block in blocks}
        columns = np.zeros((grid.block_rows, len(classifier.classes)), np.float32)
        quality = np.ones((grid.block_rows, len(QUALITY)), np.float32)

        def store(pixels: bool) -> Callable[[int], object]:
            path = Path(folder) / f"pixels-{pixels}.zarr"
            made = PatchStore.create(path, grid, classes=classifier.classes, quality=QUALITY, pixels=pixels)
            return lambda block: made.write_block(block, columns, quality, None, patches[block])

        steps: dict[str, Callable[[int], object]] = {
            "decode": bare_decode(slide_path, grid.xy, grid.rows, grid.patch_px0),
            "network": lambda block: classifier.predict(patches[block]),
            "openslide": by_openslide(slide_path, grid.xy, grid.rows, grid.patch_px0, grid.patch_px),
            "read": lambda block: read_block(slide, grid, block),
            "white": lambda block: glass.apply(patches[block]),
            "quality": lambda block: measure_quality(patches[block]),
            "store": store(pixels=False),
            "store_pixels": store(pixels=True),
            "block": lambda block: score_block(task, fingerprint, block),
        }
        seconds = dict.fromkeys(names, 0.0)
        for turn, block in enumerate([blocks[0], *blocks]):
            # In turn on each block: a machine that is shared is not equally fast from one second to the next.
            for name in names:
                started = time.process_time()
                steps[name](block)
                seconds[name] += time.process_time() - started if turn else 0.0
    print(json.dumps({name: 1000 * spent / (len(blocks) * grid.block_rows) for name, spent in seconds.items()}))


def bare_decode(
    path: Path, xy: np.ndarray, rows: Callable[[int], slice], patch_px0: int
) -> Callable[[int], object]:
    """Decode each tile that the patches of a block touch, once, at half its size, and nothing else."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        side, across = page.tilewidth, -(-page.imagewidth // page.tilewidth)
        offsets, sizes = page.dataoffsets, page.databytecounts
    file = path.open("rb")

    def decode(block: int) -> None:
        corners = xy[rows(block)]
        (left, top), (right, bottom) = corners.min(axis=0) // side, (corners.max(axis=0) + patch_px0 - 1) // side
        for row in range(top, bottom + 1):
            for number in range(row * across + left, row * across + right + 1):
                file.seek(offsets[number])
                simplejpeg.decode_jpeg(
                    file.read(sizes[number]), min_height=side // 2, min_width=side // 2, min_factor=2
                )

    return decode


def by_openslide(
    path: Path, xy: np.ndarray, rows: Callable[[int], slice], patch_px0: int, patch_px: int
) -> Callable[[int], object]:
    """Read each patch of a block by itself, as a loop over `read_region` does."""
    slide = openslide.OpenSlide(path)

    def read(block: int) -> None:
        for x, y in xy[rows(block)].tolist():
            region = np.asarray(slide.read_region((x, y), 0, (patch_px0, patch_px0)).convert("RGB"))
            cv2.resize(region, (patch_px, patch_px), interpolation=cv2.INTER_AREA)

    return read


@dataclass
class Measured:
    """What was seen of a case: runs, and after each the steps."""

    runs: list[Run]
    steps: list[dict[str, float]]

    def median(self, value: Callable[[Run], float]) -> float:
        """Over the runs."""
        return float(np.median([value(run) for run in self.runs]))

    def limit_ms(self) -> list[float]:
        """Decoding and inference of a patch, after each run."""
        return [steps["decode"] + steps["network"] for steps in self.steps]

    def over_limit(self) -> float:
        """CPU time of a patch, as a multiple of the limit."""
        return float(
            np.median([run.cpu_ms / limit for run, limit in zip(self.runs, self.limit_ms(), strict=True)])
        )


def page(measured: dict[str, Measured], tissue_mm: float, repeats: int, options: str) -> str:
    """The figures as Markdown."""
    plain = measured[CASES[0].name]
    lines = [
        "# Speed of the pipeline",
        "",
        f"Made by `python benchmarks/pipeline.py -o OUT {options} --table docs/benchmark.md`, medians of "
        f"{repeats} repeats, with version {software_version()} on {machine()}. Slides are drawn: 40x, JPEG tiles "
        f"of 256 px, levels 1, 4, 16. The large one has {tissue_mm:g} x {tissue_mm:g} mm of tissue on "
        f"{tissue_mm + 2:g} mm of glass; the small one, of which there are three runs, 4 x 4 mm on 6 mm, or on "
        "12 mm for more glass. CPU time is that of the command and all its processes, start-up, counted cells and "
        "all files included. The limit is decoding each tile once and running the network, measured after each "
        "run in as many processes as there were workers. Absolute figures vary with the machine; ratios hold "
        "better.",
        "",
        "| run | runtime | patches | CPU-ms per patch | of the limit | wall, s | patches/s | slides/hour | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        if case.name not in measured:
            continue
        seen = measured[case.name]
        wall, patches = seen.median(lambda run: run.wall_s), seen.runs[0].patches
        runtimes = "/".join(sorted({run.runtime for run in seen.runs}))
        lines.append(
            f"| {case.name} | {runtimes} | {patches:,} | {seen.median(lambda run: run.cpu_ms):.2f} | "
            f"{f'{seen.over_limit():.2f}' if seen.steps else ''} | {wall:.1f} | {patches / wall:.0f} | "
            f"{3600 / wall:.0f} | "
            f"{seen.median(lambda run: run.peak_mb):.0f} |"
        )
    small, kept, wide = (measured[name] for name in ("PrunEff4, small slide", "pixels kept", "more glass"))
    block = np.median([s["block"] / (s["decode"] + s["network"]) for s in plain.steps])
    openslide_ms, read_ms = (float(np.median([s[name] for s in plain.steps])) for name in ("openslide", "read"))
    grown = np.median([b.wall_s / a.wall_s for a, b in zip(small.runs, wide.runs, strict=True)])
    pixels = np.median([b.wall_s / a.wall_s for a, b in zip(small.runs, kept.runs, strict=True)])
    if ONE_WORKER in measured:
        one, two = (measured[name].median(lambda run: run.wall_s) for name in (ONE_WORKER, CASES[0].name))
        lines += ["", f"Two workers do {one / two:.2f} times the work of one."]
    lines += [
        "",
        "MB is the largest process.",
        "",
        f"- A whole block takes {block:.2f} times the limit, both measured in turn on each block.",
        f"- Patches are read {openslide_ms / read_ms:.1f} times as fast as by `openslide.read_region` alone.",
        f"- Four times the glass around the same tissue takes {100 * (grown - 1):+.0f} % of time.",
        f"- Keeping the pixels of patches takes {100 * (pixels - 1):+.0f} % of time on the small slide.",
        "",
        "Steps of a patch in PrunEff4, fp32, each alone, one thread:",
        "",
        "| step | CPU-ms per patch |",
        "|---|---|",
    ]
    for name, words in STEPS.items():
        lines.append(f"| {words} | {float(np.median([steps[name] for steps in plain.steps])):.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw, run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tissue-mm", type=float, default=16.0, help="side of the large slide's tissue")
    parser.add_argument("--quick", action="store_true", help="leave out the run of one worker, the longest")
    parser.add_argument("--table", type=Path, help="Markdown page to write")
    parser.add_argument("--steps", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--of", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of:
        slide, network, precision, runtime = arguments.of
        cv2.setNumThreads(1)
        print_steps(arguments.steps, Path(slide), network, precision, runtime)
        return
    _adopt_orphans()
    folder, tissue_mm = arguments.output / "slides", arguments.tissue_mm
    sizes = {"small": (4.0, 6.0), "wide": (4.0, 12.0), "large": (tissue_mm, tissue_mm + 2)}
    slides = {
        name: write_section(folder, f"{name}-{tissue:g}-{side:g}", tissue, side, available_cores())
        for name, (tissue, side) in sizes.items()
    }
    cases = [case for case in CASES if not (arguments.quick and case.workers == 1)]
    measured = {case.name: Measured([], []) for case in cases}
    for repeat in range(arguments.repeats):
        for number, case in enumerate(cases):
            run = run_score(slides[case.slide], case)
            steps = list(STEPS) if number == 0 else ["decode", "network"]
            measured[case.name].runs.append(run)
            # The small slides are there for differences in time between each other.
            if case.slide == "large":
                measured[case.name].steps.append(measure_steps(slides[case.slide], case, run.runtime, steps))
            limit = ", ".join(f"limit {ms:.2f}" for ms in measured[case.name].limit_ms()[-1:])
            print(
                f"{repeat + 1}/{arguments.repeats} {case.name}: {run.cpu_ms:.2f} CPU-ms per patch, "
                f"{run.wall_s:.1f} s {limit}",
                file=sys.stderr,
                flush=True,
            )
    options = f"--repeats {arguments.repeats} --tissue-mm {tissue_mm:g}{' --quick' if arguments.quick else ''}"
    text = page(measured, tissue_mm, arguments.repeats, options)
    print(text)
    if arguments.table:
        arguments.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
