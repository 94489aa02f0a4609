"""Servicers' methods behind the server's flow, for asyncio's servers.

A servicer's method may be a coroutine, an asynchronous generator, a coroutine that writes by itself, or a plain function, which
gRPC runs in a thread: each gets a wrapper of its own kind, by which gRPC tells them apart.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from meshlib.lowlevel import Serving
from meshlib_integrations import _grpc_handlers as threads
from meshlib_integrations._grpc_handlers import UNIMPLEMENTED
from meshlib_integrations._grpc_server import Gate, Refused, Seen, framed

logger = logging.getLogger("meshlib")

Behaviour = Callable[[Any, Any], Any]
Parse = Callable[[bytes], Any]


def wrapped(gate: Gate, method: str, handler: Any) -> Any:
    """As `_grpc_handlers.wrapped`."""
    if handler is None:
        return grpc.stream_stream_rpc_method_handler(_unknown(gate, method))
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    behaviour: Behaviour = getattr(handler, kind)
    if not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)):
        return threads.wrapped(gate, method, handler)
    parse: Parse | None = None
    deserializer = handler.request_deserializer
    if not handler.request_streaming:
        parse, deserializer = deserializer or _as_it_is, None
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    if inspect.isasyncgenfunction(behaviour):
        return make(_generator(gate, method, behaviour, parse), deserializer, handler.response_serializer)
    run = _coroutine(gate, method, behaviour, parse, streams=kind != "unary_unary")
    return make(run, deserializer, handler.response_serializer)


def _coroutine(gate: Gate, method: str, behaviour: Behaviour, parse: Parse | None, *, streams: bool) -> Behaviour:
    """One response, or a stream of them that it writes by itself."""

    @functools.wraps(behaviour)
    async def run(request: Any, context: Any) -> Any:
        serving, seen = await _admit(gate, method, context, None if parse is None else request, streams=streams)
        with serving:
            response = await behaviour(request if parse is None else await _parsed(parse, request, context), seen)
            if seen.unsent:
                await seen.send_initial_metadata(())
            return response

    return run


def _generator(gate: Gate, method: str, behaviour: Behaviour, parse: Parse | None) -> Behaviour:
    @functools.wraps(behaviour)
    async def run(request: Any, context: Any) -> AsyncIterator[Any]:
        serving, seen = await _admit(gate, method, context, None if parse is None else request, streams=True)
        with serving:
            async for response in behaviour(request if parse is None else await _parsed(parse, request, context), seen):
                if seen.unsent:
                    await seen.send_initial_metadata(())
                yield response

    return run


def _unknown(gate: Gate, method: str) -> Behaviour:
    async def run(request: Any, context: Any) -> None:
        await _admit(gate, method, context, None)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, UNIMPLEMENTED)

    return run


async def _admit(
    gate: Gate, method: str, context: Any, message: bytes | None, *, streams: bool = False
) -> tuple[Serving, Seen]:
    """As `_grpc_handlers._admit`."""
    try:
        serving = gate.begin(method, context)
        while serving.pending is not None:
            body = framed(message) if message is not None and serving.wanted_body else b""
            await serving.acheck(body, complete=message is not None)
        return serving, gate.admitted(serving, context, streams=streams)
    except Refused as refused:
        await context.abort(refused.code, refused.details, refused.metadata)
        raise AssertionError("abort raises") from refused


async def _parsed(parse: Parse, message: bytes, context: Any) -> Any:
    try:
        return parse(message)
    except Exception:
        logger.exception("a request could not be deserialized")
        await context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


def _as_it_is(message: bytes) -> bytes:
    return message
