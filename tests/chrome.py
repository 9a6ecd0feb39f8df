"""Chromium without a window, driven over its DevTools pipe: opens pages, presses keys, draws, and logs requests."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
ABSENT = "needs Chromium: apt install chromium"
# SwiftShader draws WebGL 2 on the CPU.
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu-sandbox", "--disable-dev-shm-usage"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--mute-audio"),
)
SECONDS = 60.0


class Chrome:
    """One browser with one page.

    Args:
        width: of the window, CSS pixels.
        dark: whether the page is asked for dark colours.
        webgl: whether it can draw volumes.
    """

    def __init__(self, width: int = 1280, dark: bool = False, webgl: bool = True) -> None:
        self.requests: list[str] = []
        self._width, self._dark, self._webgl = width, dark, webgl
        self._number, self._rest, self._session = 0, b"", ""

    def __enter__(self) -> Self:
        assert PROGRAM
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        switches = SWITCHES if self._webgl else (*SWITCHES, "--disable-3d-apis")

        program = [PROGRAM, *switches, f"--user-data-dir={self._home.name}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}', *program],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        target = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=self._width, height=900, deviceScaleFactor=1, mobile=False
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if self._dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._home.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; requests that are told on the way are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while True:
            answer = self._message(end)
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, file: Path, ready: str = "document.readyState === 'complete'") -> None:
        """Open a file and wait until an expression is true."""
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.wait(f"location.protocol === 'file:' && ({ready})")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.ask(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and let go of a key, by its name in `KeyboardEvent.key`."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, file: Path) -> None:
        """Write a PNG of the whole page."""
        height = self.call("Page.getLayoutMetrics")["cssContentSize"]["height"]
        file.write_bytes(self.shot({"x": 0, "y": 0, "width": self._width, "height": height, "scale": 1}))

    def shot(self, clip: dict[str, float]) -> bytes:
        """A part of the page as PNG; `clip` has x, y, width, height, scale."""
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def print(self, file: Path) -> None:
        """Write what a printer would get as PDF."""
        made = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        file.write_bytes(base64.b64decode(made["data"]))

    def _message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = end - time.monotonic()
            assert left > 0, "Chromium does not answer"
            if select.select([self._from], [], [], min(left, 1.0))[0]:
                block = os.read(self._from, 1 << 20)
                assert block, "Chromium has ended"
                self._rest += block
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
