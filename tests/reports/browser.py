"""A real browser for the tests of pages: Chromium without a window, spoken to by its own protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOW_TO_GET_ONE = (
    "no browser: install Chromium (Debian, Ubuntu: `apt-get install chromium`; Fedora: `dnf install chromium`; "
    "macOS: `brew install --cask chromium`), or set CHROMIUM to the program of a Chrome"
)
_PATIENCE_S = 120.0


def browser_program() -> str | None:
    """Where a browser is; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One window; a context manager. It speaks over a socket with tornado, which comes with distributed."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._number = 0
        self.requested: list[str] = []
        self.complaints: list[str] = []

    def __enter__(self) -> Browser:
        from tornado.ioloop import IOLoop
        from tornado.websocket import websocket_connect

        self._profile = tempfile.mkdtemp()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
        self._process = subprocess.Popen(
            [self._program, *flags, f"--user-data-dir={self._profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._loop = IOLoop(make_current=False)
        try:
            port, path = self._door()
            connect = lambda: websocket_connect(f"ws://127.0.0.1:{port}{path}", max_message_size=2**28)  # noqa: E731
            self._socket = self._loop.run_sync(connect, timeout=_PATIENCE_S)
            self._session: str | None = None
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self._call(f"{domain}.enable")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(_PATIENCE_S)
        self._loop.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, address: str) -> None:
        """Load a page and wait until its script has run."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def reload(self) -> None:
        """Load the page again."""
        self.run("window.before = true")
        self._call("Page.reload")
        self.until("!window.before && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """What an expression gives, as the page's own console would say."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait for a condition of the page."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            # A page that is just being left has no answer.
            with suppress(AssertionError):
                if self.run(condition):
                    return
            if time.monotonic() > end:
                raise AssertionError(f"did not come true: {condition}")
            time.sleep(0.02)

    def press(self, key: str, text: str = "") -> None:
        """Press a key as a person does; `text` is what it types."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": {"Enter": 13, "Tab": 9}.get(key, 0)}
        self._call("Input.dispatchKeyEvent", type="keyDown", **named, text=text)
        self._call("Input.dispatchKeyEvent", type="keyUp", **named)

    def without_script(self, off: bool) -> None:
        """Whether the pages that are opened from now on run no script."""
        self._call("Emulation.setScriptExecutionDisabled", value=off)

    def _door(self) -> list[str]:
        door, end = Path(self._profile, "DevToolsActivePort"), time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            if door.exists() and len(lines := door.read_text().split()) == 2:
                return lines
            time.sleep(0.05)
        raise AssertionError(f"{self._program} does not start")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._loop.run_sync(lambda: self._socket.write_message(json.dumps(message)), timeout=_PATIENCE_S)
        while True:
            raw = self._loop.run_sync(self._socket.read_message, timeout=_PATIENCE_S)
            answer = json.loads(raw)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        kind, given = event.get("method"), event.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requested.append(given["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(given["exceptionDetails"]["exception"].get("description", ""))
        elif kind == "Log.entryAdded":
            self.complaints.append(given["entry"]["text"])
