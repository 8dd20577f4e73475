"""What there is to review: the slides of a run's folder, their rows and results, and the file that shows each.

Identifiers are looked up among the results that were found; nothing of a request becomes part of a path.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pipelines.results import STORE, no_results, read_result
from pipelines.sources import PARTIAL_FOLDER, SLIDE_SUFFIXES
from pipelines.worker.cell_fields import CELL_TABLE
from wsi_her2.errors import ConfigurationError, HER2Error, SlideNotFound, StoreError, UnsupportedSlide
from wsi_her2.reports.palette import hex_of
from wsi_her2.reports.reading_ahead import read_ahead
from wsi_her2.reports.slide_table import SlideRow
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.location import SlideUrl, locate
from wsi_her2.slides.slide import Slide, open_slide
from wsi_her2.slides.store import PatchStore

_log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 2.0
"""A run that is still going is looked at no more often than this."""

_COARSEST_TIME_NS = 3_000_000_000
_RESULTS_KEPT = 32

FILES = {
    "heatmap.png": "image/png",
    "tissue.png": "image/png",
    "overlay.geojson": "application/geo+json",
    "patches.csv": "text/csv; charset=utf-8",
    "report.html": "text/html; charset=utf-8",
    "result.json": "application/json",
}
"""Files of a slide's folder that may be asked for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A slide as the list of a run shows it.

    Attributes
    ----------
    row : SlideRow
    fingerprint : str
        Of its result.
    name : str
        Of the slide's file.
    case : str
        What the names of all slides of a case have in common; see `case_of`.
    stain : str
        'her2', 'he', or what the file's name does not tell: the modality.
    file : pathlib.Path or None
        What shows it; None where that cannot be read.
    why_not : str
        Why not, as a sentence; empty where it can be.
    text : str
        What the pages get of it, as JSON; see `described`.
    """

    row: SlideRow
    fingerprint: str
    name: str
    case: str
    stain: str
    file: Path | None
    why_not: str
    text: str


class ReviewRun:
    """The folder of a run, looked at again whenever something in it has changed.

    Only rows are kept, so that ten thousand slides take some ten megabytes; results are read when a slide is
    looked at. May be used from many threads.

    Parameters
    ----------
    output : pathlib.Path
        What `wsi-her2 score -o` wrote.
    slides : pathlib.Path, optional
        Where slides lie that are no longer where they were scored: searched through and through, by file name.
    reviewer : str
        Who reviews, unless the page is told otherwise.

    Raises
    ------
    ConfigurationError
        There are no results, or no such folder of slides.
    """

    def __init__(self, output: Path, *, slides: Path | None = None, reviewer: str = "") -> None:
        self.output = output.absolute()
        self.reviewer = reviewer
        self._moved = _Moved(slides)
        self._lock = threading.Lock()
        self._listed: dict[str, Listed] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._folder_state: tuple[int, ...] = ()
        self._looked = -_LOOK_AGAIN_S
        self._results: OrderedDict[str, tuple[Listed, SlideResult]] = OrderedDict()
        self._look()
        if not self._listed:
            raise no_results(output)

    def listed(self) -> list[Listed]:
        """The slides, in the order of their names as people count: 2 before 10."""
        self._look()
        return list(self._listed.values())

    def rows(self) -> list[SlideRow]:
        """Their rows, in the same order."""
        return [slide.row for slide in self.listed()]

    def find(self, slide_id: str) -> Listed:
        """A slide by its identifier.

        Raises
        ------
        SlideNotFound
            The run has none of it, or no longer.
        """
        self._look()
        found = self._listed.get(slide_id)
        if found is None:
            raise SlideNotFound(
                f"The run has no slide {slide_id!r}, or no longer: the list shows those that it has."
            )
        return found

    def look_for(self, slide_id: str) -> Listed:
        """A slide by its identifier, its file looked for once more: a share comes and goes.

        Raises
        ------
        SlideNotFound
        """
        listed = self.find(slide_id)
        now = self._placed(listed.row, listed.fingerprint)
        if (now.file, now.why_not) == (listed.file, listed.why_not):
            return listed
        with self._lock:
            # Unless another result of it has taken its place meanwhile.
            if self._listed.get(slide_id) is listed:
                self._listed[slide_id] = now
        return now

    def neighbours(self, slide_id: str) -> tuple[str | None, str | None]:
        """The slides before and after one; None where there is none."""
        names = list(self._listed)
        at = names.index(slide_id) if slide_id in names else len(names)
        return (names[at - 1] if 0 < at < len(names) else None), (names[at + 1] if at + 1 < len(names) else None)

    def companions(self, slide_id: str) -> list[Listed]:
        """The same case in another stain."""
        own = self.find(slide_id)
        return [other for other in self._listed.values() if other.case == own.case and other.stain != own.stain]

    def folder(self, slide_id: str) -> Path:
        """Where the results of a slide lie.

        Raises
        ------
        SlideNotFound
        """
        return self.output / self.find(slide_id).row.slide_id

    def result(self, slide_id: str) -> SlideResult:
        """All that is known of a slide.

        Raises
        ------
        SlideNotFound
        """
        listed = self.find(slide_id)
        with self._lock:
            kept = self._results.get(slide_id)
            # Another one is listed as soon as the slide was scored again.
            if kept is not None and kept[0] is listed:
                self._results.move_to_end(slide_id)
                return kept[1]
        result = read_result(self.folder(slide_id))
        if result is None:
            raise SlideNotFound(f"{slide_id}: its results are no longer there. Look at the list again.")
        with self._lock:
            self._results[slide_id] = listed, result
            while len(self._results) > _RESULTS_KEPT:
                self._results.popitem(last=False)
        return result

    def slide(self, slide_id: str) -> Slide:
        """The slide itself, opened in this thread, on the scale on which it was scored.

        Raises
        ------
        SlideError
            The run has no such slide, or the file has gone, cannot be read, or is another slide.
        """
        listed, reader = self.find(slide_id), self.result(slide_id).reader
        if listed.file is None or reader is None:
            raise SlideNotFound(listed.why_not)
        slide = open_slide(listed.file, mpp=reader.mpp, backend=reader.backend)
        if slide.dimensions != tuple(reader.dimensions):
            slide.close()
            raise UnsupportedSlide(
                f"{listed.file}: not the slide that was scored: it has {_size(slide.dimensions)}, the scored one "
                f"had {_size(reader.dimensions)}. Put the scored file in its place, or score this one."
            )
        return slide

    def file(self, slide_id: str, name: str) -> Path | None:
        """A file of a slide's folder; None where there is none of that name, or it lies elsewhere.

        Parameters
        ----------
        slide_id : str
        name : str
            One of `FILES`.
        """
        return self._own(self.folder(slide_id) / name) if name in FILES else None

    def page(self, name: str) -> Path | None:
        """A file of the run itself; None where there is none or it lies elsewhere."""
        return self._own(self.output / name)

    def store(self, slide_id: str) -> PatchStore | None:
        """The patch store of a slide; None where there is none that can be read."""
        path = self.folder(slide_id) / STORE
        if not path.is_dir() or not path.resolve().is_relative_to(self.output.resolve()):
            return None
        try:
            return PatchStore.open(path, complete=True)
        except StoreError as error:
            _log.warning("%s: shown without its layers. %s", slide_id, error)
            return None

    def cell_table(self, slide_id: str) -> Path | None:
        """The table of a slide's cells; None where there is none."""
        return self._own(self.folder(slide_id) / CELL_TABLE)

    def _own(self, path: Path) -> Path | None:
        """A regular file of the run; a link that leads out of its folder is none."""
        try:
            resolved = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return resolved if resolved.is_file() and resolved.is_relative_to(self.output.resolve()) else None

    def _look(self) -> None:
        """See what has changed, unless that was just done."""
        with self._lock:
            if time.monotonic() - self._looked < _LOOK_AGAIN_S:
                return
            # A finished slide is renamed into the folder, which leaves its mark on the folder's own time. That may
            # be as coarse as a second, so that only one some seconds old tells of all that has happened.
            state = _state(self.output)
            if state != self._folder_state:
                self._read_changed()
                settled = state and time.time_ns() - state[0] > _COARSEST_TIME_NS
                self._folder_state = state if settled else ()
            self._looked = time.monotonic()

    def _read_changed(self) -> None:
        seen = _folders(self.output)
        changed = [name for name, state in seen.items() if self._seen.get(name) != state]
        gone = self._seen.keys() - seen.keys()
        if not changed and not gone:
            return
        listed = {name: slide for name, slide in self._listed.items() if name in seen and name not in changed}
        found = read_ahead(self._list, (self.output / name for name in changed))
        listed |= {slide.row.slide_id: slide for slide in found if slide is not None}
        self._listed = {name: listed[name] for name in sorted(listed, key=_as_people_count)}
        self._seen = seen

    def _list(self, folder: Path) -> Listed | None:
        result = read_result(folder)
        # The folder's name decides: a copied folder must not show as the slide that it was copied from.
        if result is None or result.slide_id != folder.name:
            return None
        return self._placed(SlideRow.of(result), result.fingerprint)

    def _placed(self, row: SlideRow, fingerprint: str) -> Listed:
        """A slide and the file that shows it now."""
        name = _file_name(row.path)
        case, stain = case_of(name)
        if row.backend is None:
            # What made a codec crash or hang while it was scored would do so here.
            file, why_not = None, f"The slide could not be opened when it was scored. {row.reason}"
        else:
            file, why_not = self._moved.place_of(row.path)
        stain = stain or row.modality
        text = described(row, name=name, case=case, stain=stain, viewable=file is not None)
        return Listed(row, fingerprint, name, case, stain, file, why_not, text)


