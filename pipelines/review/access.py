"""Who may ask the review server for what: which hosts it answers to, a token, where writes come from, headers.

The pages show patients' slides and write reviews, so no other page in the same browser and nobody else on the
network may read or write through the server. Against that stand, in this order: the Host header must name this
server (a foreign name can be made to point here); a token, where it listens beyond this machine; an Origin of its
own on whatever writes; and headers that keep browsers from guessing, framing, or loading anything from elsewhere.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of everything that is served and has no policy of its own."""

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY = frozenset({"0.0.0.0", "::", ""})
_HOST = re.compile(r"(\[(?P<number>[0-9a-f:.]+)\]|(?P<name>[^:\[\]/@]+))(:\d*)?")
_READING = frozenset({"GET", "HEAD"})

_STRANGE_HOST = (
    "This server does not go by the name in your request. Open the address that `wsi-her2 view` printed, or start "
    "it with --host and the name that you use."
)
_NO_TOKEN = (
    "This server asks for a token. Open the whole address that `wsi-her2 view` printed, with the token at its "
    "end; the browser then remembers it until the server ends."
)
_STRANGE_ORIGIN = "Reviews are only taken from this server's own pages: open its address in a window of its own."
_NOT_JSON = "The request must be JSON (Content-Type: application/json)."


@dataclass(frozen=True)
class Access:
    """Who may ask for what.

    Attributes
    ----------
    hosts : frozenset of str
        Names, in lower case and without a port, by which requests may address the server.
    any_address : bool
        Whether any number (IPv4, IPv6) will do as well. A name can be made to point here by somebody else, a
        number cannot.
    token : str or None
        What a browser has to show once; None where anybody who reaches the server may use it.
    session : str
        What the cookie then holds.
    cookie : str
        Its name. Browsers keep one set of cookies for all ports of a host, so each server needs its own.
    """

    hosts: frozenset[str]
    any_address: bool = False
    token: str | None = field(default=None, repr=False)
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    cookie: str = field(default_factory=lambda: f"wsi_her2_{secrets.token_hex(4)}")

    @classmethod
    def to(cls, host: str, token: str | None = None) -> Access:
        """Access to a server that listens on a host.

        Parameters
        ----------
        host : str
            Name or number; '0.0.0.0' and '::' are all of this machine's.
        token : str, optional
            One is made where the host is reached from other machines and none is given.
        """
        host = host.strip("[]").lower()
        if is_loopback(host):
            return cls(_LOOPBACK | {host}, token=token or None)
        own = {socket.gethostname().lower(), socket.getfqdn().lower()} if host in _ANY else {host}
        return cls(_LOOPBACK | own, any_address=host in _ANY, token=token or secrets.token_urlsafe(24))

    def answers_to(self, host: str) -> bool:
        """Whether a Host header addresses this server."""
        name = _without_port(host)
        return name in self.hosts or (self.any_address and _is_address(name))


def is_loopback(host: str) -> bool:
    """Whether a host is reached from this machine only."""
    return host in _LOOPBACK or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


class Guarded:
    """The application behind its access rules; the outermost ASGI layer.

    Parameters
    ----------
    app : ASGI application
    access : Access
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(MutableHeaders(scope=message))
            await send(message)

        await (self._refused(scope) or self._app)(scope, receive, send_guarded)

    def _refused(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further."""
        headers, access = Headers(scope=scope), self._access
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not access.answers_to(hosts[0]):
            return _refusal(421, _STRANGE_HOST)
        if access.token is not None:
            held = cookie_parser(headers.get("cookie", "")).get(access.cookie, "")
            if not _same(held, access.session):
                return self._without_cookie(scope)
        if scope["method"] not in _READING:
            if headers.get("origin") not in (f"http://{hosts[0]}", f"https://{hosts[0]}"):
                return _refusal(403, _STRANGE_ORIGIN)
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return _refusal(415, _NOT_JSON)
        return None

    def _without_cookie(self, scope: Scope) -> Response:
        access = self._access
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = [value for name, value in asked if name == "token"]
        if scope["method"] not in _READING or len(shown) != 1 or not _same(shown[0], access.token or ""):
            if scope["path"].startswith("/api/"):
                return _refusal(401, _NO_TOKEN)
            return PlainTextResponse(_NO_TOKEN, 401)
        # Out of the address, so that it is not copied with it.
        rest = urlencode([(name, value) for name, value in asked if name != "token"])
        path = scope.get("raw_path", b"/").decode("latin-1")
        # A path of two slashes would be taken for the name of another host.
        target = "/" + path.lstrip("/\\") + (f"?{rest}" if rest else "")
        answer = RedirectResponse(target, 303)
        answer.set_cookie(access.cookie, access.session, path="/", httponly=True, samesite="strict")
        answer.headers["cache-control"] = "no-store"
        return answer


def _add_headers(headers: MutableHeaders) -> None:
    for name, value in _HEADERS.items():
        headers[name] = value
    headers.setdefault("content-security-policy", PAGE_POLICY)
    headers.setdefault("cache-control", "no-store")


def _refusal(status: int, said: str) -> Response:
    return JSONResponse({"error": said}, status)


def _same(given: str, kept: str) -> bool:
    # Compared in a time that does not tell how much of it was right.
    return hmac.compare_digest(given.encode(), kept.encode())


def _without_port(host: str) -> str:
    found = _HOST.fullmatch(host.strip().lower())
    return (found["number"] or found["name"]) if found is not None else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
