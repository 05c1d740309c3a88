"""A real Chromium without a window, driven by its own protocol (CDP).

The protocol needs a WebSocket and nothing else, so no browser is downloaded and no
driver has to fit the one that the machine has: Debian's `chromium`, or Chrome.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Generator

    from websockets.sync.connection import Connection

CHROMIUM = next(
    filter(
        None,
        map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")),
    ),
    None,
)
TIME_LIMIT = 60.0
_PORT_FILE = "DevToolsActivePort"
_SPECIAL = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    "ArrowDown": (40, ""),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
    "ArrowUp": (38, ""),
    "End": (35, ""),
    "Home": (36, ""),
}


class Page:
    """One page of the browser."""

    def __init__(self, connection: Connection, session: str) -> None:
        self._connection = connection
        self._session = session
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        """What the browser has logged: errors, and what its policies forbid."""
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.send(f"{domain}.enable")
        self.requests: list[str] = []

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """Have the browser do something, and return what it says."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._connection.send(json.dumps(message))
        while True:
            told = json.loads(self._connection.recv(timeout=TIME_LIMIT))
            if told.get("id") == number:
                assert "error" not in told, told["error"]
                result: dict[str, Any] = told["result"]
                return result
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        method, said = told.get("method", ""), told.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["exceptionDetails"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.complaints.append(
                f"{said['entry'].get('url')} {said['entry']['text']}"
            )
        elif method == "Runtime.consoleAPICalled" and said["type"] == "error":
            self.complaints.append(json.dumps(said["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])

    def open(self, address: str) -> None:
        """Go to *address*, in a document of its own."""
        self.send("Page.navigate", url="about:blank")
        self.until("location.href == 'about:blank'")
        self.complaints.clear()
        self.requests.clear()
        self.send("Page.navigate", url=address)
        self.until("document.readyState == 'complete'")

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page says
        """Return the value of a JavaScript expression."""
        told = self.send(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait for an expression to become true.

        Raises:
            AssertionError: It has not, in time.
        """
        deadline = time.monotonic() + TIME_LIMIT
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, (expression, self.text("body"))
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """Return the text of an element, as it is seen."""
        text: str = self.evaluate(
            f"document.querySelector({json.dumps(selector)}).innerText"
        )
        return text

    def texts(self, selector: str) -> list[str]:
        """Return the names that rows have for who does not see them."""
        found: list[str] = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            ".map((each) => each.getAttribute('aria-label') ?? each.innerText)"
        )
        return found

    def until_text(self, selector: str, text: str) -> None:
        """Wait for a text in an element."""
        self.until(
            f"document.querySelector({json.dumps(selector)})?.innerText"
            f".includes({json.dumps(text)})"
        )

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            code, text = _SPECIAL.get(key) or (ord(key.upper()), key)
            about = {"key": key, "windowsVirtualKeyCode": code}
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
            self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def look(self, path: Path, *, width: int = 1280, height: int = 720) -> None:
        """Take a picture of what can be seen."""
        self.size(width, height)
        told = self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(told["data"]))

    def size(self, width: int, height: int) -> None:
        """Have the window this size."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        # Two frames: what measures itself draws in the one after.
        self.evaluate(
            "new Promise((done) => requestAnimationFrame(() => "
            "requestAnimationFrame(() => done(true))))"
        )

    def scheme(self, name: str) -> None:
        """Have the page in `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def accessible(self) -> list[tuple[str, str]]:
        """Return role and name of everything a screen reader is told of."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]


@contextmanager
def browser() -> Generator[Page]:
    """Start a browser and yield a page of it."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",  # there is none for root, and only our page is shown
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--no-proxy-server",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                f"--user-data-dir={home}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home},
        )
        try:
            port, path = _port_of(Path(home), process)
            address = f"ws://127.0.0.1:{port}{path}"
            with connect(address, max_size=None, proxy=None) as connection:
                page = Page(connection, _attach(connection))
                yield page
        finally:
            process.kill()
            process.wait(TIME_LIMIT)


def _port_of(home: Path, process: subprocess.Popen[bytes]) -> tuple[int, str]:
    deadline = time.monotonic() + TIME_LIMIT
    while time.monotonic() < deadline:
        assert process.poll() is None, "the browser has ended"
        try:
            port, path = (home / _PORT_FILE).read_text().splitlines()
        except (OSError, ValueError):
            time.sleep(0.05)
        else:
            return int(port), path
    message = "the browser does not say where it listens"
    raise AssertionError(message)


def _attach(connection: Connection) -> str:
    """Open a page, and return what its messages are to be marked with."""

    def send(number: int, method: str, **parameters: object) -> dict[str, Any]:
        message = {"id": number, "method": method, "params": parameters}
        connection.send(json.dumps(message))
        while (told := json.loads(connection.recv(timeout=TIME_LIMIT))).get(
            "id"
        ) != number:
            pass
        result: dict[str, Any] = told["result"]
        return result

    target = send(-1, "Target.createTarget", url="about:blank")["targetId"]
    session: str = send(-2, "Target.attachToTarget", targetId=target, flatten=True)[
        "sessionId"
    ]
    return session
