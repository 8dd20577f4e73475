"""`calibrate`: a laboratory profile from its controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.progress import Progress

from pipelines.configuration import RunConfig, load_config
from pipelines.fingerprint import software_version
from pipelines.lab_profiles import profiles_folder
from pipelines.run.score import resolve_classifier
from pipelines.sources import SLIDE_SUFFIXES
from pipelines.worker.calling import called_from_cells, confusion_of
from pipelines.worker.cell_fields import cells_of_patch
from wsi_her2.atomic import text_beside
from wsi_her2.cells.field import CellCutoffs, CellSettings
from wsi_her2.cells.scale import CellMargins, Percentages, margins_of, percentages_at
from wsi_her2.errors import LabProfileError, OutputError, SlideReadError
from wsi_her2.learning.cell_lab_fit import CellControl, fit_cutoffs
from wsi_her2.learning.datasets.grades import parse_grade
from wsi_her2.learning.lab_fit import Control, LabFit, fit_gain, fit_stains
from wsi_her2.models.classifier import OTHER, PatchClassifier
from wsi_her2.scoring.call import call_slide
from wsi_her2.scoring.proportions import main_classes
from wsi_her2.scoring.rule import SCORES, Score
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.blocks import sample_patches, sample_places
from wsi_her2.slides.density import StainVectors
from wsi_her2.slides.grid import PatchGrid, plan_patches
from wsi_her2.slides.lab_profile import LabProfile, scaled_correction
from wsi_her2.slides.slide import Slide, open_slide, slide_from_array
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.tissue import detect_tissue

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})

_PATCHES_PER_CONTROL = 96
_FLOOR_MARGIN = 1.5
"""The floor lies this much above the intense staining that was found in controls which hold none."""

_MAX_FLOOR_PCT = 9.0


def calibrate_lab(
    controls: Path,
    name: str | None,
    output: Path | None,
    model: str | None = None,
    mpp: float | None = None,
    console: Console | None = None,
) -> tuple[Path, LabProfile, list[dict[str, str]]]:
    """Fit a profile and write it.

    Parameters
    ----------
    controls : pathlib.Path
        Folder with folders named after the scores; slides, or images with `mpp`.
    name : str, optional
        Of the profile, and where no `output` is given of its place among the profiles.
    output : pathlib.Path, optional
    model : str, optional
        Classifier; the default by default.
    mpp : float, optional
        Microns per pixel of the controls.
    console : rich.console.Console, optional
        Where progress goes.

    Returns
    -------
    tuple
        The file, the profile, and for each control what it is and what it is called.

    Raises
    ------
    LabProfileError
        There are too few controls, one cannot be read, or tumour is found in none.
    OutputError
        The profile cannot be written.
    """
    if name is None and output is None:
        raise LabProfileError("name the profile (--name) or a file for it (-o)")
    target = output or profiles_folder() / f"{name}.json"
    config = load_config(None, {"model": model})
    _, classifier = resolve_classifier(config)
    console = console or Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        files = _files(controls)
        reading = progress.add_task("controls", total=len(files))
        found = []
        for path, score in files:
            found.append(_control(path, score, classifier, mpp))
            progress.advance(reading)
        stains, note = fit_stains([c.patches for c in found], [c.white for c in found])
        fitting = progress.add_task("gain")

        try:
            if called_from_cells(config, classifier):
                cells = [
                    _cell_control(control, path, config, classifier, stains, mpp)
                    for control, (path, _) in zip(found, files, strict=True)
                ]
                fitted = fit_cutoffs(cells, config.cells.cutoffs, config.thresholds)
                fit, cutoffs = fitted.fit, fitted.cutoffs
            else:
                cutoffs = None
                fit = fit_gain(
                    found,
                    *_patch_callers(config, classifier, stains),
                    config.thresholds,
                    lambda done, total: progress.update(fitting, completed=done, total=total),
                )
        except ValueError as error:
            raise LabProfileError(f"{controls}: {error}") from error
    profile = LabProfile(
        name=name or target.stem,
        hematoxylin=stains.first,
        dab=stains.second,
        dab_gain=fit.gain,
        white=_vector(np.median([c.white for c in found], axis=0)),
        intense_floor_pct=_floor(found, fit),
        cell_cutoffs=cutoffs,
        classifier=classifier.name,
        classifier_sha256=classifier.sha256,
        controls={score: sum(c.score == score for c in found) for score in SCORES},
        statements=_statements(found, fit, note),
        version=software_version(),
    )
    _write(target, profile)
    table = [
        {
            "control": control.name,
            "score": control.score,
            "uncalibrated": before,
            "calibrated": after,
            "held_out": held.after,
        }
        for control, before, after, held in zip(found, fit.uncalibrated, fit.calls, fit.held_out, strict=True)
    ]
    return target, profile, table


_Uncalibrated = Callable[[Control], Percentages | None]
_Calibrated = Callable[[Control, float], Percentages | None]


def _patch_callers(
    config: RunConfig, classifier: PatchClassifier, stains: StainVectors
) -> tuple[_Uncalibrated, _Calibrated]:
    """What gives the percentages of a control's patches, as it is and with its DAB divided by a gain."""
    confusion = confusion_of(config, classifier)

    def percentages(patches: RGB) -> Percentages | None:
        try:
            call = call_slide(
                classifier.predict(patches),
                classifier.classes,
                shares=classifier.outputs == "shares",
                confusion=confusion,
            )
        except ValueError:
            return None
        return tuple(call.percentages[score] for score in SCORES)  # type: ignore[return-value]

    def uncalibrated(control: Control) -> Percentages | None:
        return percentages(StainCorrection("white-point", control.white).apply(control.patches))

    def calibrated(control: Control, gain: float) -> Percentages | None:
        return percentages(scaled_correction(control.white, stains, gain).apply(control.patches))

    return uncalibrated, calibrated


