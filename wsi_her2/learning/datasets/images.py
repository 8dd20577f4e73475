"""Image files: which there are, what they hold, and whether they can be decoded."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from wsi_her2.errors import DatasetError
from wsi_her2.messages import words_of
from wsi_her2.slides.backends import RGB, over_white

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})

MAX_PIXELS = 100_000_000
"""Of a picture: a hundred times the largest of the data sets. Eight are decoded at a time."""

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_EIGHT_BIT_MODES = frozenset({"RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr"})
_END_WITHIN_BYTES = 4096
_THREADS = 8


@dataclass(frozen=True)
class InspectedImage:
    """What is known of an image file.

    Attributes
    ----------
    size : tuple of int
        Width and height in pixels; (0, 0) where they cannot be read.
    problem : str or None
        Why it cannot be used.
    digest : str or None
        Equal for equal content: of the pixels where they were decoded, of the file where another file is as
        long, None where no other can be equal.
    """

    size: tuple[int, int]
    problem: str | None
    digest: str | None


def files_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Image files and other files below a folder, sorted; hidden files and those of the system are passed over.

    Raises
    ------
    DatasetError
        A folder cannot be searched.
    """
    images: list[Path] = []
    others: list[Path] = []
    for path in _walked(folder):
        (images if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path)
    return images, others


def stable_id(path: Path, folder: Path) -> str:
    """A file's identifier: its path below the folder, with slashes, in characters that any text file can hold."""
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def read_image(path: Path) -> RGB:
    """Decode an image file (uint8 H x W x 3), transparent pixels over white.

    Raises
    ------
    DatasetError
        There is no such file, it is damaged, or its pixels have more than eight bits.
    """
    try:
        with Image.open(path) as image:
            _refuse_other(image.mode, image.size, path)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                return over_white(np.asarray(image.convert("RGBA"), np.uint8))
            return np.array(image.convert("RGB"), np.uint8)
    except (DatasetError, MemoryError):
        raise
    except Exception as error:
        # Pillow's decoders raise whatever the damage happens to trip over.
        raise DatasetError(f"{path}: cannot be decoded ({words_of(error)}); copy it again or remove it") from error


def inspect_images(paths: Sequence[Path], *, thorough: bool) -> list[InspectedImage]:
    """Look at image files.

    Parameters
    ----------
    paths : sequence of pathlib.Path
    thorough : bool
        Decode every file and compare pixels. Otherwise headers and ends of the files are read, which shows what
        is no image and what was cut off, and only files of equal length are compared.

    Returns
    -------
    list of InspectedImage
        In the order of `paths`.
    """
    lengths = [_length(path) for path in paths]
    shared = {length for length, count in Counter(lengths).items() if count > 1}
    look = partial(_decoded, thorough=thorough)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(look, paths, (length in shared for length in lengths)))


def _decoded(path: Path, length_is_shared: bool, *, thorough: bool) -> InspectedImage:
    try:
        if thorough:
            rgb = read_image(path)
            of_pixels = hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()
            return InspectedImage((int(rgb.shape[1]), int(rgb.shape[0])), None, of_pixels)
        size = _size_from_header(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if length_is_shared else None
    except (DatasetError, OSError) as error:
        return InspectedImage((0, 0), str(error), None)
    return InspectedImage(size, None, digest)


def _size_from_header(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            size, mode, kind = image.size, image.mode, image.format
    except MemoryError:
        raise
    except Exception as error:
        raise DatasetError(f"{path}: cannot be decoded ({words_of(error)}); copy it again or remove it") from error
    _refuse_other(mode, size, path)
    end_mark = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}.get(kind or "")
    if end_mark is not None and end_mark not in _end_of(path):
        raise DatasetError(f"{path}: the end of the file is missing; copy it again or remove it")
    return size


def _refuse_other(mode: str, size: tuple[int, int], path: Path) -> None:
    if mode not in _EIGHT_BIT_MODES:
        raise DatasetError(f"{path}: pixels of kind {mode}, not eight bits a channel; export it as RGB")
    if size[0] * size[1] > MAX_PIXELS:
        raise DatasetError(
            f"{path}: says it has {size[0]:,} x {size[1]:,} px, more than the limit of {MAX_PIXELS:,}; cut it up"
        )


def _end_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - _END_WITHIN_BYTES))
        return stream.read()


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _walked(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DatasetError(
            f"{error.filename}: cannot be searched ({error.strerror}); check its permissions"
        ) from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower() not in _SYSTEM_FILES:
                yield Path(root) / name
