"""Which backend reads a file: the one that is named, or the first that proves that it can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wsi_her2.errors import SlideNotFound, SlideReadError, UnsupportedSlide
from wsi_her2.slides.backends import Backend, OpenSlideBackend, TiffSlideBackend
from wsi_her2.slides.claims import refuse_impossible_levels, refuse_impossible_tiff
from wsi_her2.slides.tiled_jpeg import TiledJpegBackend

_OPENERS: dict[str, Callable[[Path], Backend]] = {
    "tiled-jpeg": TiledJpegBackend,
    "openslide": OpenSlideBackend,
    "tiffslide": TiffSlideBackend,
}

FILE_BACKENDS = tuple(_OPENERS)
"""Backends that read files, in the order in which they are tried."""


def open_backend(path: Path, name: str) -> Backend:
    """Open a file with one named backend.

    Raises
    ------
    SlideNotFound, UnsupportedSlide
    """
    if not path.exists():
        raise SlideNotFound(f"{path}: no such file")
    refuse_impossible_tiff(path)
    return _opened(path, name)


def _opened(path: Path, name: str) -> Backend:
    """Open a file whose claims were looked at, and look at the levels that came out."""
    backend = _OPENERS[name](path)
    try:
        refuse_impossible_levels(path, [(level.width, level.height) for level in backend.levels if level.stored])
    except BaseException:
        backend.close()
        raise
    return backend


def open_first_that_reads(path: Path) -> Backend:
    """Open a file with the first backend that opens it *and* decodes a pixel of every level.

    Some damage and some NDPI files above 4 GiB show only when a tile is decoded, so opening alone proves
    nothing. A file that opens but decodes nowhere at its corner is still taken, by the first backend that
    opened it: the damage may be local, and is then contained to its patches.

    Raises
    ------
    SlideNotFound, UnsupportedSlide
    """
    if not path.exists():
        raise SlideNotFound(f"{path}: no such file")
    refuse_impossible_tiff(path)
    refusals: list[str] = []
    opened: Backend | None = None
    for name in FILE_BACKENDS:
        try:
            candidate = _opened(path, name)
        except UnsupportedSlide as error:
            refusals.append(str(error))
            continue
        if decodes(candidate):
            if opened is not None:
                opened.close()
            return candidate
        if opened is None:
            opened = candidate
        else:
            candidate.close()
    if opened is not None:
        return opened
    raise not_readable(path, "; ".join(refusals))


def not_readable(path: Path, why: str) -> UnsupportedSlide:
    """The error for a file that no backend can read."""
    return UnsupportedSlide(
        f"{path.name}: not a slide that can be read ({why}). The file is damaged, incomplete or of another kind: "
        "copy it again from the scanner, or export it as tiled TIFF, SVS, NDPI or DICOM."
    )


def decodes(backend: Backend) -> bool:
    """Whether a pixel in the middle of every level can be decoded."""
    try:
        for index, level in enumerate(backend.levels):
            backend.read(index, level.width // 2, level.height // 2, 1, 1)
    except SlideReadError:
        return False
    return True
