"""A web server that gives parts of files, as object storage does, and fails where a test says so."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class RangeServer:
    """What is served, how, and what was asked for.

    Attributes
    ----------
    folder : Path
    url : str
        Of the folder, without a slash at its end.
    ranges : bool
        Whether parts are given; else always the whole file.
    heads : bool
        Whether a request for headers alone is answered; a URL that is signed for reading refuses it.
    headers : dict
        Sent with every answer: a version of the file, for example.
    answers : int
        How many were given.
    fails : callable
        Gets the number of an answer, from 0, and gives what comes instead of it: a status, 'hang up' or None.
    authorizations : set
        Headers of that name that came.
    spans : list
        First byte and the one after the last of each part that was sent.
    """

    folder: Path
    url: str = ""
    ranges: bool = True
    heads: bool = True
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"'})
    answers: int = 0
    fails: Callable[[int], int | str | None] = lambda _: None
    authorizations: set[str] = field(default_factory=set)
    spans: list[tuple[int, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def break_down(self) -> None:
        """Answer nothing from now on."""
        self.fails = lambda _: "hang up"

    def repair(self) -> None:
        """Answer all again."""
        self.fails = lambda _: None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    serving: RangeServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        serving = self.serving
        with serving.lock:
            number, serving.answers = serving.answers, serving.answers + 1
            serving.authorizations.add(self.headers.get("Authorization", ""))
        failure = serving.fails(number) if body or serving.heads else 403
        if failure == "hang up":
            self.close_connection = True
            return
        path = serving.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if failure is None and not path.is_file():
            failure = 404
        if failure is not None:
            self.send_response(int(failure))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if serving.ranges else None
        start, end = (int(asked[1]), min(size, int(asked[2]) + 1)) if asked else (0, size)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        for name, value in serving.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            with serving.lock:
                serving.spans.append((start, end))
            with path.open("rb") as file, suppress(ConnectionError):
                file.seek(start)
                self.wfile.write(file.read(end - start))


@contextmanager
def serve(folder: Path) -> Iterator[RangeServer]:
    """Serve the files of a folder."""
    serving = RangeServer(folder)
    handler = type("Handler", (_Handler,), {"serving": serving})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    serving.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield serving
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
