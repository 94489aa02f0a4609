"""Real HTTP servers and proxies in processes of their own, and a scripted peer for what no real server would do."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support import tools

ROOT = Path(__file__).resolve().parents[2]
READY = 60.0  # seconds; generous, for a busy machine


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: Callable[[int], Sequence[str]], log: Path) -> Iterator[int]:
    """A server process, from when its port answers; gives the port.  Started anew if somebody else took the port."""
    for _ in range(3):
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(port),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        try:
            if _answers(port, process):
                yield port
                return
        finally:
            _stop(process)
    raise AssertionError(f"{command(0)[0]} did not start:\n{log.read_text(errors='replace')}")


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + READY
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def uvicorn(port: int, *, http: str = "httptools", app: str = "tests.support.webapp:asgi") -> list[str]:
    return [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--http", http, "--log-level", "warning"]


def hypercorn(port: int) -> list[str]:
    return [sys.executable, "-m", "hypercorn", "tests.support.webapp:asgi", "--bind", f"127.0.0.1:{port}"]


def granian(port: int) -> list[str]:
    return [sys.executable, "-m", "granian", "tests.support.webapp:asgi", "--interface", "asgi", "--host", "127.0.0.1",
            "--port", str(port), "--no-access-log"]  # fmt: skip


def gunicorn(port: int, *, worker: str = "gthread") -> list[str]:
    threads = "4" if worker == "gthread" else "1"
    options = ["--worker-class", worker, "--threads", threads, "--keep-alive", "30", "--no-control-socket"]
    return [sys.executable, "-m", "gunicorn", "tests.support.webapp:wsgi", "--bind", f"127.0.0.1:{port}", *options]


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 64m; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host;
    }}
  }}
}}
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: test
          route_config:
            virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""


def nginx(port: int, *, upstream: int, folder: Path) -> list[str]:
    """In front of the server at port `upstream`."""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    return [str(tools.nginx()), "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]


def envoy(port: int, *, upstream: int, folder: Path) -> list[str]:
    """In front of the server at port `upstream`."""
    config = folder / "envoy.yaml"
    config.write_text(ENVOY.format(port=port, upstream=upstream))
    return [str(tools.envoy()), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]


class ScriptedPeer:
    """Accepts connections on loopback and lets `script` talk on each, in a thread: for peers that misbehave.

    A script gets the connected socket and the connection's number, counted from 0; the socket is closed when it returns.
    """

    def __init__(self, script: Callable[[socket.socket, int], object]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> ScriptedPeer:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connected in self._open:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connected)
            thread = threading.Thread(target=self._talk, args=(connected, self.accepted), daemon=True)
            self.accepted += 1
            self._threads.append(thread)
            thread.start()

    def _talk(self, connected: socket.socket, number: int) -> None:
        with connected, contextlib.suppress(OSError):
            self._script(connected, number)


def read_head(connected: socket.socket) -> bytes:
    """A request's head; what came after it in the same segments is lost.  Empty at the end of the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connected.recv(65536)
        if not data:
            return b""
        received += data
    return received


def until_closed(connected: socket.socket) -> int:
    """Read to the end of the connection; how many bytes came."""
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while data := connected.recv(65536):
            count += len(data)
    return count


def reset(connected: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connected.close()
