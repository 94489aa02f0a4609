"""One gRPC port: ADS and the registry."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio

from meshlib_control.errors import ControlServiceError

MAX_REQUEST = 4 * 1024 * 1024
"""Bytes of one request: room for the names and versions of some 20,000 resources."""

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_REQUEST),
    # Clients ping every 30 s (ours, Envoy as configured by us); gRPC's own limit of 5 min would end their connections.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # And clients that are gone without a word are noticed too.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC measures the bandwidth of each connection with extra pings to size its receive window; requests are small.
    ("grpc.http2.bdp_probe", 0),
    # A second process on the same port would get half of the clients: refuse to start instead.
    ("grpc.so_reuseport", 0),
)


class PortUnavailable(ControlServiceError):
    """The address cannot be listened on."""


AGE: tuple[tuple[str, int], ...] = (
    # A stream outlives the certificate that it was opened with, and the trust in it: it is renewed every hour (gRFC A9).
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 10_000),
)


class GrpcServer:
    """Listens on one address.  Without credentials it is plaintext, which `settings` allows on loopback only."""

    def __init__(self, handlers: Sequence[grpc.GenericRpcHandler], credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials = credentials
        self._server = grpc.aio.server(options=OPTIONS if credentials is None else (*OPTIONS, *AGE))
        self._server.add_generic_rpc_handlers(tuple(handlers))

    async def start(self, address: str) -> int:
        """Listen on ``host:port`` and return the port, which the system chooses for 0.  Raises `PortUnavailable`."""
        try:
            if self._credentials is None:
                port: int = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise PortUnavailable(f"cannot listen on {address}: {error}") from error
        await self._server.start()
        return port

    async def stop(self, grace: float = 0.0) -> None:
        """Take no new calls; end those that still run after `grace` seconds (streams always do)."""
        await self._server.stop(grace)
