"""A Dask cluster of processes of their own, as one is started by hand, for the tests."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
from distributed import Client

from tests.pipelines.conftest import PATIENCE_S


class HandMadeCluster:
    """A scheduler and workers, each in a working folder of its own; a context manager.

    Parameters
    ----------
    folder : pathlib.Path
        Where the working folders are made.
    workers : int
    """

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self._folder = folder
        self._n_workers = workers
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self._port}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.nannies: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> HandMadeCluster:
        self.start_scheduler()
        for _ in range(self._n_workers):
            self.start_worker()
        # A run gives up on a scheduler without workers after a while, which a busy machine takes to start them.
        with Client(self.address) as client:
            client.wait_for_workers(self._n_workers, timeout=PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self.nannies, self.scheduler):
            if process is not None:
                kill_all(process.pid)
                process.wait()

    def start_scheduler(self) -> None:
        """Start the scheduler, again at the same address."""
        arguments = ("scheduler", "--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.scheduler = self._start("scheduler", *arguments)
            while self.scheduler.poll() is None and time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                        return
                time.sleep(0.1)
            # The port of one that was just killed may not be free yet.
            if time.monotonic() > deadline:
                raise TimeoutError("the scheduler did not start")
            time.sleep(0.5)

    def start_worker(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker of one thread with its nanny."""
        arguments = ("worker", self.address, "--nthreads", "1", "--no-dashboard", *options)
        nanny = self._start(f"worker-{len(self.nannies)}", *arguments)
        self.nannies.append(nanny)
        return nanny

    def worker_processes(self) -> list[psutil.Process]:
        """The processes that do the work."""
        found = []
        for nanny in self.nannies:
            found += worker_processes_of(nanny.pid)
        return found

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        cwd = self._folder / name
        cwd.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def worker_processes_of(pid: int) -> list[psutil.Process]:
    """Worker processes below a process: started anew, or forked from the process that is there for it."""
    found = []
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    for child in children:
        # One that has just ended says nothing of the others.
        with suppress(psutil.Error):
            command, parent = child.cmdline(), child.parent()
            said = " ".join(command)
            forked = "forkserver" in said and parent is not None and parent.cmdline() == command
            # Where setproctitle is installed, workers have a title of their own.
            if forked or "spawn_main" in said or said.startswith("dask worker"):
                found.append(child)
    return found


def kill_all(pid: int) -> None:
    """Kill a process and all below it."""
    try:
        root = psutil.Process(pid)
        for process in (*root.children(recursive=True), root):
            try:
                process.kill()
            except psutil.Error:
                continue
    except psutil.Error:
        return
