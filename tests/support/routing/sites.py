"""Who answers at all endpoints: one listening socket for every address of 127.0.0.0/8, which notes what came to which."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

NUMBER = "x-request-number"
"""By this header the two sides' requests are told apart."""

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-said: site\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request's head, as it came."""

    address: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]  # names in lower case

    @property
    def is_copy(self) -> bool:
        """Envoy and meshlib say so by the host."""
        return dict(self.headers).get("host", "").partition(":")[0].endswith("-shadow")


class Sites:
    """What arrived, by the number of the request."""

    def __init__(self) -> None:
        self.port = 0
        self._arrived: dict[str, list[Arrived]] = {}

    def forget(self) -> None:
        """What came until now: other requests may have the same numbers."""
        self._arrived.clear()

    def note(self, arrived: Arrived) -> None:
        self._arrived.setdefault(dict(arrived.headers).get(NUMBER, ""), []).append(arrived)

    def request(self, number: str) -> Arrived | None:
        """The request itself.  None: it did not get here."""
        return next((one for one in self._arrived.get(number, ()) if not one.is_copy), None)

    def copies(self, number: str) -> list[Arrived]:
        """Of mirrors, which may still be on their way when the request itself has been answered."""
        return [one for one in self._arrived.get(number, ()) if one.is_copy]


class _Site(asyncio.Protocol):
    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._address = str(transport.get_extra_info("sockname")[0])

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while b"\r\n\r\n" in self._rest:
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            self._answer(head.decode("latin-1"))

    def _answer(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
        self._sites.note(Arrived(self._address, method, target, headers))
        self._transport.write(ANSWER if method == "HEAD" else ANSWER + b"ok")


@contextmanager
def running() -> Iterator[Sites]:
    """On a thread of their own."""
    sites = Sites()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    connections: set[asyncio.BaseTransport] = set()

    def site() -> _Site:
        return _Tracked(sites, connections)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        for transport in list(connections):
            transport.close()
        await asyncio.sleep(0)

    server = asyncio.run_coroutine_threadsafe(loop.create_server(site, "0.0.0.0", 0), loop).result(10)
    sites.port = server.sockets[0].getsockname()[1]
    try:
        yield sites
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


class _Tracked(_Site):
    """A connection that is closed with its server."""

    def __init__(self, sites: Sites, connections: set[asyncio.BaseTransport]) -> None:
        super().__init__(sites)
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._transport)
