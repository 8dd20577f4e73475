"""A small run to review, made once, and a real server before it."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from pipelines.configuration import load_config
from pipelines.review.access import Access
from pipelines.review.app import create_app
from pipelines.review.run_folder import ReviewRun
from pipelines.review.server import listening_on, server_of
from pipelines.run.score import score
from wsi_her2.phantom import PhantomSpec, render_phantom

_HER2 = PhantomSpec(score="2+", width_mm=0.6, height_mm=0.5, mpp=0.4, seed=7, look="nanozoomer")

SLIDES = {
    "7_HER2": replace(_HER2, score="3+", seed=3),
    "12_HER2": _HER2,
    "12_HE": replace(_HER2, modality="he"),
    "30_HER2": replace(_HER2, score="1+", seed=5, artefacts=("blur",)),
}
"""File stem to what is drawn: two that are scored, the H&E section of the second, which must be refused, and one
that is blurred in part."""


@pytest.fixture(scope="session")
def review_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run over `SLIDES`, which lie in `slides` beside it. Not to be changed: see `run_copy`."""
    # Several processes may run the tests; one of them makes the run.
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, ready = base / "review", base / "review.ready"
    try:
        folder.mkdir()
    except FileExistsError:
        _wait_for(ready.exists, 240)
        return folder / "run"
    slides = folder / "slides"
    slides.mkdir()
    for name, spec in SLIDES.items():
        render_phantom(spec, slides / f"{name}.tif", workers=1, cell_format="parquet")
    config = load_config(None, {"compute.workers": 2, "compute.processes": False})
    quiet = Console(file=io.StringIO())
    score([slides / f"{name}.tif" for name in SLIDES], folder / "run", config, console=quiet)
    ready.touch()
    return folder / "run"


@pytest.fixture
def run_copy(review_run: Path, tmp_path: Path) -> Path:
    """A run folder of one's own; the slides lie where they were."""
    return Path(shutil.copytree(review_run, tmp_path / "run"))


Serve = Callable[..., httpx.Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server before a run folder, and get a client of it; `client.base_url` is its address.

    Options other than `access` are those of `ReviewRun`.
    """
    with ExitStack() as open_ones:

        def start(output: Path, *, access: Access | None = None, **options: object) -> httpx.Client:
            run = ReviewRun(output, **options)  # type: ignore[arg-type]
            address = open_ones.enter_context(serving(run, access or Access.to("127.0.0.1")))
            # As long as a machine that does other things as well may take.
            return open_ones.enter_context(httpx.Client(base_url=address, timeout=60))

        yield start


@pytest.fixture(scope="session")
def client(review_run: Path) -> Iterator[httpx.Client]:
    """A client of one server before the run that all share; only for tests that write nothing."""
    with (
        serving(ReviewRun(review_run), Access.to("127.0.0.1")) as address,
        httpx.Client(base_url=address, timeout=60) as shared,
    ):
        yield shared


@contextmanager
def serving(run: ReviewRun, access: Access) -> Iterator[str]:
    """The address of a server in a thread."""
    with listening_on("127.0.0.1", 0) as listening:
        server = server_of(create_app(run, access))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        _wait_for(lambda: server.started, 60)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


def _wait_for(holds: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"not so after {seconds:g} s")
        time.sleep(0.02)
