"""Score the blocks of a job with this package, each as a worker of `wsi-her2 score` scores it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from measured import Job, Scoring, measure

from pipelines.configuration import load_config
from pipelines.results import STORE
from pipelines.run.score import resolve_classifier
from pipelines.worker.preparing import prepare_slide
from pipelines.worker.scoring_blocks import score_block
from pipelines.worker.task import SlideTask
from wsi_her2.slides.store import PatchStore

NOTES: dict[str, str] = {}


def prepare(job: Job) -> Callable[[str], Scoring]:
    config = load_config(None, {"model": job.more["bundle"], "precision": job.more["precision"]})
    choice, classifier = resolve_classifier(config)
    task = SlideTask(job.slide.stem, job.slide, job.folder, config, choice, classifier.sha256, fresh=True)
    prepared = prepare_slide(task)
    if prepared.result is not None:
        raise RuntimeError(f"{job.slide} is not scored: {prepared.result.status}: {prepared.result.reason}")
    NOTES["runtime"] = classifier.runtime

    def plan(name: str) -> Scoring:
        blocks = job.more["blocks"][name]

        def run() -> None:
            for block in blocks:
                score_block(task, prepared.fingerprint, block)

        def probabilities() -> np.ndarray:
            store = PatchStore.open(task.partial / STORE)
            grid, found = store.grid, store.probabilities
            rows = [grid.rows(block) for block in blocks]
            return np.concatenate([found[of_block][grid.selected[of_block]] for of_block in rows])

        return Scoring(run, probabilities)

    return plan


if __name__ == "__main__":
    measure(prepare, "wsi-her2", NOTES)
