"""A process that calls as often as it is told to, and says how many of its calls were let pass.

``python -m tests.support.limited CONTROL RATE PATH...`` calls each path RATE times a second; a line a second tells how many
passed, by path.  It ends in good order when its input does.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from meshlib import Mesh, errors
from tests.support.servers import ROOT

WAIT = 60.0


class _Yes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def answering() -> Iterator[int]:
    """The port of a server that says yes to everything."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Yes)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def entry(port: int) -> str:
    """The service `shop`, at this port."""
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: shop, namespace: default}}
spec:
  hosts: [shop.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}}}]
---"""


class Caller:
    """Such a process.  `second` is what the next line says."""

    def __init__(self, control: str, rate: int, *paths: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.limited", control, str(rate), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def second(self) -> list[int]:
        """How many calls passed in the next second, by path."""
        return [int(word) for word in self._lines.get(timeout=WAIT).split()]

    def skip(self) -> None:
        """Leave out what has been said up to now."""
        while not self._lines.empty():
            self._lines.get()

    def close(self) -> list[int]:
        """End in good order; how many passed in all, by path."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT)
        self._reader.join(WAIT)
        assert self._process.stdout is not None
        self._process.stdout.close()
        last = ""
        while not self._lines.empty():
            last = self._lines.get()
        return [int(word) for word in last.split()]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)


def _await_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def main(control: str, rate: int, paths: list[str]) -> None:
    passed = dict.fromkeys(paths, 0)
    ended = threading.Event()
    threading.Thread(target=_await_end, args=(ended,), daemon=True).start()
    with Mesh(control=control, insecure_dev=True) as mesh:
        mesh.wait_ready(WAIT)
        told, begun, calls = dict(passed), time.monotonic(), 0
        until = begun + 1.0
        while not ended.is_set():
            for path in paths:
                try:
                    mesh.request("GET", f"http://shop{path}")
                    passed[path] += 1
                except errors.RateLimited:
                    pass
            calls += 1
            now = time.monotonic()
            if now >= until:
                print(*(passed[path] - told[path] for path in paths), flush=True)
                told, until = dict(passed), until + 1.0
            time.sleep(max(begun + calls / rate - now, 0.0))
    print(*passed.values(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
