"""The exception tree: everything this package raises on purpose is a `HER2Error`.

Each class also inherits the builtin that it is, so that callers who know nothing of this package can still
catch `ValueError` or `OSError`. A message says what went wrong, with which file, why, and what to do.
"""

from __future__ import annotations

from typing import Any, Protocol

LONGEST_QUOTE = 300
"""Characters of somebody else's words in a message of ours; they may come from the file, and be as long as it."""

MOST_FIELDS = 10
"""Wrong fields that a message names."""


class HER2Error(Exception):
    """Base of every error that this package raises on purpose."""


class SlideError(HER2Error):
    """Base of the errors that concern one slide file."""


class SlideNotFound(SlideError, FileNotFoundError):
    """There is no file at the given path."""


class UnsupportedSlide(SlideError, ValueError):
    """No backend can open the file: it is not a slide, or it is damaged."""


class SlideReadError(SlideError, OSError):
    """The slide was opened, but pixels of it cannot be decoded."""


class MissingResolution(SlideError, ValueError):
    """The file does not say how many microns a pixel measures."""


class ImplausibleResolution(SlideError, ValueError):
    """The file says how many microns a pixel measures, but no slide scanner does that."""


class RegionsError(SlideError, ValueError):
    """The annotated regions of a slide cannot be used."""


class ResolutionTooLow(SlideError, ValueError):
    """The slide was scanned coarser than the classifier needs."""


class StainFitError(HER2Error, ValueError):
    """The sampled pixels do not carry enough stain to fit a normalisation."""


class StoreError(HER2Error, OSError):
    """A patch store is missing, incomplete or of another layout."""


class ClassifierError(HER2Error, ValueError):
    """A classifier cannot be loaded, or its description is wrong."""


class DatasetError(HER2Error, ValueError):
    """A training data set holds nothing that can be used, has changed, or contradicts itself.

    Attributes
    ----------
    findings : tuple
        All that was found wrong while it was read (`wsi_her2.learning.datasets.Finding`); may be empty.
    """

    findings: tuple[object, ...] = ()


class LabProfileError(HER2Error, ValueError):
    """A laboratory profile cannot be read, or its controls cannot carry one."""


class MissingExtra(HER2Error, ImportError):
    """An optional package is needed that is not installed; the message has the line that installs it."""


class OutputError(HER2Error, OSError):
    """Results cannot be written where they were asked for."""


class ConfigurationError(HER2Error, ValueError):
    """A configuration file or option is wrong."""


def shortened(said: object, most: int = LONGEST_QUOTE) -> str:
    """Words from elsewhere as part of a message: on one line, and not longer than somebody reads."""
    # Cut first: the words can be megabytes, and only their beginning is looked at.
    text = " ".join(str(said)[: 4 * most].split())
    return text if len(text) <= most else f"{text[:most]}..."


class _Described(Protocol):
    """What pydantic's `ValidationError` offers; the library is not needed to say what is wrong."""

    def errors(self) -> list[Any]: ...


def wrong_fields(error: _Described) -> str:
    """What a validation found wrong: the first fields by name, each with the reason."""
    found = error.errors()
    said = [
        f"{shortened('.'.join(map(str, item['loc'])), 100)}: {shortened(item['msg'])}"
        for item in found[:MOST_FIELDS]
    ]
    more = len(found) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")
