from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.pool import Child

MEMORY_MB, SECONDS = 1500, 30.0
"""What no hostile input may need: far below what a clinic's laptop has, and what a person waits."""


@pytest.fixture(scope="session")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A process with limits, in which hostile inputs are used."""
    made = Child(tmp_path_factory.mktemp("fuzz") / "plain", MEMORY_MB, SECONDS)
    yield made
    made.close()
