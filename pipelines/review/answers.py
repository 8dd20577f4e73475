"""What the review server answers with and how it takes what it is sent; errors are sentences."""

from __future__ import annotations

import gzip
import json
import logging
import math
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wsi_her2.errors import RegionsError, ReviewError, SlideError
from wsi_her2.messages import shortened
from wsi_her2.reports.pages import script_hash

_log = logging.getLogger(__name__)

_WORTH_PACKING = 2000
_QUICK = 1
"""Level of gzip: what is sent is mostly sent to the same machine."""

REPORTS_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src {}; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Of reports, which have their styles and scripts within them. A run's folder may come from somebody else, and a
page of it must not act as the reviewer; so only the scripts that this version writes into reports run."""


def to_json(content: Any) -> str:
    """As JSON; NaN, which JSON does not have, is an error here."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def as_json(request: Request, content: dict[str, Any], status: int = 200, **more: str | None) -> Response:
    """An answer in JSON; `more` are further members that are JSON already, or None."""
    text = to_json(content)
    added = "".join(f",{to_json(name)}:{member}" for name, member in more.items() if member is not None)
    text = f"{text.removesuffix('}')}{added}}}"
    # A file name that is not valid Unicode, which POSIX allows, cannot be written in UTF-8.
    return packed(request, text.encode("utf-8", "replace"), "application/json", status)


def packed(request: Request, content: bytes, media_type: str, status: int = 200) -> Response:
    """Bytes, compressed where the browser takes them so and there are enough of them."""
    headers = {"vary": "accept-encoding"}
    if len(content) > _WORTH_PACKING and "gzip" in request.headers.get("accept-encoding", ""):
        content = gzip.compress(content, _QUICK)
        headers["content-encoding"] = "gzip"
    return Response(content, status, media_type=media_type, headers=headers)


def as_file(request: Request, path: Path, media_type: str, *, policy: str | None = None) -> Response:
    """A file, or that it has not changed since the browser got it."""
    try:
        state = path.stat()
    except OSError as error:
        raise HTTPException(404, f"{path.name} is no longer there.") from error
    tag = f'"{state.st_mtime_ns:x}-{state.st_size:x}"'
    headers = {"cache-control": "no-cache", "etag": tag}
    if policy is not None:
        headers["content-security-policy"] = policy
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=media_type, headers=headers, stat_result=state)


def reports_policy() -> str:
    """The policy under which reports are served."""
    return REPORTS_POLICY.format(" ".join(script_hash(name) for name in ("slide.js", "run.js")))


def number_of(request: Request, name: str) -> float:
    """A number in a request's query.

    Raises
    ------
    HTTPException
        There is none.
    """
    try:
        value = float(request.query_params[name])
    except (KeyError, ValueError) as error:
        raise HTTPException(400, f"{name} is missing or no number: a box is x, y, width and height.") from error
    if not math.isfinite(value):
        raise HTTPException(400, f"{name} is no number that is finite.")
    return value


async def json_of(request: Request, max_bytes: int) -> dict[str, Any]:
    """What a request was sent with: an object in JSON.

    Raises
    ------
    HTTPException
        It is larger than `max_bytes`, or no such object.
    """
    content = bytearray()
    try:
        async for part in request.stream():
            content += part
            if len(content) > max_bytes:
                raise HTTPException(413, f"The request is larger than {max_bytes:,} bytes.")
    except ClientDisconnect as error:
        raise HTTPException(400, "The request was cut off.") from error
    try:
        # Infinity and NaN are no JSON, but Python reads them.
        parsed = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The request is no JSON: {shortened(error)}.") from error
    if not isinstance(parsed, dict):
        raise HTTPException(400, "The request must be a JSON object.")
    return parsed


def explain_status(request: Request, error: Exception) -> Response:
    """An error that a route raised on purpose, or an address that there is not."""
    status, said = 500, str(error)
    headers = None
    if isinstance(error, HTTPException):
        status, said, headers = error.status_code, error.detail, error.headers
        said = _PLAINER.get(said, said)
    return _explained(request, status, said, headers)


def explain_error(request: Request, error: Exception) -> Response:
    """An error that this package raised."""
    if isinstance(error, ReviewError):
        return _explained(request, 422, f"This is {error}.")
    if isinstance(error, RegionsError):
        return _explained(request, 422, f"The regions cannot be used: {error}.")
    if isinstance(error, SlideError):
        return _explained(request, 404, str(error))
    _log.warning("%s %s: %s", request.method, request.url.path, error)
    return _explained(request, 500, str(error))


class FailuresExplained:
    """Answers where an error comes through that nobody expected; what it is stands in the log, not in the answer.

    A handler for such errors is no replacement: Starlette raises them again after it, and the connection ends.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        answers = False

        async def noted(message: Message) -> None:
            nonlocal answers
            answers = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if answers or scope["type"] != "http":
                raise
            request = Request(scope)
            _log.error("%s %s", request.method, request.url.path, exc_info=error)
            said = "Something went wrong in the server; the window in which it was started says what."
            await _explained(request, 500, f"{said} Reviews are kept.")(scope, receive, send)


_PLAINER = {"Not Found": "There is no such page here.", "Method Not Allowed": "That cannot be done here."}


def _explained(request: Request, status: int, said: str, headers: Any = None) -> Response:
    said = said.encode("utf-8", "replace").decode("utf-8")
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": said}, status, headers)
    return PlainTextResponse(said, status, headers)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
