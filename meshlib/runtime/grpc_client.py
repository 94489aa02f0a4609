"""Calls of gRPC through the client's flow: the same routes, balancing, limits, deadlines and retries as for HTTP.

A unary call whose request is at hand is tried again where the route's policy says so, as long as there is no response: a
failure to connect in any case, a status (``unavailable`` ...) by the policy, both within the budget.  A stream, a request that
is streamed, and a call whose outcome is awaited elsewhere (`future`) have one try.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from meshlib import errors
from meshlib.flow.client import ClientFlow
from meshlib.flow.commands import Attempt, Command, Sleep
from meshlib.flow.served import Served
from meshlib.model.call import Overrides
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.request import Request, Timeouts
from meshlib.policy.grpc import BINARY, Metadata, headers_of, metadata_of
from meshlib.policy.header_mutation import HeaderEdit
from meshlib.runtime.client import Client, Prepared
from meshlib.runtime.drive import adrive, drive
from meshlib.runtime.grpc_channels import Channels, Opened, Options
from meshlib.runtime.grpc_pool import GrpcPool, Wanted
from meshlib.runtime.tls.contexts import TlsContexts
from meshlib.wire.errors import WireError

T = TypeVar("T")

_ONE_TRY = Overrides(retries=0)
_NEVER_SENT = "failed to connect to all addresses"
_UNAVAILABLE, _DEADLINE_EXCEEDED = 14, 4


@dataclass(frozen=True, slots=True)
class GrpcCall:
    """A call as it is asked for.  `timeout` in seconds; `repeatable`: a whole request is at hand, and its one response awaited.

    `options` are of gRPC's channels, for those that are opened for this call.
    """

    authority: str  # "ratings:9080"
    method: str  # "/ratings.Ratings/Get"
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout: float | None = None
    repeatable: bool = False
    options: Options = ()


class GrpcTry(NamedTuple):
    """Where and how to send a call now.  `method` makes what the call is sent with, as ``channel.KIND(name, ...)`` does."""

    opened: Opened
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    edit: HeaderEdit | None = None  # what the route does to the headers of the response

    def response_metadata(self, initial: Metadata) -> Metadata:
        """The initial metadata of the response, as the caller is to see them."""
        return initial if self.edit is None else metadata_of(self.edit(headers_of(initial)))

    def method(self, kind: str, name: str, serializer: object, deserializer: object) -> Any:
        return self.opened.method(kind, name, serializer, deserializer)


class RouteAnswers(errors.RouteError):
    """The route has an answer of its own (a VirtualService's directResponse, redirect, or injected fault)."""

    def __init__(self, message: str, *, http_status: int = 0, grpc_status: int = 2, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.http_status = http_status
        self.grpc_status = grpc_status  # what the answer says in gRPC's terms


class GrpcClient:
    """One per Mesh and process.  Any thread, any event loop.

    All calls raise errors.MeshError for what the mesh has to say, and else what the try itself has raised (grpc.RpcError).
    """

    def __init__(self, client: Client, contexts: TlsContexts | None) -> None:
        self._client = client
        self._pool = GrpcPool(contexts)

    def unary(self, call: GrpcCall, send: Callable[[GrpcTry], T]) -> T:
        """A call that is over when `send` returns."""
        prepared = _inside(self._client.prepare(_request(call)), call)
        tries = _Tries(self, prepared, call, _rpc_error())

        def one(attempt: Attempt) -> Outcome:
            while True:
                try:
                    channels, opened = self._pool.take(attempt, tries.wanted(attempt))
                except WireError as error:
                    return error.outcome(self._client.clock())
                try:
                    return tries.well(send(tries.of(attempt, opened)))
                except tries.rpc_error as error:
                    outcome = tries.failed(error, attempt, channels, opened)
                    if outcome is not None:
                        return outcome
                finally:
                    channels.release(opened)

        client = self._client
        result: T = _result(drive(client.flow(prepared), one, client.lock, time.sleep, client.clock), call)
        return result

    async def aunary(self, call: GrpcCall, send: Callable[[GrpcTry], Awaitable[T]]) -> T:
        """`unary` for coroutines."""
        prepared = _inside(await self._client.aprepare(_request(call)), call)
        tries = _Tries(self, prepared, call, _rpc_error())

        async def one(attempt: Attempt) -> Outcome:
            while True:
                try:
                    channels, opened = await self._pool.atake(attempt, tries.wanted(attempt))
                except WireError as error:
                    return error.outcome(self._client.clock())
                try:
                    return tries.well(await send(tries.of(attempt, opened)))
                except tries.rpc_error as error:
                    outcome = tries.failed(error, attempt, channels, opened)
                    if outcome is not None:
                        return outcome
                finally:
                    channels.release(opened)

        client = self._client
        result: T = _result(await adrive(client.flow(prepared), one, client.lock, asyncio.sleep, client.clock), call)
        return result

    def begin(self, call: GrpcCall) -> tuple[GrpcTry, OpenTry]:
        """A call that outlives the function that makes it: its only try, which `OpenTry.end` ends.  Blocks until connected."""
        prepared = _inside(self._client.prepare(_request(call)), call)
        open_try = OpenTry(self._client, self._client.flow(prepared), _Tries(self, prepared, call, _rpc_error()))
        command = open_try.start(call)
        while isinstance(command, Sleep):  # an injected delay
            time.sleep(command.seconds)
            command = open_try.start(call, self._client.clock())
        assert isinstance(command, Attempt)
        attempt = command
        try:
            channels, opened = self._pool.take(attempt, open_try.tries.wanted(attempt))
        except WireError as error:
            raise open_try.not_begun(error.outcome(self._client.clock())) from error
        return open_try.begun(channels, opened), open_try

    async def abegin(self, call: GrpcCall) -> tuple[GrpcTry, OpenTry]:
        """`begin` for coroutines."""
        prepared = _inside(await self._client.aprepare(_request(call)), call)
        open_try = OpenTry(self._client, self._client.flow(prepared), _Tries(self, prepared, call, _rpc_error()))
        command = open_try.start(call)
        while isinstance(command, Sleep):
            try:
                await asyncio.sleep(command.seconds)
            except BaseException:
                open_try.abandon()
                raise
            command = open_try.start(call, self._client.clock())
        assert isinstance(command, Attempt)
        attempt = command
        try:
            channels, opened = await self._pool.atake(attempt, open_try.tries.wanted(attempt))
        except WireError as error:
            raise open_try.not_begun(error.outcome(self._client.clock())) from error
        except BaseException:
            open_try.abandon()
            raise
        return open_try.begun(channels, opened), open_try

    def wait_known(self, authority: str, timeout: float) -> None:
        """Block until it is known where calls go.  Raises errors.MeshError."""
        _inside(self._client.prepare(_request(GrpcCall(authority, "/", timeout=timeout))), None)

    async def await_known(self, authority: str, timeout: float) -> None:
        """`wait_known` for coroutines."""
        _inside(await self._client.aprepare(_request(GrpcCall(authority, "/", timeout=timeout))), None)

    async def close_loop(self) -> None:
        """Close the channels of the running event loop."""
        await self._pool.close_loop()

    def close(self) -> None:
        """Follow the identity no more; channels end with their endpoints."""
        self._pool.close()


class _Tries:
    """What the tries of one call have in common."""

    __slots__ = ("_call", "_clock", "_metadata", "_prepared", "_renewed", "rpc_error")

    def __init__(self, owner: GrpcClient, prepared: Prepared, call: GrpcCall, rpc_error: type[Exception]) -> None:
        self.rpc_error = rpc_error
        self._call = call
        self._clock = owner._client.clock
        self._prepared = prepared
        self._metadata = _metadata(prepared, call)
        self._renewed = False

    def wanted(self, attempt: Attempt) -> Wanted:
        left = inf if attempt.deadline is None else attempt.deadline - self._clock()
        return Wanted(self._call.authority, self._call.options, left, not self._call.repeatable)

    def of(self, attempt: Attempt, opened: Opened) -> GrpcTry:
        timeout = None if attempt.deadline is None else max(attempt.deadline - self._clock(), 0.0)
        added = tuple((name.decode("ascii"), value.decode("ascii")) for name, value in attempt.headers)
        metadata = self._metadata
        if self._prepared.call.headers is not self._prepared.headers:
            metadata = _altered(self._prepared, self._call)
        return GrpcTry(opened, timeout, (*metadata, *added) if added else metadata, self._prepared.record.response_edit)

    def well(self, result: object) -> Outcome:
        return Outcome(self._clock(), status=200, response=result, complete=True)

    def failed(self, error: Any, attempt: Attempt, channels: Channels, opened: Opened) -> Outcome | None:
        """What a failure means; None: try the same endpoint once more, whose certificate may be another one by now."""
        outcome = outcome_of(error.code(), error.details(), error, attempt, self._clock())
        if outcome.reset is not Reset.CONNECT_FAILURE or opened.tls is None:
            return outcome
        channels.distrust(opened)
        if self._renewed or not self._call.repeatable or not opened.tls.mesh:
            return outcome
        self._renewed = True
        return None


class OpenTry:
    """The only try of a call that goes on by itself."""

    __slots__ = ("_attempt", "_channels", "_client", "_flow", "_opened", "tries")

    def __init__(self, client: Client, flow: ClientFlow, tries: _Tries) -> None:
        self._client = client
        self._flow = flow
        self._channels: Channels | None = None
        self._opened: Opened | None = None
        self.tries = tries

    def start(self, call: GrpcCall, woken: float | None = None) -> Command:
        """The try; before it, perhaps, a time to wait, after which this is called again with the clock's new time.

        Raises errors.CallError.
        """
        try:
            with self._client.lock:
                command = next(self._flow) if woken is None else self._flow.send(woken)
        except StopIteration as stop:
            raise _no_try(stop.value, call) from None
        if isinstance(command, Attempt):
            self._attempt = command
        return command

    def begun(self, channels: Channels, opened: Opened) -> GrpcTry:
        self._channels, self._opened = channels, opened
        try:
            return self.tries.of(self._attempt, opened)
        except errors.MeshError:
            self.abandon()
            raise

    def not_begun(self, outcome: Outcome) -> errors.MeshError:
        """The error for a try without a channel."""
        error = self._send(outcome)
        assert error is not None  # a reset without retries
        return error

    def end(self, code: int, details: str, error: BaseException | None = None) -> None:
        """The call is over, with this status.  From any thread, once."""
        channels, opened = self._channels, self._opened
        assert channels is not None
        assert opened is not None
        outcome = outcome_of((code,), details, error, self._attempt, self._client.clock())
        if outcome.reset is Reset.CONNECT_FAILURE and opened.tls is not None:
            channels.distrust(opened)
        self._send(outcome)
        channels.release(opened)

    def abandon(self) -> None:
        """It was given up before it began."""
        with self._client.lock:
            self._flow.close()
        if self._channels is not None and self._opened is not None:
            self._channels.release(self._opened)

    def _send(self, outcome: Outcome) -> errors.MeshError | None:
        try:
            with self._client.lock:
                self._flow.send(outcome)
        except StopIteration:
            return None
        except errors.MeshError as error:
            return error
        raise AssertionError("a call without retries is tried again")


def outcome_of(code: Any, details: str | None, error: BaseException | None, attempt: Attempt, now: float) -> Outcome:
    """What the end of a try means for the flow.  `code`: grpc.StatusCode, or its number in a tuple."""
    number: int = (code if isinstance(code, tuple) else code.value)[0]
    if number == _DEADLINE_EXCEEDED and attempt.deadline is not None and now >= attempt.deadline - _PRECISION:
        reset = Reset.PER_TRY_TIMEOUT if attempt.deadline_name == "per_try" else Reset.TIMEOUT
        return Outcome(now, reset=reset, error=error, timeout=attempt.deadline_name)
    if number == _UNAVAILABLE and _is_never_sent(details or "", attempt):
        return Outcome(now, reset=Reset.CONNECT_FAILURE, sent=False, error=error)
    return Outcome(now, status=200, headers=((b"grpc-status", b"%d" % number),), response=error, complete=True)


_PRECISION = 0.001
"""Seconds: gRPC counts in milliseconds."""


def _is_never_sent(details: str, attempt: Attempt) -> bool:
    """Its words are all that says it, and a server may have passed them on from calls of its own: so they must be about this
    very endpoint.
    """
    if not details.startswith(_NEVER_SENT):
        return False
    endpoint = attempt.host.endpoint
    address = f"%5B{endpoint.address}%5D" if ":" in endpoint.address else endpoint.address
    return f"{address}:{endpoint.port}: " in details


def _request(call: GrpcCall) -> Request:
    headers = [*headers_of(call.metadata), (b"content-type", b"application/grpc")]
    return Request(
        "POST",
        "http",
        call.authority,
        call.method,
        headers,
        body=b"" if call.repeatable else (),
        timeouts=Timeouts(total=call.timeout),
        overrides=None if call.repeatable else _ONE_TRY,
    )


def _metadata(prepared: Prepared, call: GrpcCall) -> tuple[tuple[str, str | bytes], ...]:
    """The caller's own without what is not his to say, and what the request being served hands on."""
    kept = {name for name, _ in prepared.headers}
    own = {name.lower() for name, _ in call.metadata}
    mine = [(name.lower(), value) for name, value in call.metadata if name.lower().encode("ascii") in kept]
    for name, value in prepared.headers:
        text = name.decode("ascii")
        if text not in own and text != "content-type" and not text.endswith(BINARY):
            mine.append((text, value.decode("latin-1")))
    return tuple(mine)


def _altered(prepared: Prepared, call: GrpcCall) -> tuple[tuple[str, str | bytes], ...]:
    """Metadata as the route has made it.  Raises errors.RouteError if the route wants what a stub cannot do."""
    altered = prepared.call
    if altered.path != call.method or altered.host != call.authority:
        raise errors.RouteError(
            "the route rewrites path or authority, which a stub of gRPC's sends as they are: leave gRPC calls out of the rule",
            authority=call.authority,
            route=prepared.record.route,
        )
    return tuple(pair for pair in metadata_of(altered.headers) if pair[0] != "content-type")


def _inside(prepared: Prepared | None, call: GrpcCall | None) -> Prepared:
    if prepared is None:
        raise errors.OutboundBlocked(
            "the host is outside of the mesh: a mesh's channel goes only to the mesh; call it with a channel of grpc's own",
            authority=call.authority if call is not None else "",
        )
    return prepared


def _result(served: Served | None, call: GrpcCall) -> Any:
    if served is None or served.outcome.response is None:
        raise _no_try(served, call)
    response = served.outcome.response
    if isinstance(response, BaseException):
        raise response
    return response


def _no_try(served: Served | None, call: GrpcCall) -> errors.RouteError:
    if served is None:  # a passthrough
        return errors.OutboundBlocked(
            "the route leads out of the mesh: call the host with a channel of grpc's own", authority=call.authority
        )
    headers = dict(served.headers or ())
    code = headers.get(b"grpc-status", b"")
    text = unquote(headers.get(b"grpc-message", b"").decode("latin-1"))
    return RouteAnswers(
        f"the route answers by itself: {text}" if text else "the route answers by itself",
        authority=call.authority,
        http_status=served.outcome.status,
        grpc_status=int(code) if code.isdigit() else _UNKNOWN,
    )


_UNKNOWN = 2


def _rpc_error() -> type[Exception]:
    import grpc

    found: type[Exception] = grpc.RpcError
    return found


__all__ = ["GrpcCall", "GrpcClient", "GrpcTry", "Metadata", "OpenTry", "RouteAnswers"]
