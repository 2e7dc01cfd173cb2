"""Chromium without a window, driven over its debugging pipe: opens pages, looks at them, notes what they ask for."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

PATIENCE_S = 180
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One tab. `asked` has the address of everything that was asked for since the page was opened, `said` what stood
    on its console: errors, and what the policy forbade."""

    def __init__(self, program: str, folder: Path) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._fds = (ours_in, ours_out)
        arguments = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments += ["--remote-debugging-pipe", "--no-first-run", f"--user-data-dir={folder}", "about:blank"]
        # The browser reads from 3 and writes to 4.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", *arguments],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._left = b""
        self._number = 0
        self._session = ""
        self.asked: list[str] = []
        self.said: list[str] = []
        self._loads = 0
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def open(self, address: str) -> None:
        """Returns when the page has loaded."""
        # From one place to another inside of a page nothing would be loaded.
        for target in ("about:blank", address):
            self.asked, self.said = [], []
            self._loads = 0
            self._send("Page.navigate", url=target)
            while not self._loads:
                self._note(self._read())

    def evaluate(self, script: str) -> Any:
        """The value of an expression, which may be a promise."""
        done = self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def key(self, key: str, text: str = "") -> None:
        codes = {"Escape": 27, "Tab": 9, "Enter": 13, "ArrowDown": 40, "ArrowUp": 38}
        known = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self._send("Input.dispatchKeyEvent", type="keyDown", **known, **({"text": text} if text else {}))
        self._send("Input.dispatchKeyEvent", type="keyUp", **known)

    def look(self, width: int = 1200, height: int = 900, *, dark: bool = False, script: bool = True) -> None:
        """How wide the window is, whether dark is preferred, whether scripts run."""
        self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._send("Emulation.setEmulatedMedia", features=features)
        self._send("Emulation.setScriptExecutionDisabled", value=not script)

    def picture(self, file: Path) -> None:
        found = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def tree(self) -> list[dict[str, Any]]:
        """What a screen reader is told."""
        nodes: list[dict[str, Any]] = self._send("Accessibility.getFullAXTree")["nodes"]
        return [node for node in nodes if not node.get("ignored")]

    def close(self) -> None:
        try:
            self._session = ""
            self._send("Browser.close")
        except (AssertionError, BrokenPipeError, EOFError):
            pass
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for one in self._fds:
            os.close(one)

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._fds[1], json.dumps(message).encode() + b"\0")
        while (found := self._read()).get("id") != self._number:
            self._note(found)
        assert "error" not in found, (method, found["error"])
        answer: dict[str, Any] = found["result"]
        return answer

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
            case "Page.loadEventFired":
                self._loads += 1
            case "Log.entryAdded":
                self.said.append(params["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.said.append(json.dumps(params["exceptionDetails"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            assert select.select([self._fds[0]], [], [], PATIENCE_S)[0], "the browser says nothing any more"
            piece = os.read(self._fds[0], 1 << 16)
            if not piece:
                raise EOFError("the browser has gone")
            self._left += piece
        line, _, self._left = self._left.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found
