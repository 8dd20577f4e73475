"""`export`: what a run holds, in the forms that other programs take.

A kind of export is a function of the run's folder, of the place to write and of the options; `EXPORTS` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from wsi_her2.errors import ConfigurationError, OutputError


@dataclass(frozen=True)
class ExportOptions:
    """What narrows an export; each kind takes what it knows of.

    Attributes
    ----------
    reviewer : str or None
        Only reviews of this reviewer.
    consensus : bool
        Only scores that more than half of a slide's reviewers gave.
    """

    reviewer: str | None = None
    consensus: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : pathlib.Path
        A file, or a folder of files.
    written : str
        How much of what, for people.
    notes : tuple of str
        What is not in it and why, a sentence each.
    """

    path: Path
    written: str
    notes: tuple[str, ...] = ()


Export = Callable[[Path, Path, ExportOptions], Exported]


def export(folder: Path, what: str, output: Path, options: ExportOptions | None = None) -> Exported:
    """Write what a run holds in another form.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of `score`.
    what : str
        A key of `EXPORTS`.
    output : pathlib.Path
        File or folder to write; files that are there are replaced.
    options : ExportOptions, optional

    Raises
    ------
    ConfigurationError
        There is no such folder, or no such kind of export.
    HER2Error
        What the kind of export says.
    OutputError
        The files cannot be written.
    """
    if what not in EXPORTS:
        raise ConfigurationError(f"{what!r} is nothing that can be exported; there are {', '.join(EXPORTS)}")
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder. Name the output folder of `score`.")
    try:
        return EXPORTS[what](folder, output, options or ExportOptions())
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error


def _reviews(folder: Path, output: Path, options: ExportOptions) -> Exported:
    raise NotImplementedError


def _truth(folder: Path, output: Path, options: ExportOptions) -> Exported:
    raise NotImplementedError


def _regions(folder: Path, output: Path, options: ExportOptions) -> Exported:
    raise NotImplementedError


EXPORTS: Mapping[str, Export] = MappingProxyType({"reviews": _reviews, "truth": _truth, "regions": _regions})
"""The kinds of export by name. Each imports what it needs when it is called."""
