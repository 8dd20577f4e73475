"""`view`: the review pages of a run, served on this machine."""

from __future__ import annotations

import socket
import webbrowser
from pathlib import Path


def serve(
    output: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    slides: Path | None = None,
    reviewer: str = "",
    open_browser: bool = True,
) -> None:
    """Serve the review pages of a run until Ctrl-C."""
    import uvicorn

    from pipelines.review.access import Access
    from pipelines.review.app import create_app
    from pipelines.review.run_folder import ReviewRun

    access = Access.to(host, token)
    run = ReviewRun(output, slides=slides, reviewer=reviewer)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host.strip("[]"), port), family=family) as listening:
        # An answer's head and body are written one after the other; without this the second waits for the
        # browser to say that it has the first. asyncio only sets it on sockets that name their protocol.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = f"http://{host}:{listening.getsockname()[1]}/" + (f"?token={access.token}" if access.token else "")
        print(address, flush=True)  # noqa: T201
        if open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(create_app(run, access), log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])
