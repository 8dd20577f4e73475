"""A Dask cluster: one on this machine, or one that is given by its address."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

from pipelines.configuration import ComputeSettings
from wsi_her2.errors import ClusterLost, ConfigurationError
from wsi_her2.models.telemetry import forbid_telemetry

_CONNECT_TIMEOUT_S = 10

ACCELERATOR = "GPU"
"""Resource of workers that compute networks on a GPU, as Dask calls it."""

WORKER_ENVIRONMENT = {
    # A worker makes the same arrays for every block. Given back to the system after each use, as Dask has it,
    # they cost more to get again, page by page, than what is computed in them.
    "MALLOC_TRIM_THRESHOLD_": 2**28,
    "MALLOC_MMAP_THRESHOLD_": 2**25,
    "MALLOC_TOP_PAD_": 2**26,
    # One thread per worker: the workers fill the cores.
    "OMP_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
}
"""Of worker processes, before they start; the first three speak to glibc and mean nothing elsewhere."""


_PRELOADED = ("distributed.nanny", "pipelines.worker.steps", "onnxruntime", "openslide", "simplejpeg", "tifffile")
"""Modules that a worker needs; the last four are otherwise imported where they are used."""


@contextmanager
def connect(settings: ComputeSettings) -> Iterator[Client]:
    """A client on a cluster; a cluster that was started here ends with it.

    Parameters
    ----------
    settings : ComputeSettings
        `scheduler`: address of a running scheduler ('tcp://host:8786'), or the file that it wrote. Otherwise
        `workers` processes of one thread each are started here, or with `processes` false as many threads of
        this process.

    Raises
    ------
    ConfigurationError
        The scheduler does not answer, or has no workers.
    ClusterLost
        Workers do not start on this machine.
    """
    if not logging.getLogger().isEnabledFor(logging.INFO):
        # What matters of the cluster's life becomes a slide's row and reason; the rest is noise to a user.
        for chatter in ("distributed", "tornado", *_loggers_below("distributed")):
            logging.getLogger(chatter).setLevel(logging.CRITICAL)
    if settings.scheduler is not None:
        with _connected(settings.scheduler) as client:
            yield client
        return
    workers = settings.workers or available_cores()
    layout: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "processes": True}
    if settings.memory_limit is not None:
        layout["memory_limit"] = settings.memory_limit
    if not settings.processes:
        layout = {"n_workers": 1, "threads_per_worker": workers, "processes": False}
    settings_of_dask = {
        # Nothing of the cluster is served to a browser; the record of the run is in its output folder.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        # A block is bounded by design; the nanny need not second-guess a process that holds decoded tiles.
        "distributed.worker.memory.pause": 0.95,
        "distributed.worker.memory.terminate": 0.98,
        "distributed.comm.timeouts.connect": "30s",
        # A step with which a worker died is not given to the next one, but run apart: see `scheduling.schedule`.
        "distributed.scheduler.allowed-failures": 0,
        # One step at a time at a worker, so that its death says something about that step.
        "distributed.scheduler.worker-saturation": 1.0,
        # Looks at what a worker does a hundred times a second, which costs time and which nobody sees.
        "distributed.worker.profile.enabled": False,
        # So do looks at the event loop, fifty a second in each process, at the memory, ten, and at the machine.
        # Together they take more time than handing out the blocks does.
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.tick.cycle": "10s",
        "distributed.admin.system-monitor.interval": "2s",
        "distributed.worker.memory.monitor-interval": "1s",
        "distributed.client.scheduler-info-interval": "10s",
        "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
    }
    if settings.processes and sys.platform == "linux":
        settings_of_dask["distributed.worker.multiprocessing-method"] = "forkserver"
    with dask.config.set(settings_of_dask):
        if settings.processes:
            _import_once_for_all_workers()
        cluster = _started(layout)
        with cluster, Client(cluster) as client:
            yield client


def _started(layout: dict[str, Any]) -> LocalCluster:
    try:
        with _ctrl_c_left_to_the_client():
            return LocalCluster(**layout, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL)
    except (RuntimeError, OSError, TimeoutError) as error:
        # As when something ends a worker while it starts.
        raise ClusterLost(
            f"the workers of this machine do not start ({' '.join(str(error).split())}). If memory is short, use "
            "fewer with --workers."
        ) from error


def _import_once_for_all_workers() -> None:
    """Have what every worker imports be imported by the process that they are forked from, where there is one.

    That process is new, has one thread and does nothing else, so that a fork of it is safe. Elsewhere each worker
    starts Python anew, which takes seconds of a core for each.
    """
    # What is told to this process is told to all that come from it.
    forbid_telemetry()
    context = get_mp_context()
    if context.get_start_method() == "forkserver":
        # After Dask has asked for what it wants imported, which would replace this.
        context.set_forkserver_preload(list(_PRELOADED))


@contextmanager
def _ctrl_c_left_to_the_client() -> Iterator[None]:
    """Start worker processes deaf to Ctrl-C, which a terminal sends to all of them.

    The client hears it and ends them in order; otherwise each would print a traceback of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


def _loggers_below(name: str) -> list[str]:
    """Those that have a level of their own, as Dask gives some."""
    return [each for each in list(logging.root.manager.loggerDict) if each.startswith(f"{name}.")]


def available_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_accelerators(client: Client) -> bool:
    """Whether some workers were started with `--resources GPU=1`."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(ACCELERATOR in worker.get("resources", {}) for worker in workers)


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    file = Path(address)
    where = {"scheduler_file": address} if file.is_file() else {"address": address}
    try:
        client = Client(**where, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{address}: no Dask scheduler answers there ({' '.join(str(error).split()) or 'no answer'}). "
            "Start one with `dask scheduler` and workers with `dask worker ADDRESS`."
        ) from error
    with client:
        if not client.nthreads():
            raise ConfigurationError(
                f"{address}: the scheduler has no workers. Start some: `dask worker {address}`."
            )
        yield client
