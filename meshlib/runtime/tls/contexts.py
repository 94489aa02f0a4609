"""TLS contexts that follow the process's identity and the mesh's trust.

Python's contexts cannot forget a root or swap a key, so for each change new ones are built (1 ms, on the next handshake); what
is handed out are sides and facades that stay, and take the context of the moment for every new connection.  Nothing is
resumed across a change: our servers give out no tickets, our clients keep no sessions, and a session that is resumed all the
same has its chain verified anew.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from weakref import WeakValueDictionary

from meshlib.model.cluster import UpstreamTls
from meshlib.model.identity import Peer, TrustBundles
from meshlib.runtime.fork import forget_in_child
from meshlib.runtime.identity.material import Material
from meshlib.runtime.identity.source import IdentitySource
from meshlib.runtime.tls.errors import IdentityMissing
from meshlib.runtime.tls.facade import Facade
from meshlib.runtime.tls.loading import load_material
from meshlib.runtime.tls.objects import Checked, TlsObject, TlsSocket, sent_chain, verified_chain
from meshlib.runtime.tls.outside import OutsideSide
from meshlib.runtime.tls.side import Side, wrap_accepted
from meshlib.runtime.tls.verify import Role, anchored, verify_peer

ALPN = ("http/1.1", "istio-http/1.1", "istio")
"""What both ends say: HTTP/1.1, and in Istio's words too, by which its sidecars tell the mesh's TLS from an application's."""

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all fine."""

_VERSIONS = {"TLSv1_3": ssl.TLSVersion.TLSv1_3}  # anything else: 1.2, which is the least that the mesh speaks


class TlsContexts:
    """One per process.  All methods may be called from any thread; `generation` grows with each change."""

    def __init__(self, identity: IdentitySource, *, wall: Callable[[], float] = time.time) -> None:
        """`wall`: Unix seconds, by which certificates end."""
        self.generation = 1
        self.wall = wall
        self._identity = identity
        self._trust: TrustBundles | None = None
        self._material: Material | None = identity.current
        self._lock = threading.Lock()
        self._contexts: dict[tuple[bool, str, tuple[str, ...]], ssl.SSLContext] = {}
        self._sides: WeakValueDictionary[UpstreamTls, Side] = WeakValueDictionary()
        self._facades: WeakValueDictionary[object, Facade] = WeakValueDictionary()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._stop = identity.listen(self._renewed)
        forget_in_child(self)

    # --- what changes

    @property
    def material(self) -> Material | None:
        """What new connections prove our identity with."""
        return self._identity.current

    @property
    def trust(self) -> TrustBundles:
        """The roots of the snapshot; before there is one, those that came with our own certificate."""
        return self._identity.trust

    def set_trust(self, trust: TrustBundles) -> None:
        """From now on these roots vouch for peers."""
        with self._lock:
            if trust == self._trust:
                return
            self._trust = trust
            self._identity.learn(trust)
            self._change()
        self._tell()

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after each change, on the thread that made it.  Call the result to stop."""
        with self._lock:
            self._listeners = (*self._listeners, callback)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not callback)

        return stop

    def close(self) -> None:
        """Follow the identity no more."""
        self._stop()

    def forget(self) -> None:
        """In a forked child: new locks.  Contexts hold no threads and no sockets, and stay."""
        self._lock = threading.Lock()

    # --- what is handed out

    def upstream(self, tls: UpstreamTls) -> Side:
        """How connections to a cluster are encrypted; the same object for equal values.  Raises ssl.SSLError, OSError."""
        with self._lock:
            side = self._sides.get(tls)
            if side is None:
                side = self._sides[tls] = self._side(tls)
            return side

    def client(self, tls: UpstreamTls) -> ssl.SSLContext:
        """`upstream` for whoever wants a context: httpx, aiohttp, urllib3, asyncio."""
        with self._lock:
            facade = self._facades.get(tls)
            if facade is None:  # with a side of its own: its users may want another ALPN
                facade = self._facades[tls] = Facade(self._side(tls), server=False)
            return facade

    def server(self, minimum_version: str = "") -> ssl.SSLContext:
        """`downstream` for whoever wants a context."""
        with self._lock:
            facade = self._facades.get(minimum_version)
            if facade is None:
                side = self.downstream(minimum_version)
                facade = self._facades[minimum_version] = Facade(side, server=True)
            return facade

    def downstream(self, minimum_version: str = "") -> Side:
        """For connections to what this process serves: every client must have an identity of a trusted domain."""
        return MeshSide(self, minimum_version=minimum_version)

    # --- for the sides

    def current(self, *, server: bool, minimum_version: str, alpn: tuple[str, ...]) -> tuple[ssl.SSLContext, Material, int]:
        """The context of the moment, our own material in it, and their generation.  Raises IdentityMissing."""
        identity = self._identity
        with self._lock:
            material = identity.current
            if material is not self._material:
                self._material = material
                self._change()
            if material is None:
                raise IdentityMissing(f"this process has no certificate: {identity.state}")
            if material.not_after <= self.wall():
                raise IdentityMissing(f"the certificate of {material.identity} has expired: {identity.state}")
            key = (server, minimum_version, alpn)
            context = self._contexts.get(key)
            if context is None:
                context = self._contexts[key] = _build(material, self.trust, server=server, minimum_version=minimum_version)
                context.set_alpn_protocols(list(alpn))
            return context, material, self.generation

    def _renewed(self, material: Material) -> None:
        with self._lock:
            if material is not self._material or material.not_after <= self.wall():
                self._material = material
                self._change()
            # Else a handshake was quicker to see it.
        self._tell()

    def _side(self, tls: UpstreamTls) -> Side:
        return MeshSide(self, tls=tls) if tls.mesh else OutsideSide(tls)

    def _change(self) -> None:
        """Call with the lock held."""
        self.generation += 1
        self._contexts.clear()

    def _tell(self) -> None:
        for callback in self._listeners:
            callback()


