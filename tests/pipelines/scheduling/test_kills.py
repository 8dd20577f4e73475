"""Whatever is killed, and however often, the outputs of a run are those of one that nobody disturbed."""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from tests.pipelines.conftest import cli_command, differing_files
from tests.pipelines.scheduling.clusters import HandMadeCluster, kill_all, worker_processes_of
from wsi_her2.phantom import PhantomSpec, render_phantom
from wsi_her2.scoring.rule import SCORES

# A step may be hit by several kills of a run; what is asked here is that none of them costs the slide.
SETTINGS = "compute: {workers: 2, attempts: 50, retry_wait_s: 0.1, cluster_wait_s: 60}\n"


def draw(folder: Path, count: int) -> Path:
    """Digital slides of all scores."""
    folder.mkdir()
    for number in range(count):
        score = SCORES[number % len(SCORES)]
        spec = PhantomSpec(score=score, width_mm=0.9, height_mm=0.9, mpp=0.5, seed=number, look="nanozoomer")
        render_phantom(spec, folder / f"slide_{number:02}.tif", workers=2)
    return folder


class DisturbedRun:
    """A run that is started again whenever it was killed, on this machine or on a cluster started by hand."""

    def __init__(self, slides: Path, output: Path, config: Path, cluster: HandMadeCluster | None) -> None:
        where = () if cluster is None else ("--scheduler", cluster.address)
        self.command = cli_command("score", slides, "-o", output, "--config", config, *where)
        self.log = output.with_suffix(".log").open("a")
        self.cluster = cluster
        self.client = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=self.log)

    def kill(self, chance: random.Random) -> str | None:
        """Kill something at random; None where there was nothing left to kill."""
        workers = worker_processes_of(self.client.pid) if self.cluster is None else self.cluster.worker_processes()
        victims = [
            "client",
            *(["worker"] * 2 if workers else []),
            *([] if self.cluster is None else ["scheduler"]),
        ]
        victim = chance.choice(victims)
        if self.client.poll() is not None:
            return None
        if victim == "worker":
            try:
                chance.choice(workers).kill()
            except psutil.Error:
                return None
        elif victim == "client":
            self.client.kill()
            self.client.wait()
            self.client = self.start()
        elif self.cluster is not None and self.cluster.scheduler is not None:
            self.cluster.scheduler.kill()
            self.cluster.scheduler.wait()
            for nanny in self.cluster.nannies:
                kill_all(nanny.pid)
                nanny.wait()
            self.cluster.nannies.clear()
            self.cluster.start_scheduler()
            for _ in range(2):
                self.cluster.start_worker()
        return victim

    def end(self, timeout_s: float) -> int:
        """Let it come to its end; a client that found no cluster is started again as a user would."""
        deadline = time.monotonic() + timeout_s
        while (code := self.client.wait(deadline - time.monotonic())) == 2:
            assert time.monotonic() < deadline
            self.client = self.start()
        self.log.close()
        return code


def disturb(slides: Path, undisturbed: Path, folder: Path, kills: int, seed: int, by_hand: bool) -> dict[str, int]:
    """Run over slides with kills at random moments until as many have been made, compare each run's outputs."""
    chance = random.Random(seed)
    config = folder / "settings.yaml"
    config.write_text(SETTINGS)
    made: dict[str, int] = {}
    number = 0
    while sum(made.values()) < kills:
        number += 1
        output = folder / f"run-{number}"
        on = HandMadeCluster(folder / f"cluster-{number}", workers=2) if by_hand else nullcontext()
        with on as cluster:
            run = DisturbedRun(slides, output, config, cluster)
            for _ in range(min(10, kills - sum(made.values()))):
                time.sleep(chance.uniform(0.0, 8.0))
                victim = run.kill(chance)
                if victim is None:
                    break
                made[victim] = made.get(victim, 0) + 1
            code = run.end(timeout_s=600)
        said = output.with_suffix(".log").read_text()
        assert code == 0, said[-3000:]
        assert "Traceback" not in said, said[-3000:]
        assert differing_files(undisturbed, output) == [], made
    return made


def undisturbed_run(slides: Path, output: Path) -> Path:
    ended = subprocess.run(
        cli_command("score", slides, "-o", output, "--workers", 2), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return output


@pytest.mark.slow
def test_a_few_kills_change_nothing(tmp_path: Path) -> None:
    slides = draw(tmp_path / "slides", 3)
    undisturbed = undisturbed_run(slides, tmp_path / "undisturbed")
    disturb(slides, undisturbed, tmp_path, kills=3, seed=1, by_hand=False)


@pytest.mark.slow
@pytest.mark.parametrize(("by_hand", "kills"), [(False, 60), (True, 40)])
def test_a_hundred_kills_change_nothing(tmp_path: Path, by_hand: bool, kills: int) -> None:
    slides = draw(tmp_path / "slides", 20)
    undisturbed = undisturbed_run(slides, tmp_path / "undisturbed")
    made = disturb(slides, undisturbed, tmp_path, kills=kills, seed=2, by_hand=by_hand)
    assert sum(made.values()) == kills
    assert set(made) == {"client", "worker", "scheduler"} - (set() if by_hand else {"scheduler"})