def described(row: SlideRow, *, name: str, case: str, stain: str, viewable: bool) -> str:
    """A slide as the pages get it, as JSON without the bracket at its end: numbers are numbers, or null.

    Kept as text, because a list of ten thousand is asked for again and again, and is a second's work to describe.
    """
    shown = {field: getattr(row, field) for field in _SHOWN}
    shown |= {"name": name, "case": case, "stain": stain, "viewable": viewable, "flagged": bool(row.review)}
    shown["colour"] = hex_of(row.her2_score or row.her2_group or "")
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).removesuffix("}")


_NOT_SHOWN = {"path", "mpp", "mpp_source", "backend", "model", "model_sha256", "seconds", "review"}
_SHOWN = tuple(field.name for field in fields(SlideRow) if field.name not in _NOT_SHOWN)

_NUMBER = re.compile(r"(\d+)")
_COPY = re.compile(r"(\s*\(\d+\)|[\s_-]+copy(\s*\(?\d+\)?)?)+$", re.IGNORECASE)
_STAINS = {"her2": "her2", "her2neu": "her2", "neu": "her2", "cerbb2": "her2", "erbb2": "her2", "ihc": "her2"}
_STAINS |= {"he": "he", "hne": "he", "hande": "he"}
_JOINED = re.compile(r"h\s*&\s*e|her[-_ ]?2([-_/ ]?neu)?(?![0-9a-z])|c?[-_]?erb[-_]?b2(?![0-9a-z])", re.IGNORECASE)


