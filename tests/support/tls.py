"""Both ends of TLS connections for tests: the mesh's own, and ones that check nothing and present whatever they are given."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshlib.model.identity import TrustBundles
from meshlib.runtime.identity.material import Material, PrivateKey
from meshlib.runtime.identity.static import StaticIdentity
from meshlib.runtime.tls.contexts import TlsContexts
from tests.support.certificates import Minted, TrustDomain

PING = b"ping"


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
    if server:
        # A server has to ask, or its client proves nothing; what it proves is then checked against nothing that is known.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if minted is not None:
        certificate, key = minted.write(folder, f"careless-{id(minted)}")
        context.load_cert_chain(certificate, key)
    return context


@contextmanager
def echo_server(context: ssl.SSLContext) -> Iterator[int]:
    """A blocking server that sends back what it gets; its port.  A handshake that fails ends its own connection only."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                connected, _ = listening.accept()
                connected.settimeout(10)
                try:
                    with context.wrap_socket(connected, server_side=True) as tls:
                        while data := tls.recv(4096):
                            tls.sendall(data)
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
