"""The slides of a run that wait: other runs into the same folder may take some, a scanner may add more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from pipelines.slide_claims import Claims
from pipelines.worker.task import SlideTask

_LOOK_AGAIN_S = 2.0


class SlideQueue:
    """Hands out slides, each claimed for this run.

    Parameters
    ----------
    tasks : iterable of SlideTask
    claims : Claims
        A slide that another run holds is asked for again later: that run may have been killed by then.
    arrivals : callable, optional
        Called now and then while nothing waits: returns slides that have come. With it the queue never ends.
    """

    def __init__(
        self, tasks: Iterable[SlideTask], claims: Claims, arrivals: Callable[[], Sequence[SlideTask]] | None = None
    ) -> None:
        self._waiting = deque(tasks)
        self._held_elsewhere: deque[SlideTask] = deque()
        self._claims = claims
        self._arrivals = arrivals
        self._look_again_at = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing left, and nothing will come."""
        return self._arrivals is None and not self._waiting and not self._held_elsewhere

    def take(self) -> SlideTask | None:
        """The next slide; None where there is none just now."""
        if not self._waiting and time.monotonic() >= self._look_again_at:
            self._look_again_at = time.monotonic() + _LOOK_AGAIN_S
            self._waiting.extend(self._held_elsewhere)
            self._held_elsewhere.clear()
            if self._arrivals is not None:
                self._waiting.extend(self._arrivals())
        while self._waiting:
            task = self._waiting.popleft()
            if self._claims.take(task.slide_id):
                return task
            self._held_elsewhere.append(task)
        return None

    def done(self, task: SlideTask) -> None:
        """A slide has its result."""
        self._claims.give_back(task.slide_id)

    def put_back(self, task: SlideTask) -> None:
        """A slide could not be brought to its end; it is the next one again."""
        self._claims.give_back(task.slide_id)
        self._waiting.appendleft(task)
