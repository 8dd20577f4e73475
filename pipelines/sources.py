"""Which slides a run is about, and the identifier under which each keeps its results."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wsi_her2.errors import ConfigurationError, OutputError
from wsi_her2.reports.reading_ahead import read_ahead
from wsi_her2.slides.location import SlideLocation, SlideUrl, was_url
from wsi_her2.slides.remote import slides_at

SLIDE_SUFFIXES = frozenset(
    {".bif", ".btf", ".czi", ".dcm", ".mrxs", ".ndpi", ".qptiff", ".scn", ".svs", ".svslide", ".tif", ".tiff"}
    | {".vms", ".vmu"}
)
"""Files that a folder is searched for. A file named on the command line is tried whatever its suffix."""

REGION_SUFFIXES = frozenset({".geojson", ".json"})

RESULT_FILE = "result.json"
PARTIAL_FOLDER = ".partial"
"""Where results grow before they are renamed into place; dotted, so that no slide identifier collides with it."""


@dataclass(frozen=True)
class SlideSource:
    """Where a slide lies and the identifier of its results: its stem, made unique and safe as a folder name."""

    slide_id: str
    path: SlideLocation


def find_slides(inputs: Sequence[SlideLocation]) -> list[SlideLocation]:
    """Slides among the inputs, folders searched through and through, in a fixed order.

    Parameters
    ----------
    inputs : sequence of pathlib.Path or SlideUrl

    Raises
    ------
    ConfigurationError
        An input does not exist, or nothing was found.
    SlideError, MissingExtra
        A URL cannot be searched; see `wsi_her2.slides.remote.slides_at`.
    """
    found: dict[SlideLocation, None] = {}
    for given in inputs:
        if isinstance(given, SlideUrl):
            found |= dict.fromkeys(slides_at(given, SLIDE_SUFFIXES))
        elif given.is_dir():
            for path in sorted(_slides_below(given)):
                found.setdefault(path)
        elif given.exists():
            found.setdefault(given.absolute())
        else:
            raise ConfigurationError(f"{given}: no such file or folder")
    if not found:
        raise ConfigurationError(
            f"no slides in {', '.join(map(str, inputs))}: looked for files ending in "
            f"{', '.join(sorted(SLIDE_SUFFIXES))}. Name a file to have it tried whatever its ending."
        )
    return list(found)


def name_slides(paths: Iterable[SlideLocation], known: Mapping[str, str] | None = None) -> list[SlideSource]:
    """Give each slide the identifier of its results.

    Parameters
    ----------
    paths : iterable of pathlib.Path or SlideUrl
    known : mapping of str to str, optional
        Identifiers that the output folder already uses, and the path of each one's slide. A slide keeps its
        identifier, and no other slide gets it. URLs that only differ in what is not recorded of them share their
        identifiers in the order in which they are given.
    """
    owner = dict(known or {})
    by_path: dict[str, deque[str]] = {}
    for slide_id, where in owner.items():
        by_path.setdefault(where, deque()).append(slide_id)
    # Folded, because some file systems take A and a for the same folder.
    taken = {_folded(slide_id) for slide_id in owner}
    sources = []
    for path in paths:
        if identifiers := by_path.get(str(path)):
            slide_id = identifiers.popleft()
        else:
            stem = safe_name(path.stem)
            slide_id, number = stem, 1
            while _folded(slide_id) in taken:
                number += 1
                slide_id = f"{stem}_{number}"
            taken.add(_folded(slide_id))
        sources.append(SlideSource(slide_id, path))
    return sources


def find_regions(
    given: Sequence[Path], slides: Sequence[SlideLocation], *, more_to_come: bool = False
) -> dict[SlideLocation, Path]:
    """Which annotations belong to which slide.

    A file belongs to the slide whose name it has: `case_7.geojson` and `case_7.ndpi.geojson` to `case_7.ndpi`. One
    file for one slide belongs to it whatever their names.

    Parameters
    ----------
    given : sequence of pathlib.Path
        GeoJSON files, and folders of them.
    slides : sequence of pathlib.Path or SlideUrl
    more_to_come : bool
        Whether these are not all slides of the run. Then only its name says whose a file is, and one that belongs
        to none of these may belong to a later one.

    Returns
    -------
    dict of pathlib.Path or SlideUrl to pathlib.Path
        Annotations by slide; slides without any are not in it.

    Raises
    ------
    ConfigurationError
        Something does not exist, two files belong to one slide, or a file that was named belongs to none.
    """
    files: dict[Path, bool] = {}
    for path in given:
        if path.is_dir():
            files |= dict.fromkeys(sorted(p for p in path.iterdir() if p.suffix.lower() in REGION_SUFFIXES), False)
        elif path.is_file():
            files[path] = True
        else:
            raise ConfigurationError(f"{path}: no such file or folder of annotated regions")
    if len(files) == len(slides) == 1 and not more_to_come:
        return {slides[0]: next(iter(files))}
    found: dict[SlideLocation, Path] = {}
    for file, named in files.items():
        owners = [slide for slide in slides if file.stem in (slide.stem, slide.name)]
        if not owners and named and not more_to_come:
            raise ConfigurationError(
                f"{file}: none of the slides has this name; regions of a slide are in a file named like it"
            )
        for slide in owners:
            if slide in found:
                raise ConfigurationError(f"{file} and {found[slide]}: both hold the regions of {slide.name}")
            found[slide] = file
    return found


def regions_named(given: Sequence[Path], name: str) -> Path | None:
    """The file of annotated regions of a name among files and folders of them; None where it has gone."""
    for path in given:
        found = path / name if path.is_dir() else path
        if found.name == name and found.is_file():
            return found
    return None


def safe_name(stem: str) -> str:
    """A stem as a folder name: letters of any script stay, what a file system or a shell trips over goes."""
    name = unicodedata.normalize("NFC", stem)
    name = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|$`!\'&;#%{}~]', "_", name)
    name = name.encode("utf-8", "replace").decode("utf-8").strip().lstrip(".-")
    while len(name.encode("utf-8")) > 120:
        name = name[:-1]
    return name.rstrip(". ") or "slide"


def known_slides(output: Path, but: Collection[str] = ()) -> dict[str, str]:
    """Identifiers in an output folder and the path of each one's slide; unreadable results are passed over.

    Parameters
    ----------
    output : pathlib.Path
    but : collection of str
        Identifiers that are known already, whose results need not be read.
    """
    names = [name for name in folder_names(output) if name not in but]
    known = {}
    for name, content in zip(names, read_ahead(read_result_file, (output / name for name in names)), strict=True):
        with suppress(ValueError, KeyError, TypeError):
            known[name] = str(json.loads(content or b"")["path"])
    return known


def read_result_file(folder: Path) -> bytes | None:
    """`result.json` of a slide's folder as it stands there; None where there is none."""
    try:
        return (folder / RESULT_FILE).read_bytes()
    except OSError:
        return None


