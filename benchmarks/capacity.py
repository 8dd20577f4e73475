"""What many slides need: cores, days, disk and network, worked out from a run that was made.

    python benchmarks/capacity.py RUN_FOLDER... [--tissue-mm2 X] [--slide-gb X] [--cores N] [--days N] [--busy X]
                                                [--table docs/scale.md]

A RUN_FOLDER is what `wsi-her2 score -o` wrote. Work is taken from the timings in `result.json`, bytes written from
the files of each slide's folder, bytes read from the sizes of the slide files, if they lie where they were. What
grows with a slide is told from what does not by comparing slides, so give runs over slides of several sizes.
Options change assumptions, and the page names them: slides of another size, machines of another kind.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean, linear_regression
from typing import Any

from pipelines.results import read_results
from pipelines.run.record import RUN_FILE
from wsi_her2.scoring.result import SlideResult

COUNTS = (1_000, 100_000, 10_000_000)
SLIDES_PER_FOLDER = 10_000
"""Slides that one output folder, with its table and its page, is meant to hold."""

FARTHEST = 2.0
"""By which factor the tissue that is asked for may differ from slides that were all of about the same size."""

_OF_PATCHES = "blocks"
_SECONDS_OF_DAY = 86_400


@dataclass(frozen=True)
class Line:
    """A quantity of a slide: a part that every slide has, and one for each patch."""

    fixed: float
    per_patch: float

    def at(self, patches: float) -> float:
        """The quantity of a slide with so many patches."""
        return self.fixed + self.per_patch * patches

    def __add__(self, other: Line) -> Line:
        return Line(self.fixed + other.fixed, self.per_patch + other.per_patch)


@dataclass(frozen=True)
class Measured:
    """What the slides of some runs were that were scored.

    Attributes
    ----------
    slides : int
    patches : tuple of float
        Of a slide: least, mean, most.
    patches_per_mm2 : float
    seconds : Line
        Of a worker.
    read_bytes : Line or None
        Size of the slide file; None where none lies where it was.
    written_bytes, written_files : Line
        In the slide's folder.
    busy : float or None
        Share of the time of all workers that they spent on slides; None where the runs do not tell.
    """

    slides: int
    patches: tuple[float, float, float]
    patches_per_mm2: float
    seconds: Line
    read_bytes: Line | None
    written_bytes: Line
    written_files: Line
    busy: float | None

    @property
    def tissue_mm2(self) -> float:
        """Of a slide, on average."""
        return self.patches[1] / self.patches_per_mm2

    @property
    def alike(self) -> bool:
        """Whether the slides are too much of a size to tell what grows with them."""
        return self.patches[2] < FARTHEST * self.patches[0]


@dataclass(frozen=True)
class Wanted:
    """The slides and machines that are asked about.

    Attributes
    ----------
    tissue_mm2, read_bytes : float
        Of a slide.
    cores : int
        Of a machine; each is a worker.
    days : float
        In which all slides are to be done.
    busy : float
        Share of the time in which workers work on slides.
    """

    tissue_mm2: float
    read_bytes: float
    cores: int
    days: float
    busy: float


@dataclass(frozen=True)
class Need:
    """What a number of slides needs.

    Attributes
    ----------
    slides : int
    core_hours : float
    days_of_one : float
        On one machine.
    machines : int
        To be done in time.
    read_bytes, written_bytes, written_files : float
    read_rate, write_rate : float
        Bytes per second, of all machines together while they work.
    folders : int
    """

    slides: int
    core_hours: float
    days_of_one: float
    machines: int
    read_bytes: float
    written_bytes: float
    written_files: float
    read_rate: float
    write_rate: float
    folders: int


def measure(folders: Sequence[Path]) -> Measured:
    """Sum up the scored slides of runs; SystemExit says what is missing."""
    results = [(folder, result) for folder in folders for result in read_results(folder)]
    scored = [(folder, result) for folder, result in results if result.status == "scored" and result.timings_s]
    if not scored:
        raise SystemExit(
            f"{', '.join(map(str, folders))}: no scored slide with timings; name output folders of `score`"
        )
    patches = [float(result.n_patches) for _, result in scored]
    tissue = sum(result.tissue_mm2 or 0.0 for _, result in scored)
    if not sum(patches) or not tissue:
        raise SystemExit(f"{', '.join(map(str, folders))}: the scored slides have no patches or no tissue")
    spent = [_seconds(result) for _, result in scored]
    sizes = [
        (float(result.n_patches), float(size))
        for _, result in scored
        if (size := slide_bytes(Path(result.path))) is not None
    ]
    written = [folder_size(folder / result.slide_id) for folder, result in scored]
    return Measured(
        slides=len(scored),
        patches=(min(patches), fmean(patches), max(patches)),
        patches_per_mm2=sum(patches) / tissue,
        seconds=Line(0.0, sum(part for part, _ in spent) / sum(patches))
        + fit(patches, [rest for _, rest in spent]),
        read_bytes=fit([n for n, _ in sizes], [size for _, size in sizes]) if sizes else None,
        written_bytes=fit(patches, [float(size) for size, _ in written]),
        written_files=fit(patches, [float(files) for _, files in written]),
        busy=_busy(folders, [(folder, sum(_seconds(result))) for folder, result in results]),
    )


def fit(patches: Sequence[float], values: Sequence[float]) -> Line:
    """The line of least squares through slides, neither part below 0; flat where the slides are alike."""
    mean_patches, mean = fmean(patches), fmean(values)
    if max(patches) < FARTHEST * min(patches):
        return Line(mean, 0.0)
    slope = max(0.0, linear_regression(patches, values).slope)
    fixed = mean - slope * mean_patches
    return Line(fixed, slope) if fixed >= 0 else Line(0.0, mean / mean_patches)


def needed(slides: int, measured: Measured, wanted: Wanted) -> Need:
    """What a number of slides needs."""
    patches = wanted.tissue_mm2 * measured.patches_per_mm2
    seconds = slides * measured.seconds.at(patches) / wanted.busy
    days_of_one = seconds / wanted.cores / _SECONDS_OF_DAY
    machines = max(1, math.ceil(days_of_one / wanted.days))
    read, written = slides * wanted.read_bytes, slides * measured.written_bytes.at(patches)
    lasting = days_of_one / machines * _SECONDS_OF_DAY
    return Need(
        slides=slides,
        core_hours=seconds / 3600,
        days_of_one=days_of_one,
        machines=machines,
        read_bytes=read,
        written_bytes=written,
        written_files=slides * measured.written_files.at(patches),
        read_rate=read / lasting,
        write_rate=written / lasting,
        folders=math.ceil(slides / SLIDES_PER_FOLDER),
    )


def slide_bytes(path: Path) -> int | None:
    """Bytes of a slide, with the files that belong to it; None where it is gone.

    MIRAX keeps its pixels in a folder of the same name, DICOM in all files of the folder.
    """
    if not path.is_file():
        return None
    suffix = path.suffix.lower()
    if suffix == ".mrxs" and path.with_suffix("").is_dir():
        return path.stat().st_size + folder_size(path.with_suffix(""))[0]
    if suffix == ".dcm":
        return sum(part.stat().st_size for part in path.parent.iterdir() if part.suffix.lower() == suffix)
    return path.stat().st_size


def folder_size(folder: Path) -> tuple[int, int]:
    """Bytes and number of all files below a folder."""
    sizes = [
        (Path(root) / name).stat(follow_symlinks=False).st_size
        for root, _, names in os.walk(folder)
        for name in names
    ]
    return sum(sizes), len(sizes)


def page(folders: Sequence[Path], measured: Measured, wanted: Wanted, options: str) -> str:
    """The figures and what they rest on, as Markdown."""
    runs = [_run(folder) for folder in folders]
    made_by = sorted({_in_words(run) for run in runs})
    (least, _, most), file = measured.patches, measured.read_bytes
    seconds = measured.seconds.at(wanted.tissue_mm2 * measured.patches_per_mm2)
    rate_of_core = wanted.read_bytes / seconds
    busy = (
        "is not known from the runs" if measured.busy is None else f"was {100 * measured.busy:.0f} % in the runs"
    )
    lines = [
        "# What many slides need",
        "",
        f"Made by `python benchmarks/capacity.py RUN_FOLDER{options} --table docs/scale.md` from "
        f"{measured.slides:,} scored slide{'s' if measured.slides > 1 else ''} of {_number(len(folders), 'run')}: "
        f"{'; '.join(made_by)}. These are sums over what that run measured, not a run of this size.",
        "",
        "| measured | |",
        "|---|---|",
        f"| tissue of a slide | {measured.tissue_mm2:.1f} mm2 |",
        f"| patches | {measured.patches_per_mm2:.0f} per mm2, {least:,.0f} to {most:,.0f} in a slide |",
        f"| work of a worker | {_figures(measured.seconds.fixed)} s for each slide and "
        f"{_figures(1000 * measured.seconds.per_patch)} ms for each patch |",
        *([] if file is None else [f"| slide file | {_parts(file)} |"]),
        f"| written | {_parts(measured.written_bytes)} |",
        f"| files | {_figures(measured.written_files.fixed)} for each slide and "
        f"{_figures(1000 * measured.written_files.per_patch)} for each 1,000 patches |",
        "",
        "Assumed:",
        "",
        f"- A slide has {wanted.tissue_mm2:.3g} mm2 of tissue and a file of {_bytes(wanted.read_bytes)}.",
        "- Each slide's file is read once and whole. Glass is not read, so this is an upper bound.",
        f"- A machine has {wanted.cores} cores like those of the run, with a worker each. Workers are on slides "
        f"{100 * wanted.busy:.0f} % of the time; this {busy}, start and end included.",
        f"- As many machines as finish within {wanted.days:g} days. Disks and network keep up with them.",
        f"- An output folder holds {SLIDES_PER_FOLDER:,} slides.",
        "",
        "| slides | core-hours | days on one machine | machines | days on these | read | reading, Gbit/s "
        "| written | writing, Gbit/s | files | output folders |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for slides in COUNTS:
        need = needed(slides, measured, wanted)
        lines.append(
            f"| {slides:,} | {_figures(need.core_hours)} | {_figures(need.days_of_one)} | {need.machines:,} | "
            f"{_figures(need.days_of_one / need.machines)} | {_bytes(need.read_bytes)} | "
            f"{_figures(8e-9 * need.read_rate)} | {_bytes(need.written_bytes)} | "
            f"{_figures(8e-9 * need.write_rate)} | {_figures(need.written_files)} | {need.folders:,} |"
        )
    lines += [
        "",
        f"A slide is {_figures(seconds)} seconds of a core. While it works a core reads "
        f"{_figures(rate_of_core / 1e6)} MB/s of slide files, so a link of 1 Gbit/s feeds at most "
        f"{_figures(125e6 / rate_of_core)} cores.",
    ]
    return "\n".join(lines) + "\n"


def _seconds(result: SlideResult) -> tuple[float, float]:
    """Of a worker: on the patches, and on the rest of the slide."""
    of_patches = result.timings_s.get(_OF_PATCHES, 0.0)
    return of_patches, sum(result.timings_s.values()) - of_patches


def _busy(folders: Iterable[Path], spent: list[tuple[Path, float]]) -> float | None:
    """Work on slides as a share of what the workers had; None where a run says nothing or reused older results."""
    had = 0.0
    for folder in folders:
        run = _run(folder)
        try:
            lasted = datetime.fromisoformat(run["ended"]) - datetime.fromisoformat(run["started"])
            had += float(run["workers"]) * lasted.total_seconds()
        except (KeyError, TypeError, ValueError):
            return None
    done = sum(seconds for _, seconds in spent)
    return done / had if 0 < done <= had else None


def _run(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / RUN_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"{folder}: {RUN_FILE} cannot be read ({error}); name an output folder of `score`"
        ) from error
    return content if isinstance(content, dict) else {}


def _in_words(run: dict[str, Any]) -> str:
    model, machine, config = (run.get(name) or {} for name in ("model", "machine", "config"))
    described = [
        f"version {run.get('version', 'unknown')}",
        f"model `{model.get('name', 'unknown')}` ({model.get('runtime', '?')}, {model.get('precision', '?')})",
        f"pixels of patches {'kept' if config.get('store_patches') else 'not kept'}",
        f"{run.get('workers', '?')} workers on {machine.get('cores', '?')} cores",
        f"{machine.get('memory_gib', '?')} GiB",
        str(machine.get("platform", "unknown system")),
    ]
    return ", ".join(described)


def _number(count: int, of: str) -> str:
    return f"one {of}" if count == 1 else f"{count} {of}s"


def _figures(value: float) -> str:
    """Three significant figures: more is not known."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    decimals = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):,.{max(0, decimals)}f}"


