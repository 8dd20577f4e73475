"""Many small reads at once, handed out in order: a network share answers each after milliseconds, not at once."""

from __future__ import annotations

import time
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
_QUICK_S = 0.0003


def read_ahead(read: Callable[[_Item], _Read], items: Iterable[_Item]) -> Iterator[_Read]:
    """Read items in a few threads where a read takes its time; at most some five hundred are read before they are
    asked for.

    The first few are read one by one. Where they come as quickly as from a local disk, so are the others:
    threads would only get into each other's way.

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

    rest = iter(items)
    started = time.perf_counter()
    first = read_some(tuple(islice(rest, _TOGETHER)))
    spent = time.perf_counter() - started
    yield from first
    if spent < _QUICK_S * len(first):
        yield from map(read, rest)
        return
    # A future is work as well, so one is made for several.
    parts = iter(lambda: tuple(islice(rest, _TOGETHER)), ())
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[Future[list[_Read]]] = deque(pool.submit(read_some, part) for part in islice(parts, _AHEAD))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(read_some, part) for part in islice(parts, 1))
