"""Commands as a user runs them, each in a process of its own, forked from one that has imported what they import.

Importing takes a second of a core, three with torch, and the tests run a hundred commands. What is printed, the
exit code and what is left behind are those of `python -m pipelines.cli`. Where processes cannot be watched like
this (`os.pidfd_open` is of Linux), each command starts Python anew.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

_READY = b"ready\n"
_LONGEST_MESSAGE = 1 << 20


class Preloaded:
    """A process that has imported modules and forks for each command; a context manager.

    Parameters
    ----------
    modules : sequence of str
    environment : mapping
        Of the process; what libraries read when they are imported is decided here.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="preloaded-")
        self._door = str(Path(self._folder.name) / "door")
        self._process: subprocess.Popen[bytes] | None = None
        if hasattr(os, "pidfd_open"):
            command = [sys.executable, "-m", "tests.pipelines.preloaded", self._door, *modules]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
            assert self._process.stdout is not None
            if self._process.stdout.readline() != _READY:
                raise RuntimeError("the process that commands are forked from did not start")

    def __enter__(self) -> Preloaded:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
        self._folder.cleanup()

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `wsi-her2` with these arguments to its end."""
        if self._process is None:
            command = [sys.executable, "-m", "pipelines.cli", *arguments]
            return subprocess.run(
                command, capture_output=True, text=True, timeout=timeout, check=False, env=env, cwd=cwd
            )
        asked = {"arguments": list(arguments), "env": dict(env or os.environ), "cwd": str(cwd or Path.cwd())}
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            connection.settimeout(timeout)
            connection.connect(self._door)
            socket.send_fds(connection, [json.dumps(asked).encode()], [out.fileno(), err.fileno()])
            with connection.makefile("r") as answers:
                pid = int(answers.readline())
                try:
                    code = int(answers.readline())
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(arguments), timeout) from None
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode("utf-8", "replace"))
        return subprocess.CompletedProcess(list(arguments), code, *texts)


def _serve(door: str, modules: Sequence[str]) -> int:
    """Fork for each command that is asked for; in a fork, what the command comes to."""
    from wsi_her2.models.telemetry import forbid_telemetry

    forbid_telemetry()
    for module in modules:
        import_module(module)
    # What was made until here is not looked at again in each fork.
    gc.freeze()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(door)
    listening.listen()
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()
    running: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as waiting:
        waiting.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is not listening:
                    pid, connection = running.pop(key.fd)
                    waiting.unregister(key.fd)
                    os.close(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    _tell(connection, code)
                    connection.close()
                    continue
                connection, _ = listening.accept()
                asked, fds, _, _ = socket.recv_fds(connection, _LONGEST_MESSAGE, 2)
                pid = os.fork()
                if pid == 0:
                    for stream in (connection, listening, *(other for _, other in running.values())):
                        stream.close()
                    return _command(json.loads(asked), fds)
                for fd in fds:
                    os.close(fd)
                watched = os.pidfd_open(pid)
                running[watched] = pid, connection
                waiting.register(watched, selectors.EVENT_READ)
                _tell(connection, pid)


def _tell(connection: socket.socket, number: int) -> None:
    try:
        connection.sendall(f"{number}\n".encode())
    except OSError:
        # Whoever asked has gone.
        return


def _command(asked: dict[str, object], fds: Sequence[int]) -> int:
    for fd, place in zip(fds, (1, 2), strict=True):
        os.dup2(fd, place)
        os.close(fd)
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[arg-type]
    os.chdir(str(asked["cwd"]))
    from pipelines import cli

    sys.argv = [cli.__file__, *asked["arguments"]]  # type: ignore[misc]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does with what nobody catches
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1], sys.argv[2:]))
