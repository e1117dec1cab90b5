"""Headless Chromium, driven over its DevTools protocol: enough to open a page and to look at it.

A WebSocket suffices for that, so there is no driver program whose version has to fit the browser's.
"""

import base64
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import websocket

from ragassets_tests.services import program

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1800,1100",
)

ANSWER_SECONDS = 60

Seen = TypeVar("Seen")


class Page:
    """One tab."""

    def __init__(self, address: str) -> None:
        """Connect to the tab's debugger."""
        self._socket = websocket.create_connection(
            address, suppress_origin=True, timeout=ANSWER_SECONDS
        )
        self._n_sent = 0
        self._send("Page.enable")

    def open(self, url: str) -> None:
        """Go to an address; returns before the page has drawn itself."""
        self._send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def text(self) -> str:
        """What can be read on the page now."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def wait_for_text(self, *passages: str, seconds: float = 60) -> str:
        """The page's text as soon as all passages are on it.

        Raises:
            AssertionError: They did not come in time.
        """
        return wait_until(
            self.text,
            lambda text: all(passage in text for passage in passages),
            seconds=seconds,
            what=f"{passages} on {self.evaluate('location.href')}",
        )

    def click_text(self, text: str) -> None:
        """Click on the innermost element whose whole text this is."""
        found = self.evaluate(
            "(() => { const all = [...document.querySelectorAll('*')].filter("
            f"e => e.innerText && e.innerText.trim() === {json.dumps(text)});"
            " const hit = all[all.length - 1]; if (!hit) return null; hit.click();"
            " const box = hit.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        assert found is not None, f"nothing on the page reads {text!r}"

    def click_at(self, x: float, y: float) -> None:
        """Press and release the left button."""
        for kind in ("mousePressed", "mouseReleased"):
            self._send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> Path:
        """Write what the window shows as a PNG file."""
        answer = self._send("Page.captureScreenshot", format="png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def close(self) -> None:
        """Let go of the debugger."""
        self._socket.close()

    def _send(self, method: str, **parameters: object) -> dict[str, Any]:
        self._n_sent += 1
        message = {"id": self._n_sent, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._n_sent:
                assert "error" not in answer, answer
                return answer["result"]


@contextmanager
def chromium(folder: Path) -> Generator[Page]:
    """A page in a browser of its own, with its profile in `folder`; skips where there is none."""
    executable = program("chromium", package="chromium")
    log = folder / "chromium.log"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        page = Page(_first_tab(folder / "profile" / "DevToolsActivePort"))
        try:
            yield page
        finally:
            page.close()
    finally:
        process.terminate()
        process.wait(timeout=30)


def _first_tab(port_file: Path) -> str:
    lines = wait_until(
        lambda: port_file.read_text().splitlines() if port_file.exists() else [],
        lambda lines: len(lines) > 1,
        seconds=60,
        what="the browser's debugger",
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=30) as answer:
        tabs = json.load(answer)
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")


def wait_until(
    look: Callable[[], Seen], is_there: Callable[[Seen], bool], *, seconds: float, what: str
) -> Seen:
    """What `look` gives as soon as it `is_there`."""
    end = time.monotonic() + seconds
    seen = look()
    while not is_there(seen):
        assert time.monotonic() < end, f"waited {seconds} s for {what}; last seen: {seen!r:.2000}"
        time.sleep(0.3)
        seen = look()
    return seen
