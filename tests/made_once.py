"""What takes long to make is made by one of the processes that run tests side by side, for all of them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

_PATIENCE_S = 600.0


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is filled once for all processes of a test run. Not to be changed.

    Parameters
    ----------
    factory : pytest.TempPathFactory
    name : str
        Of the folder; equal names are equal contents.
    make : callable
        Fills the folder that it is given, which is renamed afterwards: nothing in it may hold its path.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, making = root / f"made-{name}", root / f"making-{name}"
    end = time.monotonic() + _PATIENCE_S
    while not folder.exists():
        try:
            making.mkdir()
        except FileExistsError:
            # Another process makes it; one that failed leaves nothing, and then it is this one's turn.
            if time.monotonic() > end:
                raise TimeoutError(f"{making} is not finished") from None
            time.sleep(0.1)
            continue
        try:
            # It may have been finished between the two looks.
            if not folder.exists():
                make(making)
                making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return folder
