"""What is wrong with data on disk: all of it, each with the file, the reason and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsi_her2.errors import DatasetError
from wsi_her2.learning.datasets.dataset import Dataset, Example
from wsi_her2.models.classifier import Modality

_LISTED_IN_ERROR = 20
_NAMED_TOGETHER = 5


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Attributes
    ----------
    severity : {'error', 'warning'}
        'error': something is wrong and was left out. 'warning': it is used, or was never meant to be, but should
        be known.
    code : str
        Short name of the kind, for programs.
    path : pathlib.Path or None
        The file or folder; None where it is about the whole.
    message : str
        What is wrong, why it matters, what to do.
    """

    severity: Literal["error", "warning"]
    code: str
    path: Path | None
    message: str

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path is not None else ""
        return f"{self.severity}: {where}{self.message} [{self.code}]"


@dataclass(frozen=True, eq=False)
class Reading:
    """A data set as it was read, and all that was found wrong on the way.

    Attributes
    ----------
    dataset : Dataset
        What can be used.
    findings : tuple of Finding
    """

    dataset: Dataset
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What was left out because it is wrong."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What should be known."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")


def error(code: str, path: Path | None, message: str) -> Finding:
    """Something that is wrong and was left out."""
    return Finding("error", code, path, message)


def warning(code: str, path: Path | None, message: str) -> Finding:
    """Something that should be known."""
    return Finding("warning", code, path, message)


def conclude(
    name: str,
    folder: Path,
    classes: tuple[str, ...],
    modality: Modality,
    examples: Iterable[Example],
    findings: Sequence[Finding],
) -> Reading:
    """Make the data set of what is left, and say which classes have nothing.

    Raises
    ------
    DatasetError
        Nothing is left. Its `findings` say why.
    """
    kept = tuple(examples)
    if not kept:
        raise nothing_usable(name, folder, findings)
    present = {example.label for example in kept}
    empty = [
        warning(
            "empty-class", folder, f"no example of the class {each!r}; a classifier cannot learn it from these"
        )
        for each in classes
        if each not in present and all(isinstance(label, str) for label in present)
    ]
    return Reading(Dataset(name, classes, modality, kept), (*findings, *empty))


def nothing_usable(name: str, folder: Path, findings: Sequence[Finding]) -> DatasetError:
    """The error for a data set of which nothing can be used; it carries all findings."""
    listed = [f"  {finding}" for finding in findings[:_LISTED_IN_ERROR]]
    if len(findings) > _LISTED_IN_ERROR:
        listed.append(f"  and {len(findings) - _LISTED_IN_ERROR} more")
    failed = DatasetError("\n".join([f"{name}: nothing in {folder} can be used", *listed]))
    failed.findings = tuple(findings)
    return failed


def few(names: Sequence[object]) -> str:
    """The first names of a list and how many more there are."""
    listed = ", ".join(str(each) for each in names[:_NAMED_TOGETHER])
    more = len(names) - _NAMED_TOGETHER
    return f"{listed} and {more} more" if more > 0 else listed
