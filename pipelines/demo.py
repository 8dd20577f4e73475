"""`demo`: a slide made on the spot, scored like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pipelines.configuration import load_config
from pipelines.run import RunSummary, score
from wsi_her2.errors import OutputError
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.pyramid import write_pyramid

_GLASS = (236, 235, 240)
_MPP = 0.5
_TILES = 5


def run_demo(output: Path) -> tuple[RunSummary, str]:
    """Make the demonstration slides and score them.

    Returns
    -------
    tuple of RunSummary and str
        And what a viewer should know of the slides.
    """
    slides = output / "slides"
    try:
        slides.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error
    stained = _core()
    write_pyramid(slides / "stained_core.tif", stained.shape[1], stained.shape[0], _reader_of(stained), mpp=_MPP)
    blank = np.full_like(stained, _GLASS)
    write_pyramid(slides / "blank_glass.tif", blank.shape[1], blank.shape[0], _reader_of(blank), mpp=_MPP)
    summary = score([slides], output / "results", load_config(None))
    note = (
        "The stained slide repeats one field of colonic tissue (FHL2, from scikit-image), not HER2: it shows how "
        "the pipeline works, and its call means nothing. The blank one must be refused."
    )
    return summary, note


def _core() -> RGB:
    """A round core: the field, mirrored so that it continues without seams, on off-white glass."""
    from skimage import data

    field: RGB = data.immunohistochemistry()
    pair = np.concatenate([field, field[:, ::-1]], axis=1)
    mirrored = np.concatenate([pair, pair[::-1]], axis=0)
    repeats = -(-_TILES // 2)
    tissue = np.tile(mirrored, (repeats, repeats, 1))
    side = tissue.shape[0] + 512
    canvas = np.full((side, side, 3), _GLASS, np.uint8)
    canvas[256:-256, 256:-256] = tissue
    inside = np.zeros((side, side), np.float32)
    cv2.circle(inside, (side // 2, side // 2), tissue.shape[0] // 2 - 8, 1.0, -1)
    inside = cv2.GaussianBlur(inside, (0, 0), 2.0)[..., None]
    return np.asarray(canvas * inside + np.asarray(_GLASS, np.float32) * (1 - inside), np.uint8)


def _reader_of(pixels: RGB) -> Callable[[int, int, int, int], RGB]:
    def render(x: int, y: int, width: int, height: int) -> RGB:
        return pixels[y : y + height, x : x + width]

    return render
