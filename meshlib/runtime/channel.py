"""The gRPC channel to the control service, shared by the ADS stream and the registration.  Imports grpc on first use."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from meshlib.errors import ConfigError
from meshlib.runtime.fork import keep_for_ever

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


class ControlChannel:
    """One channel at a time, to one of several addresses.  All methods may be called from any thread."""

    def __init__(self, targets: str) -> None:
        """`targets`: ``host:port``, several separated by commas.  Raises `ConfigError`."""
        self.targets = tuple(target.strip() for target in targets.split(",") if target.strip())
        for target in self.targets:
            host, _, port = target.rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
                raise ConfigError(f"control address {target!r}: expected HOST:PORT (several separated by commas)")
        if not self.targets:
            raise ConfigError("no control address: expected HOST:PORT (several separated by commas)")
        self._lock = threading.Lock()
        self._next = 0
        self._channel: grpc.Channel | None = None

    @property
    def target(self) -> str:
        """The address in use, or to be used next."""
        return self.targets[self._next]

    @property
    def at_first(self) -> bool:
        """Has `rotate` come round to where it began?"""
        return self._next == 0

    def get(self) -> grpc.Channel:
        """The channel, opened if need be; it connects when it is used."""
        with self._lock:
            if self._channel is None:
                import grpc

                self._channel = grpc.insecure_channel(self.target, options=OPTIONS)
            return self._channel

    def rotate(self) -> None:
        """Close the channel; the next one goes to the next address."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._next = (self._next + 1) % len(self.targets)
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Close the channel.  `get` opens a new one."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def forget(self) -> None:
        """In a forked child: the channel stays the parent's."""
        self._lock = threading.Lock()
        keep_for_ever(self._channel)
        self._channel = None
