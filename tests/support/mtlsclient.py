"""A client that looks at what came back, not at whether a handshake returned: in TLS 1.3 a client believes that it is connected
before the server has looked at its certificate."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.certificates import Minted

TIMEOUT = 30.0


class Rejected(Exception):
    """The connection ended before a byte of an answer."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes


def context(leaf: Minted | None, roots: list[Minted]) -> ssl.SSLContext:
    """Shows `leaf` (None: nothing), trusts `roots`; names do not matter here."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata="".join(root.pem.decode() for root in roots))
    if leaf is not None:
        with tempfile.TemporaryDirectory() as folder:
            made.load_cert_chain(*leaf.write(Path(folder), "leaf"))
    return made


class Client:
    """One kept-alive connection; TLS unless `tls` is None."""

    def __init__(self, port: int, tls: ssl.SSLContext | None, *, server_name: str = "localhost") -> None:
        self.connected = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        # Else the first request waits for the server's delayed ACK of the end of the handshake: 40 ms a connection.
        self.connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if tls is not None:
                self.connected = tls.wrap_socket(self.connected, server_hostname=server_name)
        except OSError as error:
            self.connected.close()
            raise Rejected(str(error)) from error

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.connected.close()

    def ask(self, target: str = "/who", *, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Read whole.  Raises Rejected."""
        method = "POST" if body else "GET"
        lines = [f"{method} {target} HTTP/1.1", "host: tests", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        if body:
            lines.append(f"content-length: {len(body)}")
        try:
            self.connected.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            response = http.client.HTTPResponse(self.connected, method=method)
            response.begin()
        except (OSError, http.client.RemoteDisconnected) as error:
            raise Rejected(str(error)) from error
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def who(self, target: str = "/who", *, body: bytes = b"", headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What the application sees."""
        answer = self.ask(target, body=body, headers=headers)
        assert answer.status == 200, answer.content
        seen: dict[str, Any] = json.loads(answer.content)
        return seen
