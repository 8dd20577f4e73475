"""What came of an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "refused", "third-party crash", "finding"]

LONGEST_MESSAGE = 10_000
"""Characters: room for the twenty findings of a data set. Nobody reads a longer error, and it fills a log."""


@dataclass(frozen=True)
class Verdict:
    """What came of an input.

    Attributes
    ----------
    outcome : {'ok', 'refused', 'third-party crash', 'finding'}
        Used as it is; refused with an error of ours; a codec took its process with it, which a run contains; or
        something that must not happen.
    what : str
        Class of the error, signal, 'time', 'memory' or 'file outside'.
    where : str
        Place in the code, by which equal findings are counted together.
    said : str
    seconds : float
        Of a processor.
    peak_mb : float
        Largest resident memory of the process while it worked.
    """

    outcome: Outcome
    what: str = ""
    where: str = ""
    said: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0
