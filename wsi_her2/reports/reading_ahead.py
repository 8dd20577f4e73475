"""Many small reads at once, handed out in order: a network share answers each after milliseconds, not at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")

_THREADS = 16
_TOGETHER = 16
_AHEAD = 2 * _THREADS


def read_ahead(read: Callable[[_Item], _Read], items: Iterable[_Item]) -> Iterator[_Read]:
    """Read each item in one of a few threads; at most some five hundred are read before they are asked for.

    Parameters
    ----------
    read : callable
        Waits for a disk or a network rather than computes.
    items : iterable

    Yields
    ------
    object
        What `read` gives, in the order of the items.
    """

    def read_some(some: tuple[_Item, ...]) -> list[_Read]:
        return [read(item) for item in some]

    # A future costs as much as a read from a local disk, so one is made for several.
    rest = iter(items)
    parts = iter(lambda: tuple(islice(rest, _TOGETHER)), ())
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[Future[list[_Read]]] = deque(pool.submit(read_some, part) for part in islice(parts, _AHEAD))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(read_some, part) for part in islice(parts, 1))
