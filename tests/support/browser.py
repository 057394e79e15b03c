"""Chromium without a window, driven over the DevTools protocol through a pipe: no driver, no port, no package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_ANSWER_S = 60.0


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """Yield a browser with an empty profile of its own.

    Raises:
        AssertionError: Chromium is not installed.
    """
    program = shutil.which("chromium")
    assert program, "chromium is not installed; run scripts/system-packages.sh"
    there_read, there_write = os.pipe()
    here_read, here_write = os.pipe()

    def connect() -> None:
        # Chromium reads its commands from descriptor 3 and answers on 4.
        commands, answers = os.dup(there_read), os.dup(here_write)
        os.dup2(commands, 3)
        os.dup2(answers, 4)

    command = [program, *_FLAGS, f"--user-data-dir={profile}"]
    with profile.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=connect, pass_fds=(3, 4))
    os.close(there_read)
    os.close(here_write)
    try:
        yield Chromium(there_write, here_read)
    finally:
        process.kill()
        process.wait()
        os.close(there_write)
        os.close(here_read)


class Chromium:
    """One browser: commands go out on one descriptor, answers and events come in on the other."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer, self._number = b"", 0
        self._pages: dict[str, Page] = {}

    def page(self, width: int = 1200, height: int = 900, scheme: str = "light") -> Page:
        """Return an empty page, its console and its requests watched."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.send("Emulation.setDeviceMetricsOverride", size)
        page.send("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        return page

    def send(self, method: str, params: Mapping[str, Any] | None = None, session: str | None = None) -> Any:
        """Return what a command answers; events that come before it go to their pages."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": dict(params or {})}
        content = json.dumps({**message, **({"sessionId": session} if session else {})}).encode() + b"\0"
        while content:
            content = content[os.write(self._commands, content) :]
        while (answer := self._next()).get("id") != self._number:
            if page := self._pages.get(answer.get("sessionId", "")):
                page.take(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], _ANSWER_S)
            chunk = os.read(self._answers, 1 << 16) if ready else b""
            assert chunk, "chromium says nothing more"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded


@dataclass
class Page:
    """One page.

    Attributes:
        complaints: errors and warnings of its console, exceptions that nobody caught, and what the browser logged.
        requests: the addresses of everything that it asked for.
    """

    browser: Chromium
    session: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """Return what a command for this page answers."""
        return self.browser.send(method, params, self.session)

    def take(self, event: Mapping[str, Any]) -> None:
        """Note an event."""
        name, params = event.get("method"), event.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif name == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        elif name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["entry"]))

    def open(self, url: str) -> None:
        """Go to an address, and wait for what stands there."""
        self.send("Page.navigate", {"url": url})
        self.until(f"location.href === {url!r} && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Return the value of an expression, awaited if it is a promise."""
        params = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = self.send("Runtime.evaluate", params)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"never true: {script}\n{self.run('document.body.innerText')}"
            time.sleep(0.05)

    def press(self, key: str, code: int) -> None:
        """Press and release a key by its name and its Windows virtual-key code."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", {"type": "keyDown", **named, **text})
        self.send("Input.dispatchKeyEvent", {"type": "keyUp", **named})

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.send("Input.insertText", {"text": text})

    def screenshot(self, path: Path) -> None:
        """Write the whole page as PNG."""
        data = self.send("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})["data"]
        path.write_bytes(base64.b64decode(data))
