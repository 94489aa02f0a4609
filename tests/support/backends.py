"""HTTP/1.1 servers that say who they are, one thread each."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Backend(ThreadingHTTPServer):
    """Answers everything with its name; `requests` are the heads that it saw."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.name = name
        self.failures = 0  # how many of the next requests are answered with 503
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []  # one for each of them
        self.headers: tuple[tuple[str, str], ...] = ()  # more headers of every answer
        self.lock = threading.Lock()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment: two would wait for each other's delayed acknowledgement
    server: Backend

    def do_GET(self) -> None:
        sent = self._body()
        with self.server.lock:
            self.server.requests.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))
            self.server.bodies.append(sent)
            failing = self.server.failures > 0
            self.server.failures -= failing
        body = self.server.name.encode()
        self.send_response(503 if failing else 200)
        self.send_header("content-length", str(len(body)))
        for name, value in self.server.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET  # noqa: N815  # as http.server looks for them

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


@contextmanager
def running(names: Sequence[str]) -> Iterator[dict[str, Backend]]:
    servers = {name: Backend(name) for name in names}
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers.values()]
    for thread in threads:
        thread.start()
    try:
        yield servers
    finally:
        for server in servers.values():
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
