"""Where a slide lies: in a file on a disk, or behind a URL.

A path stays a `pathlib.Path`; a URL is a `SlideUrl`, which has a path's `name`, `stem` and `suffix`, so that code
which only names slides need not ask which of the two it has. Nothing here reads anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote
from urllib.request import url2pathname

from wsi_her2.errors import UnsupportedSlide

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_COLLAPSED_URL = re.compile(r"[a-z][a-z0-9+.-]+:/(?!/)", re.IGNORECASE)
"""What `pathlib` makes of a URL: it takes two slashes for one."""

_USER = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]+)://(?P<user>[^/\s'\"]*)@", re.IGNORECASE)
_QUERY = re.compile(r"(?P<kept>[a-z][a-z0-9+.-]+://[^\s'\"?]*)\?[^\s'\"]*", re.IGNORECASE)

_CONTAINER_BEFORE_AT = frozenset({"abfs", "abfss"})
"""Protocols of Azure whose URLs name a container where others name a user."""


@dataclass(frozen=True)
class SlideUrl:
    """A slide behind a URL.

    Attributes
    ----------
    address : str
        The URL as it was given, with whatever credentials it carries. Only what opens the slide may use it; all
        that is written or said is `str(url)`, which leaves out the user, the password and the query.

    Raises
    ------
    UnsupportedSlide
        The URL is a chain (`zip://...::https://...`).
    """

    address: str = field(repr=False)

    def __post_init__(self) -> None:
        if "::" in self.address:
            raise UnsupportedSlide(f"{self}: chains of URLs are not read: unpack the slide, or name it alone")

    def __str__(self) -> str:
        return without_credentials(self._whole)

    def __repr__(self) -> str:
        return f"SlideUrl({str(self)!r})"

    @property
    def protocol(self) -> str:
        """What stands before `://`, in lower case."""
        return self.address.partition("://")[0].lower()

    @property
    def is_web(self) -> bool:
        """Whether it is reached over HTTP, where there are no folders to search and queries are common."""
        return self.protocol in ("http", "https")

    @property
    def name(self) -> str:
        """The last part of the path, without percent-encoding."""
        host, _, path = str(self).partition("://")[2].partition("/")
        return PurePosixPath(unquote(path)).name or host

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """What the name ends in, from its last dot."""
        return PurePosixPath(self.name).suffix

    @property
    def ends_in_slash(self) -> bool:
        """Whether it is written like a folder."""
        return self._whole.endswith("/")

    def below(self, relative: str) -> SlideUrl:
        """A file below this folder."""
        return SlideUrl(f"{self._whole.rstrip('/')}/{relative}{self.address[len(self._whole) :]}")

    @property
    def _whole(self) -> str:
        """The address up to its query; in HTTP a fragment ends it too, elsewhere `#` is a letter like others."""
        marks = "?#" if self.is_web else "?"
        return re.split(f"[{marks}]", self.address, maxsplit=1)[0]


SlideLocation = Path | SlideUrl


def locate(given: str | Path | SlideUrl) -> SlideLocation:
    """Where a slide lies that is named by a path or a URL; `file://` is a path.

    Raises
    ------
    UnsupportedSlide
        The URL is a chain.
    """
    if isinstance(given, SlideUrl | Path):
        return given
    if not _URL.match(given):
        return Path(given)
    if given.lower().startswith("file://"):
        return Path(url2pathname(given[len("file://") :]))
    return SlideUrl(given)


def was_url(path: Path) -> bool:
    """Whether a path is a URL that lost a slash on its way through `pathlib`."""
    return _COLLAPSED_URL.match(path.as_posix()) is not None


def without_credentials(text: str) -> str:
    """A text whose URLs have no user, no password and no query, which may be a signature."""

    def anonymous(found: re.Match[str]) -> str:
        protocol, user = found["protocol"], found["user"]
        named = protocol.lower() in _CONTAINER_BEFORE_AT and ":" not in user
        return found[0] if named else f"{protocol}://"

    return _QUERY.sub(lambda found: found["kept"], _USER.sub(anonymous, text))
