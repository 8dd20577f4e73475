"""What a laboratory profile brings: calls with and without one, for laboratories that stain from half to twice.

    python benchmarks/lab_profiles.py -o OUT [--model NAME_OR_BUNDLE] [--table docs/lab_profiles.md]

Five looks are five laboratories, each with hues, scanner and DAB gain of its own. From each come one small control
per score and eight slides, two of each score; the strength of the staining still varies from slide to slide
within a laboratory. A profile is fitted on the four controls alone. With WSI_HER2_TEST_DATA set, the real cores
are called with each other as controls.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.agreement.calibrate_lab import calibrate_lab
from pipelines.cluster import available_cores
from pipelines.configuration import load_config
from pipelines.run.score import score
from wsi_her2.phantom import PhantomSpec
from wsi_her2.phantom.composition import LookName, Score
from wsi_her2.phantom.render import make_phantom, write_phantom
from wsi_her2.phantom.stains import draw_look
from wsi_her2.scoring.result import SlideResult

SCORES: tuple[Score, ...] = ("0", "1+", "2+", "3+")
LABORATORIES: dict[LookName, float] = {
    "nanozoomer": 0.5,
    "aperio": 0.71,
    "oesophagus_tma": 1.0,
    "random": 1.41,
    "bluish": 2.0,
}
"""Look, and DAB gain relative to the usual density of its vectors."""

SLIDE_MM, CONTROL_MM, SLIDES_PER_SCORE = 1.0, 0.7, 2
FIRST_SEED = 61_000


@dataclass(frozen=True)
class Drawn:
    """A digital slide of a laboratory."""

    path: Path
    score: Score


def draw(folder: Path, look: LookName, gain: float, seed: int) -> tuple[Path, list[Drawn]]:
    """The controls (a folder with a folder for each score) and the slides of a laboratory."""
    lab = draw_look(look, np.random.default_rng([seed, 7]))
    absorption = lab.absorption.copy()
    absorption[1] *= gain / np.linalg.norm(absorption[1])
    lab = replace(lab, absorption=absorption)
    slides = []
    for place, grade in enumerate(SCORES):
        plan = [(folder / "controls" / grade / "control.tif", CONTROL_MM, seed + place)]
        for number in range(SLIDES_PER_SCORE):
            path = folder / "slides" / f"{look}_{grade.replace('+', 'plus')}_{number}.tif"
            plan.append((path, SLIDE_MM, seed + 100 + 10 * place + number))
            slides.append(Drawn(path, grade))
        for path, side_mm, own_seed in plan:
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            spec = PhantomSpec(score=grade, look=look, width_mm=side_mm, height_mm=side_mm, seed=own_seed)
            phantom = replace(make_phantom(spec), look=lab)
            write_phantom(phantom, path, workers=available_cores())
    return folder / "controls", slides


def right(results: list[SlideResult], truth: dict[str, str]) -> int:
    """How many calls are the truth."""
    return sum(result.call is not None and result.call.score == truth[result.slide_id] for result in results)


def cores_table(data: Path, output: Path, model: str | None) -> list[str]:
    """Each real core called by a profile that was fitted on the others."""
    cores = sorted((data / "slides").glob("ihc_core_score*.tif"))
    lines = [
        "| core | pathologist | uncalibrated | with a profile of the other cores | gain |",
        "|---|---|---|---|---|",
    ]
    plain = {r.slide_id: r for r in score(cores, output / "cores", load_config(None, {"model": model})).results}
    for core in cores:
        folder = output / "core-controls" / core.stem
        for other in cores:
            grade = other.stem.removeprefix("ihc_core_score")[0]
            place = folder / (grade + ("+" if grade != "0" else "")) / other.name
            if other != core and not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(other.resolve())
        path, profile, _ = calibrate_lab(folder, None, output / "core-labs" / f"{core.stem}.json", model)
        config = load_config(None, {"model": model, "lab": str(path)})
        call = score([core], output / "cores-calibrated" / core.stem, config).results[0].call
        name = core.stem.removeprefix("ihc_core_score")
        before = plain[core.stem].call
        said = [found.score if found else "no call" for found in (before, call)]
        truth = name[0] + ("+" if name[0] != "0" else "")
        lines.append(f"| {name} | {truth} | {said[0]} | {said[1]} | {profile.dab_gain:.2f} |")
    return lines


def main() -> None:
    """Draw, calibrate, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", help="classifier; the default of the software by default")
    parser.add_argument("--table", type=Path, help="Markdown page to write")
    options = parser.parse_args()
    output: Path = options.output
    lines = [
        "| laboratory (look) | DAB gain | fitted gain | right, uncalibrated | right, with the profile |",
        "|---|---|---|---|---|",
    ]
    totals = np.zeros(3, int)
    named = ""
    for number, (look, gain) in enumerate(LABORATORIES.items()):
        controls, slides = draw(output / "laboratories" / look, look, gain, FIRST_SEED + 1000 * number)
        truth = {slide.path.stem: slide.score for slide in slides}
        paths = [slide.path for slide in slides]
        profile_file, profile, _ = calibrate_lab(controls, None, output / "labs" / f"{look}.json", options.model)
        named = profile.classifier
        found = []
        for name, lab in (("plain", None), ("calibrated", str(profile_file))):
            config = load_config(None, {"model": options.model, "lab": lab})
            results = score(paths, output / name / look, config).results
            found.append(right(list(results), truth))
        totals += (len(slides), *found)
        before, after = (f"{count} of {len(slides)}" for count in found)
        lines.append(f"| {look} | {gain:g} | {profile.dab_gain:.2f} | {before} | {after} |")
    lines.append(f"| all | | | {totals[1]} of {totals[0]} | {totals[2]} of {totals[0]} |")
    page = [
        "# What a laboratory profile brings",
        "",
        "Written by `python benchmarks/lab_profiles.py -o OUT --table docs/lab_profiles.md`.",
        "",
        f"Classifier: {named}. Each laboratory is a look of the digital slides with a DAB gain of its own; its",
        "profile is fitted on one small control per score and used on eight slides that the fit did not see.",
        "Within a laboratory the strength of the staining still varies from slide to slide (log-normal, 0.2).",
        "",
        *lines,
        "",
    ]
    data = os.environ.get("WSI_HER2_TEST_DATA")
    if data:
        page += [
            "## Real cores",
            "",
            "Five tissue-microarray cores of oesophageal adenocarcinoma (bozeklab/HER2-overexpression,",
            "Apache-2.0); the score is one pathologist's. Each is called by a profile fitted on the four others.",
            "",
            *cores_table(Path(data), output, options.model),
            "",
        ]
    text = "\n".join(page)
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
