"""`view`: the review pages of a run, served on this machine until somebody ends it."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_her2.errors import ConfigurationError
from wsi_her2.models.extras import need

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

_GRACE_S = 3
"""For answers that are on their way when the server is ended."""


def serve(
    output: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    slides: Path | None = None,
    reviewer: str | None = None,
    open_browser: bool = True,
    say: Callable[[str], None],
) -> None:
    """Serve the review pages of a run until Ctrl-C.

    Parameters
    ----------
    output : pathlib.Path
        Folder of the run.
    host : str
        What to listen on. Other machines reach the server only under another name or number than this machine's
        own, and then need a token.
    port : int
        0 takes any that is free.
    token : str, optional
        What a browser has to show; made up where one is needed and none is given.
    slides : pathlib.Path, optional
        Where slides lie that were moved since they were scored.
    reviewer : str, optional
        Whose name reviews carry unless the page is told another; the user's of this machine by default.
    open_browser : bool
    say : callable
        Gets the lines that the user is to read, the address first.

    Raises
    ------
    MissingExtra
        The packages of the extra `view` are not installed.
    ConfigurationError
        The folder holds no results, or nothing can listen there.
    """
    for package in ("starlette", "uvicorn"):
        need(package, "the review pages")
    with contextlib.suppress(KeyboardInterrupt):
        _serve(output, host, port, token, slides, reviewer or _user(), open_browser, say)


def _serve(
    output: Path,
    host: str,
    port: int,
    token: str | None,
    slides: Path | None,
    reviewer: str,
    open_browser: bool,
    say: Callable[[str], None],
) -> None:
    from pipelines.review.access import Access, is_loopback
    from pipelines.review.app import create_app
    from pipelines.review.run_folder import ReviewRun

    run, access = ReviewRun(output, slides=slides, reviewer=reviewer), Access.to(host, token)
    with listening_on(host, port) as listening:
        address = f"http://{_shown(host)}:{listening.getsockname()[1]}/"
        if access.token is not None:
            address += f"?token={access.token}"
        app = create_app(run, access)
        say(f"Review: {address}")
        say(f"{len(run.listed())} slides of {run.output}. Ctrl-C ends it. Research use only.")
        if not is_loopback(host):
            say("Whoever has this address sees the slides and can review. What is sent is not encrypted.")
        if open_browser and _has_screen():
            webbrowser.open(address)
        server_of(app).run(sockets=[listening])


def server_of(app: ASGIApp) -> uvicorn.Server:
    """What takes the connections for an application."""
    import uvicorn

    settings = uvicorn.Config(
        app,
        log_level="warning",
        # Its lines would hold the token.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return uvicorn.Server(settings)


def listening_on(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises
    ------
    ConfigurationError
        The host is not this machine's, or the port is taken.
    """
    name = host.strip("[]")
    try:
        family = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((name, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"{host}, port {port}: nothing can be served there ({error.strerror or error}). Choose a host of this "
            "machine with --host, or another port with --port; 0 takes any that is free."
        ) from error
    # An answer's head and body are written one after the other; without this the second waits, for 40 ms, until
    # the browser has said that it got the first. asyncio sets it only on sockets that name their protocol.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _shown(host: str) -> str:
    name = host.strip("[]")
    if name in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{name}]" if ":" in name else name


def _has_screen() -> bool:
    """Whether there is one to open a browser on; without, one in text would take the terminal."""
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
