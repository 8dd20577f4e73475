"""What a user would run on a file, by kind of file; each takes a path and a number that varies what is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsi_her2.errors import HER2Error, ImplausibleResolution, MissingResolution, SlideReadError
from wsi_her2.slides.blocks import read_block, sample_patches
from wsi_her2.slides.controls import find_controls
from wsi_her2.slides.grid import plan_patches
from wsi_her2.slides.opening import FILE_BACKENDS
from wsi_her2.slides.regions import restrict
from wsi_her2.slides.slide import Slide, open_slide, slide_from_array
from wsi_her2.slides.tissue import detect_tissue

_BLOCKS, _SAMPLES = 4, 16
_PATCH_PX, _MPP = 128, 0.5


def use_slide(path: Path, variant: int) -> None:
    """Open, find tissue and controls, plan, sample, read blocks; mostly with any backend, sometimes with one."""
    backend = FILE_BACKENDS[variant // 4 % len(FILE_BACKENDS)] if variant % 4 == 0 else "auto"
    with _opened(path, backend) as slide:
        mask = detect_tissue(slide)
        find_controls(mask)
        grid = plan_patches(slide, mask, _PATCH_PX, _MPP)
        sample_patches(slide, grid, _SAMPLES)
        for block in np.linspace(0, grid.n_blocks - 1, min(_BLOCKS, grid.n_blocks)).astype(int):
            read_block(slide, grid, int(block))
        width, height = slide.dimensions
        for x, y in ((0, 0), (width // 2, height // 2), (width - 1, height - 1)):
            try:
                slide.read(x, y, 64, 64, slide.mpp * 2)
            except SlideReadError:
                continue


def _opened(path: Path, backend: str) -> Slide:
    try:
        return open_slide(path, backend=backend)
    except (MissingResolution, ImplausibleResolution):
        return open_slide(path, mpp=0.5, backend=backend)


def use_regions(path: Path, variant: int) -> None:
    """Restrict the tissue of a slide to regions."""
    restrict(_mask(), path)


def _mask() -> object:
    if "mask" not in _KEPT:
        from tests.fuzz.images import tissue

        _KEPT["mask"] = detect_tissue(slide_from_array(tissue(), 0.5))
    return _KEPT["mask"]


_KEPT: dict[str, object] = {}


def use_config(path: Path, variant: int) -> None:
    """Resolve a configuration of a run, of a training, of a study."""
    from pydantic import ValidationError

    from pipelines.configuration import load_config, read_mapping

    try:
        load_config(path, {"compute.workers": 1})
    except HER2Error:
        _, described = read_mapping(path)
        from pipelines.training.train_network import NetworkTraining

        try:
            NetworkTraining.model_validate(described)
        except ValidationError:
            return


def use_lab(path: Path, variant: int) -> None:
    """Read a laboratory profile and make a correction of it."""
    from wsi_her2.slides.lab_profile import read_profile
    from wsi_her2.slides.white_point import WhitePoint

    profile, _ = read_profile(path)
    profile.correction(WhitePoint((240.0, 240.0, 240.0), "background", 0.5)).apply(
        np.full((2, 8, 8, 3), 120, np.uint8)
    )


def use_keras(path: Path, variant: int) -> None:
    """Import a Keras file, up to the network in torch."""
    from pipelines.models import read_keras_file
    from wsi_her2.models.keras_import import architecture_of, weights_from_keras

    content = read_keras_file(path)
    architecture = architecture_of(content)
    from wsi_her2.models.networks.deployed import build_network

    weights_from_keras(content, architecture, build_network(architecture))


def use_model(path: Path, variant: int) -> None:
    """Load a classifier and score patches with it."""
    from wsi_her2.models.loading import load_classifier

    runtime = ("onnx", "onnx", "onnx", "auto", "torch", "openvino")[variant % 6]
    if path.suffix == ".json":
        runtime = "auto"
    classifier = load_classifier(path, runtime, "int8" if variant % 5 == 0 and runtime == "onnx" else "fp32")
    side = classifier.patch_px
    classifier.predict(np.full((2, side, side, 3), 180, np.uint8))
    dict(classifier.card)


def use_table(path: Path, variant: int) -> None:
    """Read a table of truth."""
    from wsi_her2.learning.datasets.truth import is_truth_table, read_slide_labels, read_truth

    (read_truth if is_truth_table(path) else read_slide_labels)(path)


def use_dataset(path: Path, variant: int) -> None:
    """Read a folder of classes, its pictures included."""
    from wsi_her2.learning.datasets import read_folder

    reading = read_folder(path, thorough=variant % 2 == 0)
    for example in reading.dataset.examples[:4]:
        example.pixels.read()


def use_store(path: Path, variant: int) -> None:
    """Read the store of an earlier run as training data."""
    from wsi_her2.learning.datasets import read_stores

    reading = read_stores(path, {"slide": "1+"})
    for example in reading.dataset.examples[:4]:
        example.pixels.read()


def use_itself(path: Path, variant: int) -> None:
    """What the harness has to notice, named by the file: so that it can be tested."""
    import os
    import signal
    import time

    if path.name == "hang":
        time.sleep(3600)
    elif path.name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif path.name == "memory":
        np.ones(10 * 2**30, np.uint8)
    elif path.name == "write here":
        Path("left behind").write_text("x")
    elif path.name == "write there":  # a path outside, even if nothing comes of it
        Path("/tmp/.written-by-a-test-of-the-harness").unlink(missing_ok=True)
    elif path.name == "raise":
        raise LookupError("nothing of ours")
    elif path.name == "refuse":
        raise SlideReadError("said")


TARGETS: dict[str, Callable[[Path, int], None]] = {
    "slide": use_slide,
    "regions": use_regions,
    "config": use_config,
    "lab": use_lab,
    "keras": use_keras,
    "model": use_model,
    "table": use_table,
    "dataset": use_dataset,
    "store": use_store,
    "itself": use_itself,
}
