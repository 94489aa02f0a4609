"""Every kind of server in front of `tests.support.meshapps`, as a process that can be watched and told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.support.servers import READY, ROOT, free_port

APP = "tests.support.meshapps"
WERKZEUG = (
    f"from werkzeug.serving import run_simple; from {APP} import wsgi; run_simple('127.0.0.1', {{}}, wsgi, threaded=True)"
)


def _module(*arguments: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, "-m", *(argument.replace("PORT", str(port)) for argument in arguments)]


def gunicorn(app: str, worker: str, *more: str) -> Callable[[int], list[str]]:
    return _module("gunicorn", f"{APP}:{app}", "-k", worker, "-b", "127.0.0.1:PORT", "--no-control-socket", *more)


HOOKS = ("-c", "python:meshlib_integrations.gunicorn")

ASGI: Mapping[str, Callable[[int], list[str]]] = {
    "uvicorn h11": _module("uvicorn", f"{APP}:asgi", "--http", "h11", "--port", "PORT", "--ws", "websockets-sansio"),
    "uvicorn httptools": _module("uvicorn", f"{APP}:asgi", "--http", "httptools", "--port", "PORT", "--ws", "wsproto"),
    "hypercorn": _module("hypercorn", f"{APP}:asgi", "--bind", "127.0.0.1:PORT"),
    "granian": _module("granian", f"{APP}:asgi", "--interface", "asgi", "--host", "127.0.0.1", "--port", "PORT"),
    "gunicorn uvicorn worker": gunicorn("asgi", "uvicorn.workers.UvicornWorker"),
    "gunicorn asgi worker": gunicorn("asgi", "asgi"),
}
WSGI: Mapping[str, Callable[[int], list[str]]] = {
    "gunicorn sync": gunicorn("wsgi", "sync", *HOOKS),
    "gunicorn gthread": gunicorn("wsgi", "gthread", *HOOKS, "--threads", "16"),
    "werkzeug": lambda port: [sys.executable, "-c", WERKZEUG.format(port)],
}
SERVERS = {**ASGI, **WSGI}


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes]
    events_file: Path
    log: Path
    name: str = ""

    def events(self) -> list[tuple[int, str]]:
        """(process id, what happened), in order."""
        if not self.events_file.exists():
            return []
        lines = (line.split(" ", 1) for line in self.events_file.read_text().splitlines())
        return [(int(pid), event) for pid, event in lines]

    def wait_for(self, event: str, count: int = 1) -> None:
        deadline = time.monotonic() + READY
        while sum(what == event for _, what in self.events()) < count:
            assert time.monotonic() < deadline, f"{event!r} did not happen: {self.events()}\n{self.log.read_text()}"
            time.sleep(0.02)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def running(command: Callable[[int], list[str]], folder: Path, *, drain_seconds: float = 0.1) -> Iterator[Server]:
    """The server, from when its port answers.  Started anew if the port was taken meanwhile."""
    for attempt in range(3):
        port = free_port()
        events = folder / f"events-{attempt}"
        log = folder / f"log-{attempt}"
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MESHLIB_PORT": str(port),
            "MESHLIB_DRAIN_SECONDS": str(drain_seconds),
            "EVENTS_FILE": str(events),
        }
        with log.open("wb") as output, _process(command(port), environ, output) as process:
            if _answers(port, process):
                yield Server(port, process, events, log)
                return
    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')}")


@contextlib.contextmanager
def _process(command: list[str], environ: Mapping[str, str], output: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        stdout=output,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env=dict(environ),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: its workers go with it
            process.wait()


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + READY
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False


def exchange(port: int, request: bytes) -> bytes:
    """All that the server says to these bytes, to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), 30) as connected:
        connected.settimeout(30)
        received = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connected.sendall(request)
        with contextlib.suppress(ConnectionResetError):
            while data := connected.recv(65536):
                received += data
    return received
