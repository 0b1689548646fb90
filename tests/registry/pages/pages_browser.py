"""Chromium without a window, driven through the pipe of its DevTools protocol."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_SECONDS = 20
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r")}


def require_chromium() -> str:
    """The path of the browser; the test is skipped where there is none."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("Chromium is not installed here")
    return found


class Browser:
    """One page of a running browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._buffer = b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.log: list[str] = []
        """What the browser had to say about the page: scripts and styles that it refused, what it could not load."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol; its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=address)
        self.wait(f"document.readyState == 'complete' && location.href.startsWith({json.dumps(address)})")

    def wait(self, condition: str) -> None:
        """Until the page is as it is to be."""
        deadline = time.monotonic() + _SECONDS
        while not self.tell(condition):
            assert time.monotonic() < deadline, condition
            time.sleep(0.02)

    def tell(self, expression: str) -> Any:
        """What an expression is in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result)
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """A key of the keyboard."""
        code, text = _KEYS[key]
        for kind in ("keyDown", "keyUp"):
            written = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **written)

    def type(self, text: str) -> None:
        """What is typed where the focus is."""
        self.call("Input.insertText", text=text)

    def look(self, width: int, height: int, scheme: str) -> None:
        """How large the window is, and which colours are wanted."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self.call("Browser.close")
        self._commands.close()
        self._answers.close()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], _SECONDS)
            assert ready, "the browser does not answer"
            data = os.read(self._answers.fileno(), 1 << 16)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if message.get("method") == "Log.entryAdded":
            self.log.append(message["params"]["entry"]["text"])
        return message


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser, until the block is left."""
    program = require_chromium()
    command_reader, command_writer = os.pipe()
    answer_reader, answer_writer = os.pipe()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
    # The browser wants the pipes under these numbers.
    shell = f'exec "$@" 3<&{command_reader} 4>&{answer_writer}'
    with subprocess.Popen(
        ["bash", "-c", shell, "bash", program, *options, "--remote-debugging-pipe"],
        pass_fds=(command_reader, answer_writer),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(command_reader)
        os.close(answer_writer)
        browser = None
        try:
            browser = Browser(command_writer, answer_reader)
            yield browser
        finally:
            if browser is not None:
                browser.close()
            try:
                process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
