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
    """There is no file at the given path or URL."""


class UnsupportedSlide(SlideError, ValueError):
    """No backend can open the file: it is not a slide, or it is damaged."""


class SlideReadError(SlideError, OSError):
    """The slide was opened, but pixels of it cannot be decoded."""


class SlideChanged(SlideError, OSError):
    """The slide file has changed since it was opened, so that what was read of it does not belong together."""


class StepCrashed(SlideError, RuntimeError):
    """A process that worked on the slide, and on nothing else, was ended by a fault in a codec or a runtime."""


class StepTimeout(SlideError, TimeoutError):
    """A step of the slide took longer than a step may."""


class StepTooLarge(SlideError, MemoryError):
    """A step of the slide needs more memory than a worker has."""


class SlideUnreachable(SlideError, ConnectionError):
    """The connection to where the slide lies failed. That says nothing of the slide, and may pass."""


class SlideForbidden(SlideError, PermissionError):
    """The server of the slide refuses access: credentials are missing or wrong, or a signed URL has expired."""


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


class JournalError(HER2Error, OSError):
    """The journal of reviews cannot be read or written, is none, or is of a newer version."""


class ReviewError(HER2Error, ValueError):
    """A review, or what was drawn with it, is not one that the journal keeps."""


class ConfigurationError(HER2Error, ValueError):
    """A configuration file or option is wrong."""


class ClusterLost(HER2Error, ConnectionError):
    """The Dask cluster has gone while it was needed."""


class UnfitWorker(HER2Error, RuntimeError):
    """A worker has other software than the run, or does not see its files."""