def folder_names(output: Path) -> list[str]:
    """Names of the folders in an output folder, which are those of slides but for a few, in their order."""
    try:
        with os.scandir(output) as entries:
            return sorted(entry.name for entry in entries if entry.name != PARTIAL_FOLDER and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def check_output(output: Path, inputs: Sequence[SlideLocation]) -> None:
    """Make the output folder and see that it can be written.

    Raises
    ------
    OutputError
        It lies inside an input folder, is a file or a URL, or cannot be written.
    """
    if was_url(output):
        raise OutputError(f"{output}: results are written to a disk, not to a URL. Choose a folder with -o.")
    resolved = output.resolve()
    for given in inputs:
        if isinstance(given, Path) and given.is_dir() and resolved.is_relative_to(given.resolve()):
            raise OutputError(
                f"{output}: the output folder lies inside the input folder {given}, so that the next run would "
                "search the results for slides. Choose a folder outside it with -o."
            )
    try:
        (output / PARTIAL_FOLDER).mkdir(parents=True, exist_ok=True)
        probe = output / PARTIAL_FOLDER / f".probe-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{output}: results cannot be written there ({error.strerror or error}). "
            "Choose another folder with -o, or free space and check permissions."
        ) from error


def _slides_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ConfigurationError(f"{error.filename}: cannot be searched for slides ({error.strerror})") from error

    for root, folders, files in os.walk(folder.absolute(), onerror=refuse, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SLIDE_SUFFIXES:
                yield Path(root) / name


def _folded(slide_id: str) -> str:
    return unicodedata.normalize("NFC", slide_id).casefold()
