"""Score the patches of a job with LazySlide: `tile_prediction` with a model of one's own on tiles of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lazyslide as zs
import numpy as np
import torch
import torch_network
from lazyslide_models.base import TilePredictionModel
from measured import Job, Scoring, measure, versions
from torchvision.transforms import v2
from wsidata import TileSpec, open_wsi
from wsidata.io import add_tiles

NOTES = {"batch": "16", "packages": versions("torch", "wsidata", "lazyslide-models")}


class OurNetwork(TilePredictionModel):
    """The network as LazySlide takes models that give a few numbers for a tile."""

    def __init__(self, job: Job) -> None:
        self.model = torch_network.of_unit_images(job)
        self.columns = tuple(f"prob_{name}" for name in job.classes)
        torch_network.settle(self.model, torch.zeros((2, 3, job.patch_px, job.patch_px)))

    def get_transform(self) -> Callable[[Any], torch.Tensor]:
        """As LazySlide's own image models convert tiles; what follows there is inside the network."""
        return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])

    def predict(self, image: torch.Tensor) -> dict[str, np.ndarray]:
        """A column for each class."""
        return dict(zip(self.columns, self.model(image).numpy().T, strict=True))


def prepare(job: Job) -> Callable[[str], Scoring]:
    model = OurNetwork(job)
    slide = open_wsi(job.slide, store=None)
    NOTES["reader"] = slide.reader.name
    spec = TileSpec.from_wsidata(slide, tile_px=job.patch_px, mpp=job.mpp, slide_mpp=job.slide_mpp)
    NOTES["level"] = str(spec.ops_level)

    def plan(name: str) -> Scoring:
        places = job.places[name]
        add_tiles(slide, name, places, spec, np.zeros(len(places), int))

        def run() -> None:
            zs.tl.tile_prediction(slide, model, tile_key=name, device="cpu", pbar=False)

        return Scoring(run, lambda: slide.shapes[name][list(model.columns)].to_numpy())

    return plan


if __name__ == "__main__":
    measure(prepare, "lazyslide", NOTES)
