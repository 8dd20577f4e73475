"""Which backend reads a file: the one that is named, or the first that proves that it can."""

from __future__ import annotations

from collections.abc import Callable

from wsi_her2.errors import SlideNotFound, SlideReadError, UnsupportedSlide
from wsi_her2.slides.backends import Backend, OpenSlideBackend, TiffSlideBackend
from wsi_her2.slides.location import SlideLocation, SlideUrl, was_url
from wsi_her2.slides.plausibility import refuse_impossible_levels, refuse_impossible_tiff
from wsi_her2.slides.tiled_jpeg import TiledJpegBackend

_OPENERS: dict[str, Callable[[SlideLocation], Backend]] = {
    "tiled-jpeg": TiledJpegBackend,
    "openslide": OpenSlideBackend,
    "tiffslide": TiffSlideBackend,
}

FILE_BACKENDS = tuple(_OPENERS)
"""Backends that read files, in the order in which they are tried."""

_URL_BACKENDS = ("tiffslide",)


def open_backend(path: SlideLocation, name: str) -> Backend:
    """Open a slide with one named backend.

    Raises
    ------
    SlideNotFound, UnsupportedSlide
        A URL raises what `wsi_her2.slides.remote` does besides.
    """
    _see_that_it_is_possible(path)
    return _opened(path, name)


def _opened(path: SlideLocation, name: str) -> Backend:
    """Open a file whose claims were looked at, and look at the levels that came out."""
    backend = _OPENERS[name](path)
    try:
        refuse_impossible_levels(path, [(level.width, level.height) for level in backend.levels if level.stored])
    except BaseException:
        backend.close()
        raise
    return backend


def open_first_that_reads(path: SlideLocation) -> Backend:
    """Open a file with the first backend that opens it *and* decodes a pixel of every level.

    Some damage and some NDPI files above 4 GiB show only when a tile is decoded, so opening alone proves
    nothing. A file that opens but decodes nowhere at its corner is still taken, by the first backend that
    opened it: the damage may be local, and is then contained to its patches.

    Raises
    ------
    SlideNotFound, UnsupportedSlide
    """
    _see_that_it_is_possible(path)
    refusals: list[str] = []
    opened: Backend | None = None
    for name in _URL_BACKENDS if isinstance(path, SlideUrl) else FILE_BACKENDS:
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


def not_readable(path: SlideLocation, why: str) -> UnsupportedSlide:
    """The error for a file that no backend can read."""
    if isinstance(path, SlideUrl):
        return UnsupportedSlide(
            f"{path}: not a slide that can be read where it lies ({why}). Behind a URL these can: SVS, NDPI and "
            "tiled TIFF. Copy others to a disk; if this is one of these, it is damaged or incomplete."
        )
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


def _see_that_it_is_possible(path: SlideLocation) -> None:
    """Ask a disk whether there is such a file, and whether it can be a slide; a server answers when asked."""
    if isinstance(path, SlideUrl):
        return
    if not path.exists():
        hint = (
            ": this was a URL; give it as text, because a path takes two slashes for one" if was_url(path) else ""
        )
        raise SlideNotFound(f"{path}: no such file{hint}")
    refuse_impossible_tiff(path)
