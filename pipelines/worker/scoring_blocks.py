"""The step that takes the time: a block of patches read, corrected, measured and classified."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from pipelines.worker.kept_open import planned_slide
from pipelines.worker.task import SlideTask
from wsi_her2.scoring.gate import failing_patches
from wsi_her2.scoring.quality import QUALITY, measure_quality
from wsi_her2.slides.blocks import read_block


@dataclass(frozen=True)
class BlockScored:
    """A block that is in the store."""

    n_patches: int
    seconds: float


def score_block(task: SlideTask, fingerprint: str, block: int) -> BlockScored:
    """Read a block once, cut it, correct its stain, classify its patches, write one chunk.

    Parameters
    ----------
    task : SlideTask
    fingerprint : str
        Of the plan, from `Prepared`.
    block : int

    Raises
    ------
    OSError
        The block cannot be written. Pixels that cannot be read are no error: they are left out and counted.
    """
    started = time.perf_counter()
    job = planned_slide(task, fingerprint)
    patches, readable = read_block(job.slide, job.grid, block)
    probabilities = np.full((len(patches), len(job.classifier.classes)), np.nan, np.float32)
    quality = np.full((len(patches), len(QUALITY)), np.nan, np.float32)
    measures = np.full((len(patches), len(job.classifier.measure_names)), np.nan, np.float32)
    if readable.any():
        chosen = patches if readable.all() else patches[readable]
        glass = job.glass.apply(chosen)
        quality[readable] = measure_quality(glass)
        corrected = glass if job.stain == job.glass else job.stain.apply(chosen)
        probabilities[readable], measures[readable] = job.classifier.predict_and_measure(corrected)
        # A patch without probabilities is not scored: all that counts, and the heatmap, leave it out.
        probabilities[failing_patches(quality, job.classifier.modality, task.config.gate)] = np.nan
    job.store.write_block(block, probabilities, quality, measures, patches)
    return BlockScored(int(readable.sum()), time.perf_counter() - started)
