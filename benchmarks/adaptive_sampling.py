"""What `--sampling adaptive` saves, and whether it comes to the call of the full run.

    python benchmarks/adaptive_sampling.py -o OUT [--table docs/sampling.md] [--first-seed N] [--slides N]

Draws digital slides of all scores and of their borders, scores each in full and adaptively with the installed
pipeline, and compares calls, patches and time. OUT keeps the slides and the results; --table writes the summary as
a page. The rule was tuned on other seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.cluster import available_cores
from pipelines.configuration import load_config
from pipelines.run.score import score
from pipelines.worker.calling import confusion_of
from pipelines.worker.sampling import round_sizes, spread_order
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.models.loading import load_classifier
from wsi_her2.phantom import PhantomSpec, render_phantom
from wsi_her2.scoring.call import call_slide
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.store import PatchStore

FIRST_SEED = 720_000
LOOKS = ("random", "oesophagus_tma", "nanozoomer", "aperio", "bluish")
KINDS: dict[str, tuple[float, float, float, float] | None] = {
    "0": None,
    "1+": None,
    "2+": None,
    "3+": None,
    "14% 1+": (0.86, 0.14, 0.0, 0.0),
    "14% 2+": (0.56, 0.30, 0.14, 0.0),
    "6% 3+": (0.32, 0.30, 0.32, 0.06),
    "16% 3+": (0.26, 0.29, 0.29, 0.16),
}
MODEL = "pruneff4-phantoms"
ASKED = (0.8, 0.9, 0.95, 0.99)
SIZE_MM = 4.0
MPP = 0.5


def slides(first_seed: int, count: int) -> dict[str, PhantomSpec]:
    """Slides to draw, by name: kinds in turn, looks in turn, every other one a resection."""
    specs = {}
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        shares = KINDS[kind]
        specs[f"{number:02d}_{kind.replace('%', 'pct').replace('+', 'plus').replace(' ', '_')}"] = PhantomSpec(
            score=kind if shares is None else None,  # type: ignore[arg-type]
            class_fractions=shares,
            look=LOOKS[number % len(LOOKS)],  # type: ignore[arg-type]
            outline="resection" if number % 2 else "core",
            width_mm=SIZE_MM,
            height_mm=SIZE_MM,
            mpp=MPP,
            seed=first_seed + number,
        )
    return specs


def draw(folder: Path, specs: dict[str, PhantomSpec]) -> list[Path]:
    """Draw the slides that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, spec in specs.items():
        if not (folder / f"{name}.tif").exists():
            render_phantom(spec, folder / f"{name}.tif", workers=available_cores())
    return [folder / f"{name}.tif" for name in specs]


@dataclass(frozen=True)
class Pair:
    """A slide scored in full and adaptively."""

    name: str
    full: SlideResult
    sampled: SlideResult

    @property
    def scores(self) -> tuple[str, str]:
        """In full and sampled; the status where there is no score."""
        full, sampled = (
            (result.call.score or result.call.group) if result.call else result.status
            for result in (self.full, self.sampled)
        )
        return full, sampled

    @property
    def share(self) -> float:
        """Of the patches that the sample took."""
        sample = self.sampled.sample
        return 1.0 if sample is None or not sample.of_patches else sample.patches / sample.of_patches

    @property
    def seconds(self) -> tuple[float, float]:
        """Of the blocks, in full and sampled."""
        return self.full.timings_s.get("blocks", 0.0), self.sampled.timings_s.get("blocks", 0.0)


@dataclass(frozen=True)
class Replay:
    """What a sample would have been at another asked confidence."""

    stated: float
    same: bool
    share: float