def _parts(size: Line) -> str:
    return f"{_bytes(size.fixed)} for each slide and {_bytes(size.per_patch)} for each patch"


def _bytes(size: float) -> str:
    steps = list(_units(size))
    value, unit = steps[-1]
    return f"{_figures(value)} {unit}"


def _units(size: float) -> Iterator[tuple[float, str]]:
    for power, unit in enumerate(("B", "kB", "MB", "GB", "TB", "PB")):
        value = size / 1000**power
        if power and value < 1:
            return
        yield value, unit


def main() -> None:
    """Measure, work out, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--tissue-mm2", type=float, help="tissue of a slide; by default that of the runs")
    parser.add_argument("--slide-gb", type=float, help="size of a slide file; by default that of the runs")
    parser.add_argument("--cores", type=int, default=32, help="of a machine")
    parser.add_argument("--days", type=float, default=30.0, help="in which all is to be done")
    parser.add_argument(
        "--busy", type=float, help="share of the time that workers work; by default that of the runs"
    )
    parser.add_argument("--table", type=Path, help="Markdown page to write")
    given = parser.parse_args()
    for name in ("tissue_mm2", "slide_gb", "cores", "days", "busy"):
        value = getattr(given, name)
        if value is not None and not value > 0:
            parser.error(f"--{name.replace('_', '-')} must be more than 0")
    if given.busy is not None and given.busy > 1:
        parser.error("--busy is a share: at most 1")
    measured = measure(given.runs)
    tissue_mm2 = given.tissue_mm2 or measured.tissue_mm2
    if given.slide_gb is not None:
        read_bytes = 1e9 * given.slide_gb
    elif measured.read_bytes is not None:
        read_bytes = measured.read_bytes.at(tissue_mm2 * measured.patches_per_mm2)
    else:
        parser.error("none of the slide files lies where it was, so pass --slide-gb")
    wanted = Wanted(
        tissue_mm2=tissue_mm2,
        read_bytes=read_bytes,
        cores=given.cores,
        days=given.days,
        busy=given.busy or measured.busy or 1.0,
    )
    options = {name: getattr(given, name) for name in ("tissue_mm2", "slide_gb", "cores", "days", "busy")}
    shown = "".join(
        f" --{name.replace('_', '-')} {shlex.quote(f'{value:g}')}"
        for name, value in options.items()
        if value != parser.get_default(name)
    )
    factor = wanted.tissue_mm2 / measured.tissue_mm2
    if measured.alike and not 1 / FARTHEST <= factor <= FARTHEST:
        parser.error(
            f"the slides of the runs are all of about {measured.tissue_mm2:.3g} mm2, which says nothing about "
            f"{wanted.tissue_mm2:g} mm2: give a run over slides of that size as well"
        )
    text = page(given.runs, measured, wanted, shown)
    print(text)
    if given.table:
        given.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
