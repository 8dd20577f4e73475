"""`doctor`: what works on this machine and what does not, each tried rather than looked up."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Attributes
    ----------
    subject : str
    state : {'ok', 'missing', 'broken'}
        'missing' parts are optional.
    detail : str
        What was found, or the line that mends it.
    """

    subject: str
    state: State
    detail: str


def examine() -> list[Finding]:
    """Try everything that scoring needs, and name what is optional and absent."""
    return [
        Finding("Python", "ok", sys.version.split()[0]),
        *(_tried(subject, check) for subject, check in _CHECKS.items()),
        *(_optional(package, extra, purpose) for package, (extra, purpose) in _OPTIONAL.items()),
    ]


def _tried(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, "ok", check())
    except Exception as error:  # noqa: BLE001 - a broken installation can raise anything, and that is the finding
        return Finding(subject, "broken", f"{type(error).__name__}: {error}. Mend: pip install --upgrade wsi-her2")


def _optional(package: str, extra: str, purpose: str) -> Finding:
    try:
        return Finding(package, "ok", metadata.version(package))
    except metadata.PackageNotFoundError:
        return Finding(package, "missing", f"optional, {purpose}: pip install 'wsi-her2[{extra}]'")


def _openslide() -> str:
    import openslide

    return f"library {openslide.__library_version__}, binding {openslide.__version__}"


def _package(name: str) -> Callable[[], str]:
    def check() -> str:
        importlib.import_module(name)
        return metadata.version(name)

    return check


def _codecs() -> str:
    import imagecodecs
    import numpy as np

    image = np.full((64, 64, 3), 200, np.uint8)
    codecs: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = (
        (imagecodecs.jpeg8_encode, imagecodecs.jpeg8_decode),
        (imagecodecs.jpeg2k_encode, imagecodecs.jpeg2k_decode),
        (imagecodecs.zstd_encode, imagecodecs.zstd_decode),
    )
    for encode, decode in codecs:
        decode(encode(image))
    return "JPEG, JPEG 2000 and Zstandard encode and decode"


def _round_trip() -> str:
    import numpy as np

    from wsi_her2.slides.opening import FILE_BACKENDS
    from wsi_her2.slides.pyramid import write_pyramid
    from wsi_her2.slides.slide import open_slide

    pixels = np.full((512, 512, 3), 200, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        write_pyramid(path, 512, 512, lambda x, y, w, h: pixels[y : y + h, x : x + w], mpp=0.25)
        for backend in FILE_BACKENDS:
            with open_slide(path, backend=backend) as slide:
                slide.read(0, 0, 64, 64, 0.5)
    return f"a slide was written, and read by {', '.join(FILE_BACKENDS)}"


def _classifier() -> str:
    import numpy as np

    from wsi_her2.models.loading import load_classifier

    classifier = load_classifier()
    side = classifier.patch_px
    classifier.predict(np.full((1, side, side, 3), 230, np.uint8))
    return f"{classifier.name} for {classifier.modality}"


def _memory() -> str:
    import psutil

    memory = psutil.virtual_memory()
    return f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"


def _cores() -> str:
    from pipelines.cluster import available_cores

    return f"{available_cores()} of {os.cpu_count()} usable"


def _disk() -> str:
    folder = tempfile.gettempdir()
    return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB free in {folder}"


_CHECKS: dict[str, Callable[[], str]] = {
    "cores": _cores,
    "memory": _memory,
    "temporary files": _disk,
    "OpenSlide": _openslide,
    "tiffslide": _package("tiffslide"),
    "tifffile": _package("tifffile"),
    "simplejpeg": _package("simplejpeg"),
    "codecs": _codecs,
    "slide round trip": _round_trip,
    "zarr": _package("zarr"),
    "dask": _package("dask"),
    "distributed": _package("distributed"),
    "onnxruntime": _package("onnxruntime"),
    "classifier": _classifier,
}

_OPTIONAL = {
    "torch": ("torch", "training, import from Keras and the reference runtime"),
    "timm": ("torch", "the networks in torch"),
    "onnx": ("torch", "quantising to int8"),
    "h5py": ("torch", "import from Keras"),
    "openvino": ("openvino", "a faster runtime on Intel processors"),
    "uvicorn": ("view", "the review pages"),
    "aiohttp": ("cloud", "slides behind https:// URLs"),
    "s3fs": ("cloud", "slides in object storage, s3:// URLs"),
    "reportlab": ("pdf", "reports as PDF"),
}