def replay(store: PatchStore, classifier: PatchClassifier, asked: float) -> Replay:
    """Take a sample from the patches of a full run, as the pipeline would."""
    rows = int(store.attributes["block_edge"]) ** 2
    probabilities, selected, tissue = store.probabilities, store.grid.selected, store.tissue
    block_of_patch = np.arange(len(selected)) // rows
    confusion, shares = confusion_of(load_config(), classifier), classifier.outputs == "shares"
    whole = call_slide(probabilities, store.classes, tissue, confusion=confusion, shares=shares)
    order = spread_order(store.xy[::rows])
    for size in round_sizes(len(order)):
        seen = np.isin(block_of_patch, order[:size])
        call = call_slide(
            np.where(seen[:, None], probabilities, np.nan).astype(np.float32),
            store.classes,
            tissue,
            blocks=block_of_patch,
            unseen=len(order) - size,
            confusion=confusion,
            shares=shares,
        )
        if call.confidence >= asked:
            break
    return Replay(call.confidence, call.score == whole.score, float(selected[seen].sum() / selected.sum()))


def table(pairs: Sequence[Pair], replays: dict[float, list[Replay]], command: str) -> str:
    """The figures as Markdown."""
    shares = [pair.share for pair in pairs]
    full, sampled = (sum(pair.seconds[which] for pair in pairs) for which in (0, 1))
    stated = [pair.sampled.sample.confidence for pair in pairs if pair.sampled.sample is not None]
    same = sum(pair.scores[0] == pair.scores[1] for pair in pairs)
    lines = [
        "# Adaptive sampling",
        "",
        f"Made by `{command}`: {len(pairs)} digital slides of {SIZE_MM:g} x {SIZE_MM:g} mm of all scores and of "
        "their borders, scored in full and with `--sampling adaptive` by PrunEff4 trained on digital slides. "
        "Agreement on digital slides says nothing about tissue.",
        "",
        "| | |",
        "|---|---|",
        f"| same call as the full run | {same} of {len(pairs)} |",
        f"| stated confidence, mean | {np.mean(stated):.3f} |",
        f"| share of the patches: median, mean, largest | {100 * np.median(shares):.0f} %, "
        f"{100 * np.mean(shares):.0f} %, {100 * max(shares):.0f} % |",
        f"| time of the blocks, share of the full run's | {100 * sampled / full:.0f} % |",
        "",
        "Asked for less confidence, the samples of the same slides would have been:",
        "",
        "| asked | stated, mean | same call | patches, median |",
        "|---|---|---|---|",
    ]
    for asked, found in replays.items():
        agreeing = [one.same for one in found]
        lines.append(
            f"| {asked:g} | {np.mean([one.stated for one in found]):.3f} | {sum(agreeing)} of {len(found)} "
            f"({np.mean(agreeing):.3f}) | {100 * np.median([one.share for one in found]):.0f} % |"
        )
    lines += ["", "| slide | full | sampled | confidence | patches |", "|---|---|---|---|---|"]
    for pair in pairs:
        sample = pair.sampled.sample
        lines.append(
            f"| {pair.name} | {pair.scores[0]} | {pair.scores[1]} | "
            f"{0 if sample is None else sample.confidence:.3f} | {100 * pair.share:.0f} % |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw, score twice, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="Markdown page to write")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--slides", type=int, default=40)
    arguments = parser.parse_args()
    paths = draw(arguments.output / "slides", slides(arguments.first_seed, arguments.slides))
    results = {}
    for mode in ("full", "adaptive"):
        settings = {"model": MODEL, "cells.mode": "none", "sampling.mode": mode, "patches.block_edge": 2}
        results[mode] = score(paths, arguments.output / mode, load_config(None, settings)).results
    pairs = [
        Pair(full.slide_id, full, sampled)
        for full, sampled in zip(results["full"], results["adaptive"], strict=True)
    ]
    classifier = load_classifier(MODEL)
    stores = [
        PatchStore.open(arguments.output / "full" / pair.name / "patches.zarr")
        for pair in pairs
        if pair.full.status == "scored"
    ]
    replays = {asked: [replay(store, classifier, asked) for store in stores] for asked in ASKED}
    page = table(pairs, replays, f"python benchmarks/adaptive_sampling.py -o OUT --slides {arguments.slides}")
    print(page)
    if arguments.table:
        arguments.table.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
