"""A real `meshctl serve` in a process of its own, and the command line against it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import httpx

DEADLINE = 60.0  # seconds; generous, since the machine may be busy


class Control:
    """The control service over an embedded store in `directory`, stopped at the end of the block.

    `secure`: with certificates; otherwise it is started with ``--insecure-dev``.
    """

    def __init__(self, directory: Path, *arguments: str, secure: bool = False) -> None:
        self.directory = directory
        self.arguments = arguments
        self.secure = secure
        self.xds = ""
        self.ca = ""
        self.admin = ""
        self._log = directory / "control.log"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Control:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        command = [sys.executable, "-m", "meshlib_control", "serve", "--data", str(self.directory)]
        command += ["--listen", self.xds or "127.0.0.1:0", "--admin", self.admin.removeprefix("http://") or "127.0.0.1:0"]
        command += ["--ca-listen", self.ca or "127.0.0.1:0"] if self.secure else ["--insecure-dev"]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, *self.arguments], stdout=subprocess.PIPE, stderr=log, text=True, env=_environment()
            )
        assert self._process.stdout is not None
        words = _line(self._process.stdout, self.log).split()
        addresses = dict(word.split("=", 1) for word in words)
        self.xds, self.admin, self.ca = addresses["xds"], addresses["admin"], addresses.get("ca", "")

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(DEADLINE)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def meshctl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command against this service."""
        return meshctl(*arguments, text=text, env=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """What meshctl has to know."""
        return {"MESHCTL_SERVER": self.admin, "MESHCTL_TOKEN_FILE": str(self.directory / "admin-token")}

    def http(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {(self.directory / 'admin-token').read_text().strip()}"} if self.secure else {}
        return httpx.Client(base_url=self.admin, timeout=DEADLINE, trust_env=False, headers=headers)

    def get(self, path: str, **parameters: str) -> Any:
        """The JSON that the API answers; much quicker than a meshctl process, so the way to wait for something."""
        with self.http() as client:
            response = client.get(path, params=parameters)
        response.raise_for_status()
        return response.json()

    def apply(self, text: str, **parameters: str) -> int:
        """Apply YAML through the API; the new revision."""
        with self.http() as client:
            response = client.post("/v1/config", content=text, params=parameters, headers={"content-type": "application/yaml"})
        assert response.is_success, response.text
        return int(response.json()["revision"])

    def explain(self, url: str) -> Any:
        with self.http() as client:
            return client.post("/v1/explain", json={"url": url}).json()


def meshctl(*arguments: str, text: str | None = None, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshlib_control", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**_environment(), **(env or {})},
        check=False,
    )


def eventually(condition: object, *, what: str = "") -> None:
    """Wait until `condition()` holds."""
    assert callable(condition)
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE} s: {what}"
        time.sleep(0.05)


def as_json(result: subprocess.CompletedProcess[str]) -> object:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESHCTL_", "MESHLIB_"))}
    return {**kept, "NO_COLOR": "1"}


def _line(stream: IO[str], log: str) -> str:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        assert selector.select(DEADLINE), f"the control service said nothing in {DEADLINE} s\n{log}"
    line = stream.readline()
    assert line, f"the control service ended\n{log}"
    return line
