"""The schedule alone, with steps that take no time: every slide ends once, and no report is lost or misread."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from pipelines.cluster import connect
from pipelines.configuration import load_config
from pipelines.run.score import resolve_classifier
from pipelines.scheduling.events import (
    BlockDone,
    Event,
    SlideDone,
    SlideFailed,
    SlidePlanned,
    SlideStarted,
    StepRetried,
)
from pipelines.scheduling.schedule import Limits, score_slides
from pipelines.scheduling.slide_queue import SlideQueue
from pipelines.slide_claims import Claims
from pipelines.worker.steps import Steps
from pipelines.worker.task import SlideTask
from tests.pipelines.scheduling import quick_steps

STEPS = Steps(
    prepare=quick_steps.prepare,
    block=quick_steps.block,
    plan_cells=quick_steps.plan_cells,
    finish=quick_steps.finish,
)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two worker processes."""
    with connect(load_config(None, {"compute.workers": 2}).compute) as connected:
        yield connected


def tasks(folder: Path, *names: str) -> list[SlideTask]:
    config = load_config(None)
    choice, classifier = resolve_classifier(config)
    (folder / "out").mkdir()
    made = []
    for name in names:
        path = folder / f"{name}.svs"
        path.write_bytes(b"stands for a slide")
        made.append(SlideTask(name, path, folder / "out", config, choice, classifier.sha256))
    return made


def heard(client: Client, slides: list[SlideTask], *, each_s: float = 0.0, **limits: int) -> list[Event]:
    """What happens, heard by one who takes some time for each."""
    events = []
    with Claims(slides[0].output) as claims:
        for event in score_slides(client, SlideQueue(slides, claims), Limits(retry_wait_s=0.01, **limits), STEPS):
            events.append(event)
            time.sleep(each_s)
    return events


# With a slow listener many steps end between two looks, and their reports are fetched together.
@pytest.mark.parametrize("each_s", [0.0, 0.02])
def test_every_step_is_heard_of_once_and_every_slide_ends(client: Client, tmp_path: Path, each_s: float) -> None:
    slides = tasks(tmp_path, "a", "b", "c", "d")
    events = heard(client, slides, each_s=each_s, max_slides_open=4, max_blocks_in_flight=16)
    for slide in slides:
        own = [event for event in events if event.task.slide_id == slide.slide_id]
        counts = Counter(type(event) for event in own)
        assert counts[BlockDone] == quick_steps.BLOCKS
        assert counts[SlideStarted] == counts[SlidePlanned] == counts[SlideDone] == 1
        assert isinstance(own[-1], SlideDone)


@pytest.mark.parametrize("each_s", [0.0, 0.02])
def test_a_report_that_cannot_be_read_costs_its_slide_and_no_other(
    client: Client, tmp_path: Path, each_s: float
) -> None:
    slides = tasks(tmp_path, "a", "garbled", "c")
    events = heard(client, slides, each_s=each_s, max_slides_open=3, max_blocks_in_flight=16)
    ends = {event.task.slide_id: event for event in events if isinstance(event, SlideDone | SlideFailed)}
    assert {slide_id: type(event) for slide_id, event in ends.items()} == {
        "a": SlideDone,
        "c": SlideDone,
        "garbled": SlideFailed,
    }
    counted = Counter(event.task.slide_id for event in events if isinstance(event, BlockDone))
    assert counted["a"] == counted["c"] == quick_steps.BLOCKS


def test_while_a_step_is_under_suspicion_no_other_of_its_slide_is_started(client: Client, tmp_path: Path) -> None:
    slides = tasks(tmp_path, "killed")
    events = heard(client, slides, max_blocks_in_flight=2)
    assert isinstance(events[-1], SlideDone)
    assert [event.step for event in events if isinstance(event, StepRetried)] == ["block"]
    path = slides[0].path
    begun, ended = quick_steps.marked(path, "begun"), quick_steps.marked(path, "ended")
    others = [quick_steps.marked(path, f"block-{number}") for number in range(1, quick_steps.BLOCKS)]
    assert not [at for at in others if begun < at < ended]
    assert [at for at in others if at > ended], "else nothing is asked here"
