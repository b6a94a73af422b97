"""A headless Chromium that is driven over a pipe by its DevTools protocol: one page at a time, no port, no package.

https://chromedevtools.github.io/devtools-protocol: messages are JSON, each ended by a NUL, on descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "no Chromium on PATH: on Debian and Ubuntu it is the package `chromium` (docs/setup.md)"


def chromium() -> str | None:
    """The program, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name)) is not None), None)


class Browser:
    """One tab. `complaints` are errors and warnings of the console, and exceptions nobody caught."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest, self._number, self._session = b"", 0, ""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and wait for its answer; what is told meanwhile is noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            block = os.read(self._answers, 1 << 16)
            assert block, "Chromium has ended"
            self._rest += block
        text, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        self._note(found.get("method", ""), found.get("params", {}))
        return found

    def _note(self, method: str, said: dict[str, Any]) -> None:
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(said["exceptionDetails"]))
        if method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(said["entry"]["text"])
        if method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(said["args"]))

    def open(self, page: Path, *, width: int, dark: bool = False) -> None:
        """Show a file as a screen of so many CSS pixels does, and wait until it is loaded."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        self._events.clear()
        self.call("Page.navigate", url=page.absolute().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._next()

    def value(self, script: str) -> Any:
        """What an expression comes to in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A Chromium with a profile of its own in `folder`, ended afterwards."""
    program = chromium()
    assert program is not None, MISSING
    its_input, commands = os.pipe()
    answers, its_output = os.pipe()
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
    script = f'exec "$0" "$@" 3<&{its_input} 4>&{its_output}'
    line = ["bash", "-c", script, program, *options, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(line, pass_fds=(its_input, its_output), stdout=sys.stderr, stderr=subprocess.DEVNULL)
    for descriptor in (its_input, its_output):
        os.close(descriptor)
    try:
        yield Browser(commands, answers)
    finally:
        process.kill()
        process.wait()
        for descriptor in (commands, answers):
            os.close(descriptor)
