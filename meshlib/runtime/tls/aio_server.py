"""TLS for protocols of asyncio that answer in pieces: servers write a head, and right after it a body."""

from __future__ import annotations

import asyncio

from meshlib.runtime.tls.aio import Done, TlsTransport
from meshlib.runtime.tls.side import Side

_AT_ONCE = 64 * 1024
"""Bytes that are no longer held back: so much fills packets anyhow, and the application is to hear of a slow reader."""


class ServerTlsTransport(TlsTransport):
    """Holds what is written back to the end of the loop's turn: one record and one system call instead of two or more."""

    __slots__ = ("__weakref__", "_held", "_loop", "_size")

    def __init__(self, side: Side, app: asyncio.Protocol, done: Done, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(side, app, done)
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._held:
            self._loop.call_soon(self._let_go)
        self._held.append(data if isinstance(data, bytes) else bytes(data))
        self._size += len(data)
        if self._size >= _AT_ONCE:
            self._let_go()

    def close(self) -> None:
        self._let_go()
        super().close()

    def get_write_buffer_size(self) -> int:
        return self._size + super().get_write_buffer_size()

    def _let_go(self) -> None:
        held = self._held
        if held:
            self._held, self._size = [], 0
            super().write(held[0] if len(held) == 1 else b"".join(held))