def case_of(name: str) -> tuple[str, str]:
    """Which case a slide's file belongs to, and which stain its name tells.

    Stain and case stand in one name: `12_HER2.ndpi` and `12_HE.ndpi` are the two slides of case 12 in the Warwick
    data. What is left of a name without the words for stains, and without the number that a copy gets, is the
    case. A number of one or two digits right behind a stain, at the end, counts copies or sections (`12_HER2_2`);
    one that stands elsewhere is part of the case (`case 2`).

    Parameters
    ----------
    name : str
        Of the file, with its suffix.

    Returns
    -------
    tuple of str
        The case, in lower case with single spaces, and 'her2', 'he' or '' where the name does not tell. A name
        that is nothing but stains is its own case.
    """
    stem = Path(name).stem
    plain = _COPY.sub("", stem)
    plain = _JOINED.sub(lambda found: " he " if "&" in found[0] else " her2 ", plain).lower()
    words = [word for word in re.split(r"[\W_]+", plain) if word]
    stains = [_STAINS[word] for word in words if word in _STAINS]
    kept: list[str] = []
    for number, word in enumerate(words):
        counts_copies = (
            word.isdigit()
            and len(word) <= 2
            and number == len(words) - 1
            and number
            and words[number - 1] in _STAINS
        )
        if word not in _STAINS and not (counts_copies and kept):
            kept.append(word)
    return " ".join(kept) or stem.lower(), stains[0] if len(set(stains)) == 1 else ""


