"""A headless Chromium, driven through its own pipe: nothing else is needed."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0
"""Seconds for an answer, on a machine that is busy."""


def found() -> str | None:
    """A Chromium on the PATH."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page of a browser: commands with their answers, and the events that came on the way."""

    def __init__(self, into: int, out_of: int) -> None:
        self._into, self._out_of = into, out_of
        self._rest, self._number, self._session = b"", 0, {}
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            came = self._next()
            if came.get("id") == self._number:
                assert "error" not in came, (method, came["error"])
                return dict(came["result"])

    def wait_for(self, event: str) -> None:
        """Waits until an event has come."""
        while not any(each["method"] == event for each in self.events):
            self._next()

    def open(self, path: Path, width: int, scheme: str = "light") -> None:
        """Shows a file in a window of so many pixels."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def value_of(self, script: str) -> Any:
        """What an expression comes to in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """Errors and warnings on the console, and exceptions."""
        said = [
            each["params"] for each in self.events if each["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]
        called = [each["params"] for each in self.events if each["method"] == "Runtime.consoleAPICalled"]
        return [json.dumps(each) for each in (*said, *called)]

    def asked_for(self) -> list[str]:
        """The addresses of all that the page requested."""
        requests = [
            each["params"]["request"]["url"] for each in self.events if each["method"] == "Network.requestWillBeSent"
        ]
        return [url[:80] for url in requests]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out_of], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            more = os.read(self._out_of, 1 << 16)
            assert more, "the browser has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        came = json.loads(message)
        if "method" in came:
            self.events.append(came)
        return dict(came)


_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""A browser reads commands from 3 and answers on 4."""


@contextmanager
def opened(chromium: str, profile: Path) -> Iterator[Tab]:
    """A browser with a fresh profile, which is ended with the block."""
    (its_input, into), (out_of, its_output) = os.pipe(), os.pipe()
    given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (its_input, its_output)]  # out of the way of 3 and 4
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _START,
            *map(str, given),
            chromium,
            *options,
            f"--user-data-dir={profile}",
            "about:blank",
        ],
        pass_fds=given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (its_input, its_output, *given):
        os.close(end)
    try:
        yield Tab(into, out_of)
    finally:
        process.kill()
        process.wait()
        os.close(into)
        os.close(out_of)
