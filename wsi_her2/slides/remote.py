"""Slides behind URLs: what is there, and a file that reads it in blocks.

All that fsspec knows how to reach is reached through it. Its file systems share no errors, and what goes wrong on
the way must not be taken for damage of the slide, so everything that they raise becomes one of three: there is no
such file, access is refused, or the connection failed.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from wsi_her2.errors import (
    HER2Error,
    MissingExtra,
    SlideForbidden,
    SlideNotFound,
    SlideUnreachable,
    UnsupportedSlide,
)
from wsi_her2.slides.location import SlideUrl, without_credentials

BLOCK_BYTES = 64 * 1024
"""What is read at least. Tiles that lie side by side share blocks; see docs/slides_elsewhere.md."""

_KEPT_BLOCKS = 128

_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "Content-MD5", "Digest", "Last-Modified")
"""Under which names file systems say which version of a file they hold, the surest first."""

_IN_EXTRA = frozenset({"http", "https", "s3", "s3a"})
_PACKAGE = {"gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"} | {
    "sftp": "paramiko",
    "ssh": "paramiko",
}

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RemoteState:
    """What a server says of a file.

    Attributes
    ----------
    size : int or None
        In bytes.
    version : str or None
        A text that changes when the file does: its ETag, else its hash or its time of change.
    """

    size: int | None
    version: str | None


def state_of(url: SlideUrl) -> RemoteState:
    """Size and version of a file.

    Raises
    ------
    SlideNotFound, SlideForbidden, SlideUnreachable, UnsupportedSlide, MissingExtra
    """
    fs, path = _file_system(url)

    def ask() -> RemoteState:
        info = fs.info(path)
        version = next((f"{name} {info[name]}" for name in _VERSIONS if info.get(name)), None)
        if version is None:
            try:
                version = f"modified {fs.modified(path).isoformat()}"
            except (NotImplementedError, AttributeError, KeyError):
                version = None
        return RemoteState(info.get("size"), version)

    return _asked(url, ask)


def slides_at(url: SlideUrl, suffixes: Collection[str]) -> list[SlideUrl]:
    """The slide at a URL, or those below it, in a fixed order.

    Parameters
    ----------
    url : SlideUrl
    suffixes : collection of str
        What the names of slides end in, in lower case. A URL of one file is taken whatever its ending.

    Raises
    ------
    SlideNotFound, SlideForbidden, SlideUnreachable, UnsupportedSlide, MissingExtra
    """
    fs, path = _file_system(url)
    if url.is_web:
        if url.ends_in_slash:
            raise UnsupportedSlide(f"{url}: a folder cannot be searched over HTTP: name each slide by its URL")
        _asked(url, lambda: fs.info(path))
        return [url]
    if not url.ends_in_slash and _asked(url, lambda: fs.info(path))["type"] != "directory":
        return [url]
    root = str(path).rstrip("/")

    def search() -> list[str]:
        # A listing that was kept does not know of slides that were added since.
        fs.invalidate_cache()
        return [name[len(root) :].lstrip("/") for name in fs.find(root)]

    below = [name for name in sorted(_asked(url, search)) if not any(p.startswith(".") for p in name.split("/"))]
    return [found for name in below if (found := url.below(name)).suffix.lower() in suffixes]


class RemoteFile(io.RawIOBase):
    """A file behind a URL, read in blocks of which the last ones are kept.

    Parameters
    ----------
    url : SlideUrl

    Attributes
    ----------
    url : SlideUrl
    failure : HER2Error or None
        What the connection failed with; see `connection_failures_raised`.

    Raises
    ------
    SlideNotFound, SlideForbidden, SlideUnreachable, UnsupportedSlide, MissingExtra
    """

    def __init__(self, url: SlideUrl) -> None:
        self.url = url
        self.failure: HER2Error | None = None
        self._fs, self._path = _file_system(url)
        self._size = _asked(url, self._measure)
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Say where the next read begins."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError(f"there is nothing before the beginning of a file: {origin + offset}")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer as much as it holds, unless the file ends before.

        Raises
        ------
        SlideNotFound, SlideForbidden, SlideUnreachable
        """
        target = memoryview(buffer).cast("B")
        start, end = self._position, min(self._size, self._position + len(target))
        if end <= start:
            return 0
        self.fetch([(start, end)])
        filled = 0
        for number in range(start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES + 1):
            first = number * BLOCK_BYTES
            part = self._blocks[number][max(0, start - first) : end - first]
            target[filled : filled + len(part)] = part
            filled += len(part)
        self._position = end
        return filled

    def fetch(self, spans: Iterable[tuple[int, int]]) -> None:
        """Get all blocks that hold parts of some spans at once, so that reading them waits only once.

        Parameters
        ----------
        spans : iterable of tuple of int
            First byte of each, and the one after its last.

        Raises
        ------
        SlideNotFound, SlideForbidden, SlideUnreachable
        """
        within = [(start, min(end, self._size)) for start, end in spans]
        wanted = sorted({n for start, end in within for n in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES))})
        missing = [number for number in wanted if number not in self._blocks]
        if missing:
            runs = list(_runs(missing))
            try:
                parts = _asked(self.url, lambda: self._get(runs))
            except HER2Error as error:
                self.failure = error
                raise
            for (first, _), part in zip(runs, parts, strict=True):
                for number, at in enumerate(range(0, len(part), BLOCK_BYTES), first):
                    self._blocks[number] = part[at : at + BLOCK_BYTES]
        for number in wanted:
            self._blocks.move_to_end(number)
        # Only where some came: what was fetched for a region stays until all of it is read.
        while missing and len(self._blocks) > max(_KEPT_BLOCKS, len(wanted)):
            self._blocks.popitem(last=False)

    def _get(self, runs: list[tuple[int, int]]) -> list[bytes]:
        """Bytes of runs of blocks."""
        starts = [first * BLOCK_BYTES for first, _ in runs]
        ends = [min(self._size, after * BLOCK_BYTES) for _, after in runs]
        parts: list[bytes] = self._fs.cat_ranges([self._path] * len(runs), starts, ends, on_error="raise")
        for start, end, part in zip(starts, ends, parts, strict=True):
            if len(part) != end - start:
                raise ConnectionError(f"{len(part)} bytes came instead of {end - start}")
        return parts

    def _measure(self) -> int:
        """Size of the file, found by asking for its last byte.

        A server that gives all or nothing would send all for each part. A file of fsspec notices that.
        """
        try:
            with self._fs.open(self._path, "rb", block_size=BLOCK_BYTES, cache_type="none") as file:
                file.seek(0, io.SEEK_END)
                size = int(file.tell())
                file.seek(max(0, size - 1))
                file.read(1)
        except ValueError as error:
            raise _not_in_parts(self.url) from error
        return size


