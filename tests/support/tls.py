"""Both ends of TLS connections for tests: the mesh's own, and ones that check nothing and present whatever they are given."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from meshlib.model.identity import TrustBundles
from meshlib.runtime.identity.material import Material, PrivateKey
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.contexts import TlsContexts
from tests.support.certificates import Minted, TrustDomain

PING = b"ping"

T = TypeVar("T")


def material(minted: Minted, trust: TrustBundles) -> Material:
    return Material.of(minted.chain_der, PrivateKey(minted.key), trust)


def contexts(minted: Minted, trust: TrustBundles) -> TlsContexts:
    """Of a process that is `minted` and believes `trust`."""
    return TlsContexts(StaticIdentity(material(minted, trust)))


def member(domain: TrustDomain, account: str) -> TlsContexts:
    """Of a workload of `domain` that knows no other."""
    return contexts(domain.leaf(account), domain.bundle)


def careless(minted: Minted | None, folder: Path, *, server: bool) -> ssl.SSLContext:
    """Presents `minted` and looks at nothing that the other side presents."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if minted is not None:
        certificate, key = minted.write(folder, f"careless-{id(minted)}")
        context.load_cert_chain(certificate, key)
    return context


def echo_server(context: ssl.SSLContext) -> AbstractContextManager[int]:
    """A server that sends back what it gets; its port."""
    return tls_server(context, lambda tls, data: tls.sendall(data))


@contextmanager
def tls_server(context: ssl.SSLContext, received: Callable[[ssl.SSLSocket, bytes], object]) -> Iterator[int]:
    """A blocking server; its port.  A handshake that fails ends its own connection only."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                connected, _ = listening.accept()
                connected.settimeout(10)
                try:
                    with context.wrap_socket(connected, server_side=True) as tls:
                        while data := tls.recv(4096):
                            received(tls, data)
                except OSError:
                    connected.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            stopping.set()
            socket.create_connection(listening.getsockname()[:2]).close()
            thread.join()


def ping(context: ssl.SSLContext, port: int) -> bytes:
    """What comes back.  Refusals show as b"" or an OSError, here or there: in TLS 1.3 not before the first read."""
    with socket.create_connection(("127.0.0.1", port), 10) as connected, context.wrap_socket(connected) as tls:
        tls.sendall(PING)
        return tls.recv(4096)


async def aping(context: ssl.SSLContext, port: int) -> bytes:
    """The same on the running loop."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(PING)
        return await reader.read(4096)
    finally:
        writer.transport.abort()


async def async_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """For ``asyncio.start_server``."""
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort()


class TlsFront:
    """TLS in front of a plain server: what it sends, and how it ends, comes out the other side in TLS's own terms."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._behind = port
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close in the loop's next turns

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        forward = asyncio.ensure_future(_copy(reader, back))
        try:
            await _copy(there, writer)
            writer.close()  # with close_notify
            await asyncio.wait_for(forward, 5)
        except (asyncio.CancelledError, TimeoutError):
            pass  # `close`, or a client that does not end its side
        except OSError:  # reset by whom we stand for
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            forward.cancel()
            await asyncio.gather(forward, return_exceptions=True)
            writer.transport.abort()
            back.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.close()
