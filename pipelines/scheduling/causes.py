"""Why a step failed, as far as trying again is concerned."""

from __future__ import annotations

import errno

from distributed import KilledWorker

from wsi_her2.errors import (
    ClassifierError,
    ConfigurationError,
    HER2Error,
    LabProfileError,
    MissingExtra,
    OutputError,
    SlideChanged,
    SlideForbidden,
    StepTimeout,
    StepTooLarge,
    StoreError,
    UnfitWorker,
)
from wsi_her2.scoring.result import Cause
from wsi_her2.slides.location import without_credentials

_PASSING_ERRNO = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EINTR", "EIO", "EMFILE", "ENFILE", "ENOLCK", "ENOMEM", "ENOSPC", "EDQUOT"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET"),
        *("ENETUNREACH", "ENOTCONN", "EPIPE", "ESHUTDOWN", "ESTALE", "ETIMEDOUT", "EREMOTEIO"),
    )
    if hasattr(errno, name)
)
_SETUP_ERRNO = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))

_PASSING = (KilledWorker, SlideChanged, StoreError, UnfitWorker, ConnectionError, MemoryError)
_SETUP = (
    ClassifierError,
    ConfigurationError,
    LabProfileError,
    MissingExtra,
    OutputError,
    SlideForbidden,
    StepTooLarge,
)

NEEDS_NEW_START = (SlideChanged, StoreError)
"""Errors after which what was done of a slide is worth nothing."""


def cause_of(error: BaseException) -> Cause:
    """Whether to try again.

    Parameters
    ----------
    error : BaseException
        What a step raised.

    Returns
    -------
    {'passing', 'setup', 'lasting'}
        A passing cause is tried again at once, one of the set-up by the next run, a lasting one not until file,
        settings or software change.
    """
    if isinstance(error, StepTimeout):
        return "lasting"
    if isinstance(error, _SETUP):
        return "setup"
    if isinstance(error, _PASSING):
        return "passing"
    if isinstance(error, OSError) and error.errno in _PASSING_ERRNO:
        return "passing"
    if isinstance(error, OSError) and error.errno in _SETUP_ERRNO:
        return "setup"
    if isinstance(error, TimeoutError) and not isinstance(error, HER2Error):
        return "passing"
    return "lasting"


def reason_of(error: BaseException) -> str:
    """An error in words, as they stand in a table's cell.

    Parameters
    ----------
    error : BaseException
    """
    text = without_credentials(" ".join(str(error).split()))
    if isinstance(error, HER2Error):
        return text
    if isinstance(error, KilledWorker):
        return "the worker that worked on it died"
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
