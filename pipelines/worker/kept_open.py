"""What a worker process keeps from step to step: the open slide, the classifier, the laboratory's profile."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2

from pipelines.worker.plan import read_plan
from pipelines.worker.task import SlideTask
from wsi_her2.errors import ClassifierError, LabProfileError, SlideChanged, StoreError
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.models.loading import ClassifierChoice
from wsi_her2.slides.grid import PatchGrid
from wsi_her2.slides.lab_profile import LabProfile, read_profile
from wsi_her2.slides.slide import Slide, open_slide
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.store import PatchStore


@dataclass(frozen=True, eq=False)
class PlannedSlide:
    """A slide, open, with all that its blocks need."""

    slide: Slide
    store: PatchStore
    grid: PatchGrid
    glass: StainCorrection
    stain: StainCorrection
    classifier: PatchClassifier


@lru_cache(maxsize=4)
def planned_slide(task: SlideTask, fingerprint: str) -> PlannedSlide:
    """A slide as its plan says it is to be read; kept open, because its next block will want it.

    Raises
    ------
    StoreError
        The plan has gone or is another.
    SlideChanged
        The file is not the one that was planned.
    """
    settle_process()
    plan = read_plan(task, fingerprint)
    if plan is None:
        raise StoreError(f"{task.partial}: another run has changed the plan of the slide. Run again.")
    if task.fingerprint() != fingerprint:
        raise SlideChanged(f"{task.path}: the slide has changed since it was opened")
    slide = open_slide(task.path, mpp=task.config.mpp, backend=plan.reader.backend)
    store = PatchStore.open(task.store)
    glass = StainCorrection("white-point", plan.white_point.rgb)
    classifier = run_classifier(task)
    return PlannedSlide(slide, store, store.grid, glass, plan.stain, classifier)


_LOADING = threading.Lock()


def run_classifier(task: SlideTask) -> PatchClassifier:
    """The classifier of a run, loaded once in a process, whatever the number of its threads.

    Raises
    ------
    ClassifierError
        It is not, or no longer, the one that the run began with.
    """
    with _LOADING:
        return _loaded(task.classifier, task.classifier_sha256)


@lru_cache(maxsize=2)
def _loaded(choice: ClassifierChoice, sha256: str) -> PatchClassifier:
    classifier = choice.load()
    if classifier.sha256 != sha256:
        raise ClassifierError(f"{choice.name_or_path}: the classifier has changed since the run began. Run again.")
    return classifier


def run_lab(task: SlideTask) -> LabProfile | None:
    """The laboratory profile of a run, if it has one.

    Raises
    ------
    LabProfileError
        It has changed since the run began.
    """
    return _read_lab(task.lab, task.lab_sha256)


@lru_cache(maxsize=2)
def _read_lab(path: Path | None, sha256: str | None) -> LabProfile | None:
    if path is None:
        return None
    profile, found = read_profile(path)
    if found != sha256:
        raise LabProfileError(f"{path}: the profile has changed since the run began. Run again.")
    return profile


def settle_process() -> None:
    """One thread per worker, since the workers already fill the cores, and no codec chatter."""
    cv2.setNumThreads(1)
    # tifffile reports every odd tag of a damaged file, again and again; what matters becomes an error of ours.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
