"""Score the patches of a job with TIAToolbox: its `PatchPredictor` on a slide, with a model of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch_network
import zarr
from measured import Job, Scoring, measure, versions
from tiatoolbox.models import IOPatchPredictorConfig, PatchPredictor
from tiatoolbox.models.models_abc import ModelABC
from tiatoolbox.wsicore.wsireader import OpenSlideWSIReader
from torch.utils.data import DataLoader

NOTES = {"batch": "8", "packages": versions("torch")}


class OurNetwork(ModelABC):
    """The network as TIAToolbox takes models: patches come as its data set reads them, uint8 N x H x W x 3."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.network = torch_network.of_bytes(job)
        torch_network.settle(self.network, torch.zeros((2, job.patch_px, job.patch_px, 3), dtype=torch.uint8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities."""
        return self.network(images)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        """As its own models do it."""
        with torch.inference_mode():
            return model(batch_data.to(device)).numpy()

    @staticmethod
    def postproc(image: np.ndarray) -> np.ndarray:
        """The class of each patch, as its own classifiers give it."""
        return np.argmax(image, axis=-1)


class OnPlaces(PatchPredictor):
    """Its predictor on patches that are given, in place of those of its own grid, through an open reader."""

    places: np.ndarray
    reader: OpenSlideWSIReader

    def get_dataloader(self, *args: object, **kwargs: object) -> DataLoader:
        """Its loader with other coordinates."""
        loader = super().get_dataloader(*args, **kwargs)
        loader.dataset.inputs = self.places
        loader.dataset.reader = self.reader
        return loader


def prepare(job: Job) -> Callable[[str], Scoring]:
    scale = job.patch_px / job.patch_px0
    predictor = OnPlaces(OurNetwork(job), device="cpu")
    # What it opens an SVS file with. Left to itself it takes a tiled TIFF without a vendor's marks for a picture
    # and reads all of it into memory.
    predictor.reader = OpenSlideWSIReader(job.slide)
    NOTES["reader"] = "OpenSlideWSIReader"
    shape = (job.patch_px, job.patch_px)
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": job.mpp}], patch_input_shape=shape, stride_shape=shape
    )
    saved: dict[str, Path] = {}

    def plan(name: str) -> Scoring:
        corners = (job.places[name] * scale).round().astype(int)
        predictor.places = np.concatenate([corners, corners + job.patch_px], axis=1)

        def run() -> None:
            found = predictor.run(
                [predictor.reader],
                patch_mode=False,
                ioconfig=config,
                save_dir=job.folder / name,
                output_type="zarr",
                auto_get_mask=False,
                return_probabilities=True,
            )
            saved[name] = Path(next(iter(found.values())))

        return Scoring(run, lambda: zarr.open(saved[name], mode="r")["probabilities"][:])

    return plan


if __name__ == "__main__":
    measure(prepare, "tiatoolbox", NOTES)
