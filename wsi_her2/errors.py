"""The exception tree: everything this package raises on purpose is a `HER2Error`.

Each class also inherits the builtin that it is, so that callers who know nothing of this package can still
catch `ValueError` or `OSError`. A message says what went wrong, with which file, why, and what to do.
"""

from __future__ import annotations


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
