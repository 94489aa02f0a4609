"""Probes of endpoints, over HTTP/1.1, TCP and gRPC: plain, or as the cluster's calls are encrypted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Final

from meshlib.flow.commands import Attempt
from meshlib.model.cluster import CircuitBreakers, Cluster, GrpcHealthCheck, HealthCheck, HttpHealthCheck, TcpHealthCheck
from meshlib.model.endpoint import Endpoint
from meshlib.policy.balancing import Host
from meshlib.policy.health_checking import Failure
from meshlib.runtime.grpc_channels import awaited
from meshlib.runtime.grpc_pool import GrpcPool, Wanted
from meshlib.runtime.http.aio_response import AsyncResponse
from meshlib.runtime.http.failures import connect_failure
from meshlib.runtime.pools import Pools
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.wire.errors import NoIdentity, WireError
from meshlib.wire.grpc_health import CHECK, SERVING, health_request, serving_status, status_name
from meshlib.wire.request import encode_head

USER_AGENT: Final = (b"user-agent", b"meshlib-health-check")

LARGEST_BODY: Final = 64 * 1024
"""Bytes of an answer's body that are read to use the connection again; a longer one ends it."""


class Target:
    """One endpoint as its probes reach it: perhaps on another port, and apart from the limits of calls."""

    __slots__ = ("check", "cluster", "host")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, check: HealthCheck) -> None:
        self.check = check
        self.cluster = replace(
            cluster,
            name=f"{cluster.name} (health checks)",
            connect_timeout=check.timeout,
            circuit_breakers=CircuitBreakers(),
        )
        self.host = Host(replace(endpoint, port=check.port or endpoint.port))

    @property
    def authority(self) -> str:
        """What probes name: their check's host, or the cluster's."""
        asked = self.check.check
        given = asked.host if isinstance(asked, HttpHealthCheck) else ""
        given = asked.authority if isinstance(asked, GrpcHealthCheck) else given
        return given or self.cluster.host or self.host.key


class Probes:
    """Makes them, on the loop that it is used on, and keeps connections between them."""

    def __init__(self, tls: TlsContexts | None) -> None:
        self._tls = tls
        self._pools = Pools(tls)
        self._grpc: GrpcPool | None = None  # gRPC costs 100 ms to load: not before it is needed

    async def probe(self, target: Target) -> Failure | None:
        """None: it went well, within the check's timeout.  Raises NoIdentity if this process could not even ask."""
        asked = target.check.check
        try:
            if isinstance(asked, HttpHealthCheck):
                return await self._http(target, asked)
            async with asyncio.timeout(target.check.timeout):
                if isinstance(asked, TcpHealthCheck):
                    return await self._tcp(target, asked)
                return await self._ask_grpc(target, asked)
        except TimeoutError:
            return Failure(f"no answer within {target.check.timeout:g} s", network=True)
        except NoIdentity:
            raise
        except WireError as error:
            return Failure(str(error), network=True)

    def forget(self, target: Target) -> None:
        """It is probed no more: its connections close."""
        self._pools.drain([target.host])

    def close(self) -> None:
        """All targets have been forgotten."""
        self._pools.close()
        if self._grpc is not None:
            self._grpc.close()

    # --- HTTP

    async def _http(self, target: Target, asked: HttpHealthCheck) -> Failure | None:
        until = monotonic() + target.check.timeout
        try:
            response = await self._get(target, asked, until)
        except WireError as error:
            if not error.reused or error.responded:
                raise
            response = await self._get(target, asked, until)  # the server closed the idle connection just then
        status = response.status
        await _read_up(response)
        if any(start <= status < end for start, end in asked.statuses):
            return None
        return Failure(f"status {status}", network=False)

    async def _get(self, target: Target, asked: HttpHealthCheck, until: float) -> AsyncResponse:
        own = {name.lower() for name, _ in asked.headers}
        headers = asked.headers if USER_AGENT[0] in own else (USER_AGENT, *asked.headers)
        head = encode_head("GET", asked.path, headers, authority=target.authority)
        pool = self._pools.for_loop(target.host, target.cluster, asyncio.get_running_loop())
        return await pool.send(head, deadline=until, deadline_name="total")

    # --- TCP

    async def _tcp(self, target: Target, asked: TcpHealthCheck) -> Failure | None:
        endpoint = target.host.endpoint
        connector = self._pools.connector_for_loop(target.cluster, endpoint)
        try:
            conversation = await connector.open(endpoint, lambda: _Conversation(asked.receive))
        except OSError as error:
            raise connect_failure(endpoint, error, None) or error from error
        try:
            if asked.send:
                conversation.transport.write(asked.send)
            complete = not asked.receive or await conversation.complete
        finally:
            conversation.transport.close()
        return None if complete else Failure("the connection ended before the expected bytes", network=True)

    # --- gRPC

    async def _ask_grpc(self, target: Target, asked: GrpcHealthCheck) -> Failure | None:
        import grpc

        from meshlib.runtime.grpc_client import outcome_of

        if self._grpc is None:
            self._grpc = GrpcPool(self._tls)
        until = monotonic() + target.check.timeout
        attempt = Attempt(target.host, target.cluster, 1, until, "total", ())
        wanted = Wanted(f"{target.authority}:{target.host.endpoint.port}", (), target.check.timeout, stream=False)
        channels, opened = await self._grpc.take_awaited(attempt, wanted)
        try:
            method = opened.method("unary_unary", CHECK, None, None)
            answer = await awaited(method.future(health_request(asked.service), timeout=max(until - monotonic(), 0.001)))
            status = serving_status(answer)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            outcome = outcome_of(code, details, error, attempt, monotonic())
            if outcome.reset is not None and opened.tls is not None:
                channels.distrust(opened)
            return Failure(f"{code.name}: {details}", network=outcome.reset is not None)
        except ValueError as error:
            return Failure(f"no answer of a health service: {error}", network=False)
        finally:
            channels.release(opened)
        return None if status == SERVING else Failure(status_name(status), network=False)


class _Conversation(asyncio.Protocol):
    """A connection whose peer has to say certain things."""

    transport: asyncio.Transport

    def __init__(self, expected: Sequence[bytes]) -> None:
        self.complete: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._expected = list(expected)
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # of a stream

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while self._expected:
            before, found, after = self._heard.partition(self._expected[0])
            if not found:
                self._heard = before[-LARGEST_BODY:]
                return
            self._expected.pop(0)
            self._heard = after
        self._end(complete=True)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(complete=False)

    def _end(self, *, complete: bool) -> None:
        if not self.complete.done():
            self.complete.set_result(complete)


async def _read_up(response: AsyncResponse) -> None:
    """To its end, if that is near: then the connection can be used again."""
    size = 0
    with suppress(WireError):  # the status has said what was asked
        async for piece in response:
            size += len(piece)
            if size > LARGEST_BODY:
                await response.aclose()
                return
