"""A stub's methods on a mesh's channel, for asyncio.

A call object of `grpc.aio` exists before its call has begun, with four kinds of everything.  gRPC has such objects itself, for
channels with interceptors: so a channel that is never connected makes them, and its interceptors send each call to where the
mesh wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from meshlib import Mesh
from meshlib.errors import MeshError
from meshlib.lowlevel import GrpcTry, OpenTry
from meshlib_integrations._grpc_channel import Method, Options, asked, code_of, pushback, translation
from meshlib_integrations._grpc_metadata import aedited


class Failure(grpc.aio.AioRpcError):  # type: ignore[misc]  # grpcio has no types
    """A call that the mesh has not made, or given up."""

    def __init__(self, message: str, *, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        super().__init__(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=message, debug_error_string=message)
        self.args = (message,)  # what a copy is made from

    def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*pushback(self))


_TRANSLATION = translation(Failure)


class Calls:
    """The calls of one channel.  Methods are known to the interceptors by their number."""

    def __init__(self, mesh: Mesh, target: str, options: Options) -> None:
        self.mesh = mesh
        self.target = target
        self.options = options
        self._methods: list[Method] = []
        self._numbers: dict[Method, int] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def number(self, method: Method) -> str:
        """What the channel that makes the call objects calls it."""
        number = self._numbers.get(method)
        if number is None:
            number = self._numbers[method] = len(self._methods)
            self._methods.append(method)
        return f"/meshlib/{number}"

    async def unary(self, kind: str, details: Any, request: Any, *, repeatable: bool) -> Any:
        """A call whose response is here, when this returns it."""
        method, how = self._methods[int(_text(details.method).rpartition("/")[2])], _how(details)
        call = asked(self.target, method.path, details.metadata, details.timeout, repeatable=repeatable, options=self.options)

        async def send(current: GrpcTry) -> Any:
            made = current.method(kind, *method)(request, timeout=current.timeout, metadata=current.metadata, **how)
            await made
            return aedited(made, current)

        try:
            return await self.mesh.grpc_client.aunary(call, send)
        except MeshError as error:
            raise _TRANSLATION.translate(error, code=code_of(error)) from error.__cause__

    async def begin(self, kind: str, details: Any, request: Any) -> Any:
        """A call that goes on by itself, as gRPC's own object."""
        method, how = self._methods[int(_text(details.method).rpartition("/")[2])], _how(details)
        call = asked(self.target, method.path, details.metadata, details.timeout, options=self.options)
        try:
            current, opened = await self.mesh.grpc_client.abegin(call)
        except MeshError as error:
            raise _TRANSLATION.translate(error, code=code_of(error)) from error.__cause__
        try:
            made = current.method(kind, *method)(request, timeout=current.timeout, metadata=current.metadata, **how)
        except BaseException:
            opened.abandon()
            raise
        made.add_done_callback(self._ender(opened))
        return aedited(made, current)

    def _ender(self, opened: OpenTry) -> Callable[[Any], None]:
        def over(call: Any) -> None:
            task = asyncio.get_running_loop().create_task(_end(call, opened))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

        return over


async def _end(call: Any, opened: OpenTry) -> None:
    """The call is done, so nothing here waits."""
    code: grpc.StatusCode = await call.code()
    opened.end(code.value[0], await call.details() or "")


def _how(details: Any) -> Mapping[str, Any]:
    return {"credentials": details.credentials} if details.credentials is not None else {}


def _text(method: str | bytes) -> str:
    return method.decode("ascii") if isinstance(method, bytes) else method


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def intercept_unary_unary(self, continuation: object, client_call_details: Any, request: Any) -> Any:
        return await self._calls.unary("unary_unary", client_call_details, request, repeatable=True)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def intercept_unary_stream(self, continuation: object, client_call_details: Any, request: Any) -> Any:
        return await self._calls.begin("unary_stream", client_call_details, request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def intercept_stream_unary(self, continuation: object, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._calls.begin("stream_unary", client_call_details, request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def intercept_stream_stream(self, continuation: object, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._calls.begin("stream_stream", client_call_details, request_iterator)


def template(calls: Calls, compression: grpc.Compression | None) -> grpc.aio.Channel:
    """The channel that makes the call objects.  Nothing is ever sent by it."""
    interceptors = [_UnaryUnary(calls), _UnaryStream(calls), _StreamUnary(calls), _StreamStream(calls)]
    return grpc.aio.insecure_channel(
        "unix:/nowhere/meshlib", options=[("grpc.use_local_subchannel_pool", 1)], compression=compression,
        interceptors=interceptors,
    )  # fmt: skip
