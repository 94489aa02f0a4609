"""Requests that an external authorizer is asked about: what it sees of their bodies is read ahead, and read again after."""

from __future__ import annotations

import io
from typing import Any

from meshlib.lowlevel import Serving
from meshlib_integrations._asgi import Message, Receive, Scope


async def asked(serving: Serving, scope: Scope, receive: Receive) -> Receive:
    """Ask about an ASGI request; its `receive` from now on, with the whole body."""
    ahead: list[Message] = []
    body = bytearray()
    complete = scope["type"] == "websocket"  # a handshake has none
    while serving.pending is not None:
        wanted = serving.wanted_body
        while wanted and not complete and len(body) <= wanted:
            message = await receive()
            ahead.append(message)
            if message["type"] != "http.request":  # the client has gone
                break
            body += message.get("body", b"")
            complete = not message.get("more_body", False)
        await serving.acheck(bytes(body), complete=complete or not wanted)
    return _replaying(ahead, receive) if ahead else receive


def _replaying(ahead: list[Message], receive: Receive) -> Receive:
    async def received() -> Message:
        return ahead.pop(0) if ahead else await receive()

    return received


def ask(serving: Serving, environ: dict[str, Any]) -> None:
    """Ask about a WSGI request; ``wsgi.input`` still has the whole body after that."""
    body, complete = b"", False
    while serving.pending is not None:
        wanted = serving.wanted_body
        if wanted and not complete and len(body) <= wanted:
            body += _read(environ, wanted + 1 - len(body))
            complete = len(body) <= wanted
        serving.check(body, complete=complete or not wanted)
    if body:
        environ["wsgi.input"] = io.BufferedReader(_Rest(body, environ))


def _read(environ: dict[str, Any], size: int) -> bytes:
    length = _length(environ)
    if length is None:
        if not environ.get("wsgi.input_terminated"):
            return b""  # PEP 3333: without a length there is nothing that may be read
        length = size
    chunks: list[bytes] = []
    left = min(size, length)
    while left and (chunk := environ["wsgi.input"].read(left)):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _length(environ: dict[str, Any]) -> int | None:
    text = environ.get("CONTENT_LENGTH") or ""
    return int(text) if text.isdigit() else None


class _Rest(io.RawIOBase):
    """The beginning that was read, and what is still in the server's stream; never more than the body's length."""

    def __init__(self, beginning: bytes, environ: dict[str, Any]) -> None:
        self._beginning = beginning
        self._stream = environ["wsgi.input"]
        length = _length(environ)
        self._left = None if length is None else length - len(beginning)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        if self._beginning:
            data, self._beginning = self._beginning[:size], self._beginning[size:]
        else:
            data = self._stream.read(size if self._left is None else min(size, self._left))
            if self._left is not None:
                self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)