class _Moved:
    """Where the files of slides lie now."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._by_name: dict[str, list[Path]] = {}
        if folder is None:
            return
        if not folder.is_dir():
            raise ConfigurationError(f"{folder}: no such folder; --slides names one that holds slides of the run")
        for root, folders, files in os.walk(folder.absolute(), followlinks=False):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if Path(name).suffix.lower() in SLIDE_SUFFIXES:
                    self._by_name.setdefault(name, []).append(Path(root) / name)

    def place_of(self, recorded: str) -> tuple[Path | None, str]:
        """The file of a slide, or why there is none that can be read."""
        try:
            where = locate(recorded)
        except HER2Error as error:
            return None, str(error)
        found = self._by_name.get(where.name) or self._by_name.get(_file_name(recorded), [])
        if len(found) > 1:
            found = _most_alike(where, found)
        if len(found) > 1:
            return None, (
                f"{self._folder} holds {len(found)} files named {where.name}, and nothing tells which one was "
                "scored: name a folder further down with --slides."
            )
        if found:
            return _readable(found[0])
        if isinstance(where, SlideUrl):
            return None, f"{where} lies behind a URL: copy it to a disk and name its folder with --slides."
        return _readable(where)


def _readable(path: Path) -> tuple[Path | None, str]:
    if os.access(path, os.R_OK):
        return path, ""
    if path.exists():
        return None, f"{path}: there is no permission to read the slide."
    return None, f"{path}: the slide is no longer there. If it was moved, name its folder with --slides."


def _most_alike(where: Path | SlideUrl, found: Sequence[Path]) -> list[Path]:
    """Of files of one name those that share most of the folders above them with the recorded path."""
    folders = str(where).replace("\\", "/").split("/")[-2::-1]

    def shared(path: Path) -> int:
        above = path.parts[-2::-1]
        return next((n for n, (a, b) in enumerate(zip(above, folders, strict=False)) if a != b), len(above))

    most = max(map(shared, found))
    return [path for path in found if shared(path) == most]


def _size(dimensions: Iterable[int]) -> str:
    return "{} x {} px".format(*dimensions)


def _file_name(recorded: str) -> str:
    # A run that was made on Windows may be looked at elsewhere.
    return re.split(r"[/\\]", recorded)[-1]


def _as_people_count(name: str) -> tuple[list[tuple[int, str]], str]:
    parts = _NUMBER.split(name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def _state(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError:
        return ()
    return (state.st_mtime_ns, state.st_ino)


def _folders(output: Path) -> dict[str, tuple[int, int]]:
    """Folders of slides, and what tells one from a newer one of the same name."""
    try:
        with os.scandir(output) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name != PARTIAL_FOLDER and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return {}
    states = read_ahead(_state, (output / name for name in names))
    return {name: (state[0], state[1]) for name, state in zip(names, states, strict=True) if state}
