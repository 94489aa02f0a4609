"""Real channels of gRPC: for each endpoint one that takes new calls, and older ones that carry theirs to the end.

A channel has the certificates that it was opened with for as long as it lives, so each change of our own, of the roots, or of
the endpoint's opens a new one.  gRPC itself connects and connects again; which endpoint a call goes to is not its business.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.grpc_proof import Proof
from meshlib.runtime.http.connector import FOR_EVER
from meshlib.wire.errors import NoIdentity

if TYPE_CHECKING:
    import grpc

Options = tuple[tuple[str, Any], ...]

MAX_METHODS = 1024
"""Methods kept for one channel; an application that makes functions up for each call would fill the memory otherwise."""

_OPTIONS: Options = (
    # Two channels of a process would share a broken connection, and a child's with its parent's.
    ("grpc.use_local_subchannel_pool", 1),
    # Proxies are for the world outside, and so are service configurations from DNS.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    # Which endpoint is left alone, and for how long, is decided by the balancer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A dead peer is noticed; every 5 minutes is the most often that each server puts up with.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class Opened:
    """A channel, how it was secured, and how many calls are on it."""

    __slots__ = ("active", "certificate", "channel", "lifetime", "methods", "proved", "retired", "tls")

    def __init__(self, channel: Any, tls: UpstreamTls | None, proof: Proof | None) -> None:
        """`proof` None: the channel has nothing of the mesh's certificates."""
        self.channel = channel
        self.tls = tls
        self.certificate = proof.certificate if proof is not None else b""
        self.lifetime = proof.lifetime if proof is not None else FOR_EVER
        self.proved = proof.at if proof is not None else inf  # monotonic seconds
        self.active = 0
        self.retired = False
        self.methods: dict[object, Any] = {}

    def method(self, kind: str, name: str, serializer: object, deserializer: object) -> Any:
        """What ``channel.KIND(name, ...)`` gives, made once.  `kind`: "unary_unary" and its three siblings."""
        key = (kind, name, serializer, deserializer)
        found = self.methods.get(key)
        if found is None:
            if len(self.methods) >= MAX_METHODS:
                self.methods.clear()
            found = self.methods[key] = getattr(self.channel, kind)(name, serializer, deserializer)
        return found


class Channels:
    """Those to one endpoint.  Any thread."""

    def __init__(self, close: Callable[[Any], None]) -> None:
        """`close` ends a channel without calls, without waiting."""
        self._lock = threading.Lock()
        self._close = close
        self._current: Opened | None = None
        self._drained = False

    def take(self, tls: UpstreamTls | None, generation: int, *, proved_since: float = -inf) -> Opened | None:
        """The channel for a new call, which `release` ends; None: one has to be opened."""
        with self._lock:
            opened = self._current
            if opened is None or not _is_good(opened, tls, generation) or opened.proved < proved_since:
                return None
            opened.active += 1
            return opened

    def confirm(self, proof: Proof, tls: UpstreamTls, generation: int) -> Opened | None:
        """`take` after another look at the endpoint: if it still has the certificate that it had."""
        with self._lock:
            opened = self._current
            if opened is None or opened.certificate != proof.certificate or not _is_good(opened, tls, generation):
                return None
            opened.proved = proof.at
            opened.active += 1
            return opened

    def put(self, opened: Opened) -> Opened:
        """Take a new one into use, and it for a call."""
        with self._lock:
            opened.active += 1
            opened.retired = self._drained
            if self._drained:
                return opened
            before, self._current = self._current, opened
        self._retire(before)
        return opened

    def release(self, opened: Opened) -> None:
        """A call is over."""
        with self._lock:
            opened.active -= 1
            if not opened.retired or opened.active:
                return
        self._close(opened.channel)

    def distrust(self, opened: Opened) -> None:
        """It did not connect: the next call looks anew who is there."""
        with self._lock:
            if self._current is not opened:
                return
            self._current = None
        self._retire(opened)

    def sweep(self, generation: int) -> None:
        """Identity or trust has changed."""
        with self._lock:
            opened = self._current
            if opened is None or opened.tls is None or not opened.tls.mesh or opened.lifetime.generation == generation:
                return
            self._current = None
        self._retire(opened)

    def drain(self) -> None:
        """The endpoint is gone, or the Mesh closed.  Calls that were balanced before may still open one, for themselves."""
        with self._lock:
            self._drained = True
            opened, self._current = self._current, None
        self._retire(opened)

    def _retire(self, opened: Opened | None) -> None:
        if opened is None:
            return
        with self._lock:
            if opened.retired:
                return
            opened.retired = True
            if opened.active:
                return
        self._close(opened.channel)


class Opening(NamedTuple):
    """What a channel is opened with."""

    target: str
    credentials: grpc.ChannelCredentials | None
    options: Options
    binding: Options  # those that decide who is at the other end


def opening(
    endpoint: Endpoint, cluster: Cluster, authority: str, secured: tuple[grpc.ChannelCredentials, str] | None
) -> Opening:
    """`authority`: what callers name; `secured`: credentials and the DNS name that the endpoint's certificate must have."""
    # gRPC compares the authority of each call with the name that it calls, and it leaves the port out of one of them.
    host = authority.rpartition(":")[0]
    connecting = ("grpc.min_reconnect_backoff_ms", max(1, round(cluster.connect_timeout * 1000)))  # what an attempt may take
    options: Options = (*_OPTIONS, connecting)
    named: Options = (("grpc.default_authority", host),)
    if secured is None:
        return Opening(endpoint.key, None, (*options, *named), ())
    credentials, name = secured
    return Opening(endpoint.key, credentials, options, (*named, ("grpc.ssl_target_name_override", name)))


def tls_of(cluster: Cluster, endpoint: Endpoint) -> UpstreamTls | None:
    """How `endpoint` is encrypted; None: not at all."""
    return None if cluster.auto_mtls and not endpoint.mtls else cluster.tls


def outside(tls: UpstreamTls, endpoint: Endpoint) -> tuple[grpc.ChannelCredentials, str]:
    """For a host outside of the mesh's identities (DestinationRule tls modes SIMPLE and MUTUAL).

    Raises NoIdentity for what gRPC cannot verify, or cannot leave unverified.
    """
    import grpc

    names = tls.dns_names or ((tls.sni or endpoint.hostname,) if tls.sni or endpoint.hostname else ())
    if not tls.verify or len(names) != 1:
        what = "insecureSkipVerify" if not tls.verify else f"{len(names)} subjectAltNames"
        raise NoIdentity(f"{endpoint} cannot be called by gRPC, which verifies one name and always does: its TLS has {what}")
    files: Mapping[str, bytes | None] = {
        name: Path(file).read_bytes() if file else None
        for name, file in (("ca", tls.ca_file), ("key", tls.key_file), ("certificate", tls.certificate_file))
    }
    return grpc.ssl_channel_credentials(files["ca"], files["key"], files["certificate"]), names[0]


def _is_good(opened: Opened, tls: UpstreamTls | None, generation: int) -> bool:
    if opened.tls is not tls and opened.tls != tls:
        return False
    if tls is None or not tls.mesh:
        return True
    return opened.lifetime.generation == generation and monotonic() < opened.lifetime.ends


async def awaited(call: Any) -> bytes:
    """A call of the blocking API, awaited; cancelled with the task."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    def tell(_: object) -> None:
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:
            pass  # the loop has ended

    call.add_done_callback(tell)
    try:
        await done
    except asyncio.CancelledError:
        call.cancel()
        raise
    answer: bytes = call.result()
    return answer
