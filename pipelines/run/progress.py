"""Progress of a run on stderr: two bars on a terminal, a line per slide elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipelines.scheduling.causes import reason_of
from pipelines.scheduling.events import (
    BlockDone,
    CellPartDone,
    CellsFound,
    Event,
    SampleTaken,
    SlideDone,
    SlideFailed,
    SlidePlanned,
    StepRetried,
)
from wsi_her2.scoring.result import SlideResult


class RunProgress:
    """Shows events as they come; a context manager.

    Parameters
    ----------
    n_slides : int
    console : rich.console.Console
        On stderr: stdout is for results.
    """

    def __init__(self, n_slides: int, console: Console) -> None:
        self._console = console
        self._done = 0
        self._n_slides = n_slides
        self._bars = Progress(
            TextColumn("{task.description:<7}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._slides = self._bars.add_task("slides", total=n_slides)
        self._blocks = self._bars.add_task("blocks", total=None)
        self._planned = 0

    def __enter__(self) -> RunProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, event: Event, result: SlideResult | None = None) -> None:
        """Show one event; `result` is the slide's when the event ends it."""
        match event:
            case SlidePlanned():
                self._planned += event.n_blocks
                self._bars.update(self._blocks, total=self._planned, advance=event.done)
            case SampleTaken():
                self._planned -= event.left_out
                self._bars.update(self._blocks, total=self._planned)
            case CellsFound():
                self._planned += event.n_parts
                self._bars.update(self._blocks, total=self._planned, advance=event.done)
            case BlockDone() | CellPartDone():
                self._bars.advance(self._blocks)
            case StepRetried():
                again = "begins anew" if event.new_start else f"tries a step again ({event.step})"
                wait = f" in {event.wait_s:.0f} s" if event.wait_s else ""
                self.say(f"{event.task.slide_id}: {again}{wait}: {reason_of(event.error)}")
            case SlideDone() | SlideFailed():
                self._done += 1
                self._bars.advance(self._slides)
                if result is not None:
                    reused = isinstance(event, SlideDone) and event.reused
                    self.say(
                        f"[{self._done}/{self._n_slides}] {result.slide_id}: {_in_words(result)}"
                        f"{' (unchanged since an earlier run)' if reused else ''}"
                    )

    def expect(self, n_slides: int) -> None:
        """Count more slides in."""
        self._n_slides += n_slides
        self._bars.update(self._slides, total=self._n_slides)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _in_words(result: SlideResult) -> str:
    if result.status == "scored" and result.call is not None:
        return f"{result.call.score or ''} {result.call.group}, confidence {result.call.confidence:.2f}".strip()
    return f"{result.status.replace('_', ' ')}: {result.reason}"
