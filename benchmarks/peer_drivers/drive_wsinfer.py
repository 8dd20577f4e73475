"""Score the patches of a job with wsinfer: its `run_inference` on a file of patches as its patching writes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch_network
from measured import Job, Scoring, measure, versions
from wsinfer.modellib import run_inference as inference
from wsinfer.modellib.models import LocalModelTorchScript
from wsinfer.patchlib import PATCHES_DIR, save_hdf5
from wsinfer.wsi import WSI
from wsinfer_zoo.client import ModelConfiguration

NOTES = {"reader": WSI.__module__.split(".")[0], "batch": "32", "packages": versions("torch", "tiffslide")}


def prepare(job: Job) -> Callable[[str], Scoring]:
    os.environ["WSINFER_FORCE_CPU"] = "1"
    # A model's configuration as `wsinfer run --config` takes it.
    transform = [{"name": "Resize", "arguments": {"size": job.patch_px}}, {"name": "ToTensor"}]
    described = {
        "spec_version": "1.0",
        "architecture": "torchscript",
        "num_classes": len(job.classes),
        "class_names": job.classes,
        "patch_size_pixels": job.patch_px,
        "spacing_um_px": job.mpp,
        "transform": transform,
    }
    saved = job.folder / "model.pt"
    network = torch_network.of_unit_images(job, logarithm=True)
    network.save(str(saved))
    model = LocalModelTorchScript(config=ModelConfiguration.from_dict(described), model_path=str(saved))
    torch_network.settle(network, torch.zeros((2, 3, job.patch_px, job.patch_px)))
    # `run_inference` loads the model; here it gets the loaded one, so that loading is not timed.
    inference.get_pretrained_torch_module = lambda **_: network
    slides = job.folder / "slides"
    slides.mkdir()
    (slides / job.slide.name).symlink_to(job.slide)

    def plan(name: str) -> Scoring:
        results = job.folder / name
        patches = results / PATCHES_DIR / f"{job.slide.stem}.h5"
        patches.parent.mkdir(parents=True)
        save_hdf5(patches, job.places[name], job.patch_px0, job.mpp)

        def run() -> None:
            failed = inference.run_inference(slides, results, model)
            if any(failed):
                raise RuntimeError(f"wsinfer failed on the slide: {failed}")

        return Scoring(run, lambda: _read(results / "model-outputs-csv" / f"{job.slide.stem}.csv", job))

    return plan


def _read(path: Path, job: Job) -> np.ndarray:
    return pd.read_csv(path)[[f"prob_{name}" for name in job.classes]].to_numpy()


if __name__ == "__main__":
    measure(prepare, "wsinfer", NOTES)
