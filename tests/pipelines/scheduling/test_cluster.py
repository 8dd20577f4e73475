"""The same outputs on a cluster that was started by hand, whatever becomes of its parts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from pipelines.cluster import has_accelerators
from pipelines.configuration import load_config
from pipelines.run.score import resolve_classifier, score
from pipelines.scheduling.events import BlockDone, SlideDone
from pipelines.scheduling.schedule import Limits, score_slides
from pipelines.scheduling.slide_queue import SlideQueue
from pipelines.slide_claims import Claims
from pipelines.worker.guard import worker_name
from pipelines.worker.task import SlideTask
from tests.pipelines.conftest import PATIENCE_S, cli_command, differing_files
from tests.pipelines.scheduling.clusters import HandMadeCluster
from tests.pipelines.scheduling.test_faults import copies, ledger

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def slides(ihc_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three slides."""
    folder = tmp_path_factory.mktemp("several")
    copies(ihc_slide, folder, "one", "two", "three")
    return folder


@pytest.fixture(scope="module")
def in_one_process(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run in a single process makes of them."""
    output = tmp_path_factory.mktemp("one-process") / "out"
    score([slides], output, load_config(None, {"compute.workers": 1, "compute.processes": False}))
    return output


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[HandMadeCluster]:
    with HandMadeCluster(tmp_path / "cluster", workers=3) as started:
        yield started


def started(slides: Path, output: Path, cluster: HandMadeCluster) -> subprocess.Popen[str]:
    """A run on a cluster that has some blocks done."""
    process = subprocess.Popen(
        cli_command("score", slides, "-o", output, "--scheduler", cluster.address),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE_S
    while len([*output.glob(".partial/*/patches.zarr/done/c/*")]) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no two blocks were finished"
        time.sleep(0.02)
    return process


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(
    slides: Path, in_one_process: Path, cluster: HandMadeCluster, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = started(slides, output, cluster)
    cluster.worker_processes()[0].kill()
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert differing_files(in_one_process, output) == []


def test_a_scheduler_that_is_killed_and_comes_back_changes_nothing(
    slides: Path, in_one_process: Path, cluster: HandMadeCluster, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = started(slides, output, cluster)
    assert cluster.scheduler is not None
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    cluster.start_scheduler()
    # Workers leave with their scheduler; whatever started both starts both again.
    cluster.start_worker()
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    assert "the connection to the Dask scheduler is lost" in stderr
    assert "Traceback" not in stderr
    assert differing_files(in_one_process, output) == []


def test_runs_that_share_a_folder_score_each_slide_once(
    cli: Cli, slides: Path, in_one_process: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = cli_command("score", slides, "-o", output, "--workers", 1)
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in runs:
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, stderr
    ends = [line["slide_id"] for line in ledger(output) if line["state"] == "scored"]
    assert sorted(ends) == ["one", "three", "two"]
    assert len({line["run"] for line in ledger(output) if line["state"] in ("scored", "reused")}) == 2
    assert differing_files(in_one_process, output) == []


def test_blocks_go_to_the_workers_that_have_what_they_need(slides: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    config = load_config(None)
    choice, classifier = resolve_classifier(config)
    tasks = [SlideTask("one", slides / "one.tif", output, config, choice, classifier.sha256)]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        Claims(output) as claims,
    ):
        assert not has_accelerators(client)
        plain = next(iter(client.run(worker_name).values()))
        cluster.worker_spec = {
            **cluster.worker_spec,
            "gpu": {**cluster.worker_spec[0], "options": {**cluster.new_spec["options"], "resources": {"GPU": 1}}},
        }
        cluster.sync(cluster._correct_state)
        client.wait_for_workers(2, timeout=PATIENCE_S)
        assert has_accelerators(client)
        events = list(score_slides(client, SlideQueue(tasks, claims), Limits(blocks_need={"GPU": 1})))
    assert isinstance(events[-1], SlideDone)
    by = {event.worker for event in events if isinstance(event, BlockDone)}
    assert by
    assert plain not in by


def test_a_worker_of_another_version_is_sent_away(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with HandMadeCluster(tmp_path / "cluster", workers=1) as cluster:
        monkeypatch.setenv("PYTHONPATH", str(_another_version(tmp_path)), prepend=":")
        cluster.start_worker()
        monkeypatch.undo()
        with Client(cluster.address) as client:
            client.wait_for_workers(2, timeout=PATIENCE_S)
        config = load_config(None, {"compute.scheduler": cluster.address})
        summary = score([slides / "one.tif"], output, config)
        assert summary.all_scored
        with Client(cluster.address) as client:
            assert len(client.nthreads()) == 1


def _another_version(folder: Path) -> Path:
    """A folder that, first on the path, gives the package another version."""
    import importlib.metadata

    found = importlib.metadata.distribution("wsi-her2").metadata
    info = folder / "elsewhere" / f"wsi_her2-{found['Version']}.99.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: wsi-her2\nVersion: {found['Version']}.99\n")
    return info.parent
