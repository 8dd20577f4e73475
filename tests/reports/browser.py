"""A real browser for the tests of pages: Chromium without a window, spoken to by its own protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_KEY_NUMBERS = {
    "Enter": 13,
    "Tab": 9,
    "Escape": 27,
    " ": 32,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
HOW_TO_GET_ONE = (
    "no browser: install Chromium (Debian, Ubuntu: `apt-get install chromium`; Fedora: `dnf install chromium`; "
    "macOS: `brew install --cask chromium`), or set CHROMIUM to the program of a Chrome"
)
_PATIENCE_S = 120.0


def browser_program() -> str | None:
    """Where a browser is; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def _key(key: str, shift: bool, ctrl: bool) -> dict[str, Any]:
    code = f"Digit{key}" if key.isdigit() else f"Key{key.upper()}" if len(key) == 1 and key.isalpha() else key
    return {
        "key": key,
        "code": code,
        "windowsVirtualKeyCode": _KEY_NUMBERS.get(key, 0),
        "modifiers": 8 * shift + 2 * ctrl,
    }


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
        """Load a page, with no history before it, and wait until its script has run."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        # A history that is full drops pages that a script went to, which are those that a test goes back to.
        self._call("Page.resetNavigationHistory")

    def printed(self, width_in: float, height_in: float) -> bytes:
        """The page as PDF on paper of this size."""
        answer = self._call("Page.printToPDF", paperWidth=width_in, paperHeight=height_in, printBackground=True)
        return base64.b64decode(answer["data"])

    def as_printed(self, width_px: int | None) -> None:
        """Lay the page out with its style for paper, this wide; None: for the screen again."""
        self._call("Emulation.setEmulatedMedia", media="print" if width_px else "")
        if width_px is None:
            self._call("Emulation.clearDeviceMetricsOverride")
        else:
            size = {"width": width_px, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
            self._call("Emulation.setDeviceMetricsOverride", **size)

    def reload(self) -> None:
        """Load the page again."""
        self.run("window.before = true")
        self._call("Page.reload")
        self.until("!window.before && document.readyState === 'complete'")

    def back(self) -> None:
        """Go back in the history."""
        # A page that is left at once may not answer.
        with suppress(AssertionError):
            self.run("history.back()")

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

    def press(self, key: str, text: str = "", *, shift: bool = False, ctrl: bool = False) -> None:
        """Press a key as a person does; `text` is what it types."""
        self.hold(key, text, shift=shift, ctrl=ctrl)
        self.release(key, shift=shift, ctrl=ctrl)

    def hold(self, key: str, text: str = "", *, shift: bool = False, ctrl: bool = False) -> None:
        """Press a key and keep it pressed."""
        self._call("Input.dispatchKeyEvent", type="keyDown", **_key(key, shift, ctrl), text=text)

    def release(self, key: str, *, shift: bool = False, ctrl: bool = False) -> None:
        """Let a key go."""
        self._call("Input.dispatchKeyEvent", type="keyUp", **_key(key, shift, ctrl))

    def type(self, text: str) -> None:
        """Type letters, one after the other."""
        for letter in text:
            self.press(letter, letter)

    def move(self, x: float, y: float, *, shift: bool = False, pressed: bool = False) -> None:
        """Move the mouse to a point of the window, CSS pixels."""
        buttons = {"button": "left", "buttons": 1} if pressed else {"button": "none", "buttons": 0}
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, modifiers=8 * shift, **buttons)

    def click(self, x: float, y: float, *, count: int = 1) -> None:
        """Click a point of the window; `count` 2 is a double click."""
        self.move(x, y)
        for number in range(1, count + 1):
            for what in ("mousePressed", "mouseReleased"):
                self._call("Input.dispatchMouseEvent", type=what, x=x, y=y, button="left", clickCount=number)

    def drag(self, points: Sequence[tuple[float, float]], *, shift: bool = False) -> None:
        """Press the mouse at the first point, go through the others, let it go at the last."""
        (x, y), last = points[0], points[-1]
        self.move(x, y, shift=shift)
        held = {"button": "left", "clickCount": 1, "modifiers": 8 * shift}
        self._call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **held)
        for x, y in points[1:]:
            self.move(x, y, shift=shift, pressed=True)
        self._call("Input.dispatchMouseEvent", type="mouseReleased", x=last[0], y=last[1], **held)

    def wheel(self, x: float, y: float, down: float) -> None:
        """Turn the wheel over a point of the window; negative is away from the reader."""
        self._call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=down)

    def resize(self, width: int, height: int, *, ratio: float = 1.0) -> None:
        """Give the window another size, CSS pixels, and each of them so many pixels of the screen."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=False
        )

    def prefer(self, **features: str) -> None:
        """What the reader prefers, such as `color_scheme='dark'`; what is not named goes back to what it was."""
        named = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self._call("Emulation.setEmulatedMedia", features=named)

    def picture(self, form: str = "png", quality: int | None = None) -> bytes:
        """What the window shows, as PNG or JPEG."""
        how: dict[str, Any] = {"format": form} | ({} if quality is None else {"quality": quality})
        return base64.b64decode(self._call("Page.captureScreenshot", **how)["data"])

    def paper(self) -> bytes:
        """The page as it would be printed, as PDF."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])

    @contextmanager
    def beforehand(self, script: str) -> Iterator[None]:
        """A script that runs in each new page before the page's own."""
        given = self._call("Page.addScriptToEvaluateOnNewDocument", source=script)
        try:
            yield
        finally:
            self._call("Page.removeScriptToEvaluateOnNewDocument", **given)

    def without_policy(self, off: bool) -> None:
        """Whether pages opened from now on may run what their own policy forbids, such as scripts of tests."""
        self._call("Page.setBypassCSP", enabled=off)

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