def _cell_control(
    control: Control,
    path: Path,
    config: RunConfig,
    classifier: PatchClassifier,
    stains: StainVectors,
    mpp: float | None,
) -> CellControl:
    """Count the cells of a control once; any cut-offs can follow from the margins."""
    glass, hues = StainCorrection("white-point", control.white), scaled_correction(control.white, stains, 1.0)
    with _opened(path, mpp) as slide:
        grid = plan_patches(slide, detect_tissue(slide), classifier.patch_px, classifier.mpp)
        places = _tumour_places(slide, grid, classifier, glass)
        plain, turned = (_cells(slide, grid, places, stain) for stain in (glass, hues))

    def with_cutoffs(cells: CellMargins, cutoffs: CellCutoffs) -> Percentages | None:
        return percentages_at(cells, cutoffs, config.cells.min_tumour_probability, config.cells.min_cells)

    return CellControl(
        control.name,
        control.score,
        with_cutoffs(plain, config.cells.cutoffs),
        lambda cutoffs: with_cutoffs(turned, cutoffs),
    )


def _tumour_places(
    slide: Slide, grid: PatchGrid, classifier: PatchClassifier, glass: StainCorrection
) -> list[tuple[int, int]]:
    places = []
    for x, y in sample_places(grid, _PATCHES_PER_CONTROL).tolist():
        try:
            patch = glass.apply(slide.read(x, y, grid.patch_px, grid.patch_px, grid.mpp))[None]
        except SlideReadError:
            continue
        label = main_classes(classifier.predict(patch), classifier.classes, shares=True)[0]
        if classifier.classes[label] != OTHER:
            places.append((x, y))
    return places


def _cells(
    slide: Slide, grid: PatchGrid, places: Sequence[tuple[int, int]], stain: StainCorrection
) -> CellMargins:
    found = [cells_of_patch(slide, grid, place, stain, CellSettings()) for place in places]
    return margins_of([field[0] for field in found if field is not None])


def _files(folder: Path) -> list[tuple[Path, Score]]:
    if not folder.is_dir():
        raise LabProfileError(f"{folder}: no such folder of controls")
    found: list[tuple[Path, Score]] = []
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        score = parse_grade(below.name)
        if score is None:
            continue
        found += [
            (path, score)  # type: ignore[misc]
            for path in sorted(below.iterdir())
            if path.suffix.lower() in IMAGE_SUFFIXES | SLIDE_SUFFIXES and not path.name.startswith(".")
        ]
    if len(found) < 2:
        raise LabProfileError(
            f"{folder}: needs at least two controls in folders named 0, 1+, 2+ and 3+; found {len(found)}. One of "
            "each score is best."
        )
    if len({score for _, score in found}) < 2:
        raise LabProfileError(f"{folder}: all controls are {found[0][1]}; a scale needs at least two scores")
    return found


def _control(path: Path, score: Score, classifier: PatchClassifier, mpp: float | None) -> Control:
    with _opened(path, mpp) as slide:
        mask = detect_tissue(slide)
        grid = plan_patches(slide, mask, classifier.patch_px, classifier.mpp)
        patches = sample_patches(slide, grid, _PATCHES_PER_CONTROL)
    if len(patches) == 0:
        raise LabProfileError(
            f"{path}: no patch of {classifier.patch_px} px at {classifier.mpp:g} um/px holds enough tissue"
        )
    return Control(f"{path.parent.name}/{path.name}", score, patches, mask.white_point.rgb)


def _opened(path: Path, mpp: float | None) -> Slide:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return open_slide(path, mpp=mpp)
    if mpp is None:
        raise LabProfileError(f"{path}: an image does not say how many microns a pixel measures: pass --mpp")
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise LabProfileError(f"{path}: cannot be decoded as an image")
    return slide_from_array(np.ascontiguousarray(pixels[..., ::-1]), mpp, path.name)


def _floor(controls: list[Control], fit: LabFit) -> float | None:
    """Above the intense staining found where there is none."""
    false = [
        found[3]
        for control, found in zip(controls, fit.percentages, strict=True)
        if control.score in ("0", "1+") and found is not None
    ]
    return round(min(_FLOOR_MARGIN * max(false), _MAX_FLOOR_PCT), 2) if false else None


def _statements(controls: list[Control], fit: LabFit, note: str) -> dict[str, str]:
    number = len(controls)
    before = sum(call == control.score for call, control in zip(fit.uncalibrated, controls, strict=True))
    after = sum(call == control.score for call, control in zip(fit.calls, controls, strict=True))
    held = sum(h.after == h.score for h in fit.held_out)
    gains = [h.gain for h in fit.held_out]
    verdict = "it helps" if fit.helped else "it does not help on controls that it was not fitted on"
    said = {
        "gain": f"DAB stains {fit.gain:.2f} times as strongly as on the scale of the cut-offs; with one control "
        f"left out the gain is {min(gains):.2f} to {max(gains):.2f}",
        "agreement": f"{before} of {number} controls are called right without the profile, {after} with it, and "
        f"{held} when each is called by a profile fitted on the others: {verdict}",
    }
    if note:
        said["stains"] = note
    return said


def _write(target: Path, profile: LabProfile) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with text_beside(target) as stream:
            stream.write(profile.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error


def _vector(values: Any) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 2) for value in values)
    return red, green, blue