@contextmanager
def connection_failures_raised(file: RemoteFile | None) -> Iterator[None]:
    """Raise what the connection failed with in the block, whatever the code that was reading made of it.

    Readers of TIFF pass over tags that they cannot read, and a slide that loses a level by that is another slide.
    """
    if file is None:
        yield
        return
    file.failure = None
    try:
        yield
    except Exception:
        if file.failure is None:
            raise
    if file.failure is not None:
        # Another one, because the first is among the causes of what was raised in the block.
        raise type(file.failure)(*file.failure.args) from file.failure.__cause__


def _file_system(url: SlideUrl) -> tuple[Any, str]:
    """The file system of fsspec that reaches a URL, and the file's name in it."""
    from fsspec.core import url_to_fs

    try:
        found: tuple[Any, str] = _asked(url, lambda: url_to_fs(url.address))
        return found
    except ImportError as error:
        raise _missing_package(url, error) from error


def _missing_package(url: SlideUrl, error: ImportError) -> MissingExtra:
    if url.protocol in _IN_EXTRA:
        how = "pip install 'wsi-her2[cloud]'"
    elif url.protocol in _PACKAGE:
        how = f"pip install {_PACKAGE[url.protocol]}"
    else:
        how = without_credentials(str(error))
    return MissingExtra(f"{url}: slides at {url.protocol}:// need a package that is not installed: {how}")


def _asked(url: SlideUrl, ask: Callable[[], Answer]) -> Answer:
    """What a file system answers; its failures as errors of this package."""
    try:
        return ask()
    except (HER2Error, ImportError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - what clients of storage raise shares no base class
        explained = _explained(url, error)
    # Not while the other is being handled: it would travel along, with all that it says.
    raise explained


def _explained(url: SlideUrl, error: Exception) -> HER2Error:
    """The error of this package for what a file system raised.

    Its cause is a stand-in: the errors of clients carry the address with its credentials, and many of them cannot
    be sent from one process to another.
    """
    if url.is_web and isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        # Over HTTP fsspec takes whatever goes wrong for a missing file.
        error = error.__cause__
    why = _described(url, error)
    explained = _kind(url, error, why)
    explained.__cause__ = OSError(why).with_traceback(error.__traceback__)
    return explained


def _kind(url: SlideUrl, error: Exception, why: str) -> HER2Error:
    status = _status_of(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return SlideNotFound(f"{url}: no such file")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        return SlideForbidden(
            f"{url}: access is refused ({why}). Give the credentials of this storage (docs/slides_elsewhere.md "
            "says where), or make a new URL if this one was signed and has expired."
        )
    if isinstance(error, ValueError) and "Protocol not known" in str(error):
        return UnsupportedSlide(f"{url}: {url.protocol}:// is no protocol that fsspec knows")
    return SlideUnreachable(
        f"{url}: the connection failed ({why}). See that the server can be reached and run again: what is "
        "finished is kept."
    )


def _status_of(error: Exception) -> int:
    """The HTTP status that a client was answered with, wherever it keeps it; 0 where there is none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    named = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((status for status in named if isinstance(status, int)), 0)


def _described(url: SlideUrl, error: Exception) -> str:
    text = str(error).replace(url.address, str(url))
    text = " ".join(without_credentials(text).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _not_in_parts(url: SlideUrl) -> UnsupportedSlide:
    return UnsupportedSlide(
        f"{url}: the server does not give parts of the file (HTTP range requests), which reading a slide needs: "
        "copy the slide to a disk, or serve it from another server."
    )


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and one after the last of each run of consecutive numbers."""
    first = after = -1
    for number in numbers:
        if number != after:
            if after > first:
                yield first, after
            first = number
        after = number + 1
    if after > first:
        yield first, after
