"""The step after each round of a sample: is it enough, or which blocks come next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.worker.calling import call_settings, percentages_of, tumour_patches
from pipelines.worker.kept_open import planned_slide, run_lab
from pipelines.worker.sampling import Assessment, assess_sample
from pipelines.worker.task import SlideTask
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.scoring.call import SlideCall, call_slide
from wsi_her2.slides.store import PatchStore


@dataclass(frozen=True)
class SampleExtended:
    """A round of a slide's sample is scored, and was assessed.

    Attributes
    ----------
    pending : tuple of int
        Blocks of the next round; none where the sample is enough.
    n_left_out : int
        Blocks that will then not be scored.
    """

    pending: tuple[int, ...]
    n_left_out: int = 0


def extend_sample(task: SlideTask, fingerprint: str) -> SampleExtended:
    """Look, once a round of a sample is scored, whether it is enough, or which blocks come next.

    Parameters
    ----------
    task : SlideTask
    fingerprint : str
        Of the plan, from `Prepared`.

    Raises
    ------
    OSError
    """
    job = planned_slide(task, fingerprint)
    assessment = assess(task, job.store, job.classifier)
    left_out = 0 if assessment.pending else int((~job.store.done).sum())
    return SampleExtended(assessment.pending, left_out)


def assess(task: SlideTask, store: PatchStore, classifier: PatchClassifier) -> Assessment:
    """Whether what is scored of a slide is enough for its call from patches."""
    settings = call_settings(task.config, classifier, run_lab(task))
    weights, made = store.tissue, percentages_of(settings)

    def call(
        probabilities: npt.NDArray[np.float32], blocks: npt.NDArray[np.int64], unseen: int
    ) -> SlideCall | None:
        found = tumour_patches(probabilities, classifier.classes, classifier.outputs == "shares")
        if found < settings.gate.min_tumour_patches:
            return None
        return call_slide(
            probabilities, classifier.classes, weights, settings.thresholds, blocks=blocks, unseen=unseen, **made
        )

    return assess_sample(store, call, task.config.sampling.confidence)