class MeshSide:
    """A client's or a server's side of connections within the mesh."""

    def __init__(self, contexts: TlsContexts, *, tls: UpstreamTls | None = None, minimum_version: str = "") -> None:
        """`tls` None: a server."""
        self._contexts = contexts
        self._server = tls is None
        self._expected = tls.identities or None if tls is not None else None
        self._name = (tls.sni or None) if tls is not None else None
        self._minimum_version = tls.minimum_version if tls is not None else minimum_version
        self.alpn: tuple[str, ...] = ALPN

    def check_ready(self) -> None:
        self._prepare()

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, host: str = "") -> TlsObject:
        context, check = self._prepare()
        made = context.wrap_bio(incoming, outgoing, server_side=self._server, server_hostname=self._name)
        assert isinstance(made, TlsObject)
        made.check = check
        return made

    def wrap_socket(self, connected: socket.socket, *, host: str = "", suppress_ragged_eofs: bool = True) -> TlsSocket:
        context, check = self._prepare()
        made = context.wrap_socket(
            connected,
            server_side=self._server,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=suppress_ragged_eofs,
            server_hostname=self._name,
        )
        assert isinstance(made, TlsSocket)
        made.check = check
        return made

    def _prepare(self) -> tuple[ssl.SSLContext, MeshCheck]:
        contexts = self._contexts
        context, material, generation = contexts.current(
            server=self._server, minimum_version=self._minimum_version, alpn=self.alpn
        )
        return context, MeshCheck(self, contexts, generation, material.not_after)

    def peer(self, tls: Checked) -> Peer:
        """Who is there.  Raises CertificateRejected."""
        trust = self._contexts.trust
        # A resumed session brings its certificates and no proof of when they were verified, or with which roots.
        chain = verified_chain(tls) or anchored(sent_chain(tls), trust)
        role: Role = "client" if self._server else "server"
        return verify_peer(chain, trust, self._expected, role, now=self._contexts.wall())


class MeshCheck:
    """The end of one handshake."""

    __slots__ = ("_contexts", "_side", "generation", "not_after")

    def __init__(self, side: MeshSide, contexts: TlsContexts, generation: int, not_after: float) -> None:
        self._side = side
        self._contexts = contexts
        self.generation = generation
        self.not_after = not_after

    def __call__(self, tls: Checked) -> Peer:
        return self._side.peer(tls)

    def accepted(self, connected: socket.socket, *, handshake: bool) -> ssl.SSLSocket:
        return wrap_accepted(self._side, connected, handshake=handshake)


class _Context(ssl.SSLContext):
    """A real context, good for one generation."""

    sslobject_class = TlsObject
    sslsocket_class = TlsSocket


def _build(material: Material, trust: TrustBundles, *, server: bool, minimum_version: str) -> ssl.SSLContext:
    roots = b"".join(root for domain in trust.roots.values() for root in domain)
    if not roots:
        raise IdentityMissing("no root certificate of any trust domain is known, so nobody can be trusted")
    context = _Context(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # names are SPIFFE IDs, which `MeshCheck` looks at
    context.verify_mode = ssl.CERT_REQUIRED
    # Whatever a bundle names is a root, also if somebody else has signed it (SPIFFE bundles section 4.2.1).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = _VERSIONS.get(minimum_version, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if server:
        context.num_tickets = 0
        context.sni_callback = _note_name
    load_material(context, material)
    context.load_verify_locations(cadata=roots)
    return context


def _note_name(tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
    """For policies that look at the name (``connection.sni``); the certificate is the same for all of them."""
    if isinstance(tls, Checked):
        tls.server_name = name
