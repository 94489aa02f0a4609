"""The gRPC channel to the control service, shared by the ADS stream and the registration.  Imports grpc on first use."""

from __future__ import annotations

import ipaddress
import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol

from meshlib.errors import ConfigError, ControlError, NotReady
from meshlib.runtime.fork import keep_for_ever
from meshlib.runtime.identity import pem
from meshlib.runtime.identity.bootstrap import control_name
from meshlib.runtime.identity.source import IdentitySource

if TYPE_CHECKING:
    import grpc

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes.  Ours come in parts of 3 MB, other control planes may send more than gRPC's default of 4 MB."""

OPTIONS: tuple[tuple[str, int], ...] = (
    # A dead peer (half-open connection, stopped process) is noticed after at most 30 s + 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Another ping may be under way when the peer dies (gRPC measures bandwidth with them); its own limit is 60 s.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    # A fixed receive window instead of one that is found out with extra pings, two packets for every push.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1024 * 1024),
    # The owner of the stream does the waiting between attempts, so that all of it is in one place (policy.backoff);
    # the channel's own pauses stay below ours.  The "minimum" is how long one attempt to connect may take.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 800),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # Two channels of a process would share a broken connection, and a child's with nobody's.
    ("grpc.use_local_subchannel_pool", 1),
    # Proxies are for the world outside.
    ("grpc.enable_http_proxy", 0),
)


class Secured(NamedTuple):
    """What a channel is opened with.  Equal `mark`: there is nothing newer."""

    credentials: grpc.ChannelCredentials
    name: str  # the DNS name that the control service's certificate must have
    mark: object


class Credentials(Protocol):
    """Asked whenever a channel is about to be used."""

    def __call__(self, known: object) -> Secured | None:
        """None: what is marked `known` is still the newest.

        Raises NotReady while it is worth waiting, and ControlError when it is not.
        """
        ...


class ControlCredentials:
    """mTLS by the process's own certificate, with a control service that proves to be it by the roots of the mesh."""

    def __init__(self, identity: IdentitySource) -> None:
        self._identity = identity

    def __call__(self, known: object) -> Secured | None:
        import grpc

        identity = self._identity
        material, trust = identity.current, identity.trust
        if material is None:
            kind = NotReady if identity.pending else ControlError
            raise kind(f"this process has no certificate to show to the control service: {identity.state}")
        mark = (material, trust)
        if isinstance(known, tuple) and known[0] is material and known[1] is trust:
            return None
        trust_domain = material.identity.trust_domain
        roots = trust.roots.get(trust_domain) or material.roots.roots.get(trust_domain, ())
        credentials = grpc.ssl_channel_credentials(pem.encode(roots), material.key.pem(), material.chain_pem)
        return Secured(credentials, control_name(trust_domain), mark)


class Channels(Protocol):
    """Where the control service is: a `ControlChannel`, for those who only call."""

    def get(self) -> grpc.Channel: ...


class ControlChannel:
    """One channel at a time, to one of several addresses.  All methods may be called from any thread."""

    def __init__(self, targets: str, credentials: Credentials | None = None) -> None:
        """`targets`: ``host:port``, several separated by commas.  `credentials` None: plaintext, on this machine only.

        Raises `ConfigError`.
        """
        self.targets = tuple(target.strip() for target in targets.split(",") if target.strip())
        for target in self.targets:
            host, _, port = target.rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
                raise ConfigError(f"control address {target!r}: expected HOST:PORT (several separated by commas)")
        if not self.targets:
            raise ConfigError("no control address: expected HOST:PORT (several separated by commas)")
        for target in self.targets if credentials is None else ():
            if not _is_loopback(target.rpartition(":")[0]):
                raise ConfigError(f"control address {target!r}: without an identity, only one on this machine is spoken to")
        self._credentials = credentials
        self._mark: object = None
        self._lock = threading.Lock()
        self._next = 0
        self._channel: grpc.Channel | None = None
        self._before: grpc.Channel | None = None  # with an older certificate; carries what was begun on it

    @property
    def target(self) -> str:
        """The address in use, or to be used next."""
        return self.targets[self._next]

    def get(self) -> grpc.Channel:
        """The channel, opened if need be; it connects when it is used.

        With a newer certificate, or other roots, it is another one; calls that are under way stay on the one before.
        Raises NotReady while there is no certificate yet, ControlError when there will be none for now.
        """
        with self._lock:
            secured = self._credentials(self._mark) if self._credentials is not None else None
            surplus: grpc.Channel | None = None
            if secured is not None and self._channel is not None:
                surplus, self._before, self._channel = self._before, self._channel, None
            if self._channel is None:
                self._channel = self._open(secured)
            channel = self._channel
        if surplus is not None:
            surplus.close()
        return channel

    def rotate(self) -> None:
        """Close the channel; the next one goes to the next address."""
        with self._lock:
            self._next = (self._next + 1) % len(self.targets)
        self.close()

    def close(self) -> None:
        """Close the channel.  `get` opens a new one."""
        with self._lock:
            channels = self._channel, self._before
            self._channel = self._before = self._mark = None
        for channel in channels:
            if channel is not None:
                channel.close()

    def forget(self) -> None:
        """In a forked child: the channel stays the parent's."""
        self._lock = threading.Lock()
        keep_for_ever(self._channel)
        keep_for_ever(self._before)
        self._channel = self._before = self._mark = None

    def _open(self, secured: Secured | None) -> grpc.Channel:
        import grpc

        if self._credentials is None:
            return grpc.insecure_channel(self.target, options=OPTIONS)
        assert secured is not None, "credentials know nothing newer than no channel"
        self._mark = secured.mark
        options = (*OPTIONS, ("grpc.ssl_target_name_override", secured.name))
        return grpc.secure_channel(self.target, secured.credentials, options=options)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
