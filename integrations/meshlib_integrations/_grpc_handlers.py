"""Servicers' methods behind the server's flow, for servers with threads."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc

from meshlib.lowlevel import Serving
from meshlib_integrations._grpc_server import Gate, Refused, Seen, framed

logger = logging.getLogger("meshlib")

Behaviour = Callable[[Any, Any], Any]

UNIMPLEMENTED = "Method not found!"
"""What gRPC says itself; who may not know even that has been refused before."""


def wrapped(gate: Gate, method: str, handler: Any) -> Any:
    """A handler that runs `handler` for calls that are let in.  None: for a method that there is not.

    A request is taken apart only after that: nobody else's bytes get to the application's parser.
    """
    if handler is None:
        return grpc.stream_stream_rpc_method_handler(_unknown(gate, method))
    if handler.request_streaming:
        if handler.response_streaming:
            behaviour = _streaming(gate, method, handler.stream_stream, None)
            return grpc.stream_stream_rpc_method_handler(behaviour, handler.request_deserializer, handler.response_serializer)
        behaviour = _single(gate, method, handler.stream_unary, None)
        return grpc.stream_unary_rpc_method_handler(behaviour, handler.request_deserializer, handler.response_serializer)
    parse = handler.request_deserializer or _as_it_is
    if handler.response_streaming:
        behaviour = _streaming(gate, method, handler.unary_stream, parse)
        return grpc.unary_stream_rpc_method_handler(behaviour, None, handler.response_serializer)
    behaviour = _single(gate, method, handler.unary_unary, parse)
    return grpc.unary_unary_rpc_method_handler(behaviour, None, handler.response_serializer)


def _single(gate: Gate, method: str, behaviour: Behaviour, parse: Callable[[bytes], Any] | None) -> Behaviour:
    """One response.  `parse` None: requests are streamed."""

    @functools.wraps(behaviour)
    def run(request: Any, context: Any) -> Any:
        serving, seen = _admit(gate, method, context, None if parse is None else request, streams=parse is None)
        with serving:
            response = behaviour(request if parse is None else _parsed(parse, request, context), seen)
            if seen.unsent:
                seen.send_initial_metadata(())
            return response

    return run


def _streaming(gate: Gate, method: str, behaviour: Behaviour, parse: Callable[[bytes], Any] | None) -> Behaviour:
    @functools.wraps(behaviour)
    def run(request: Any, context: Any) -> Iterator[Any]:
        serving, seen = _admit(gate, method, context, None if parse is None else request, streams=True)
        with serving:
            for response in behaviour(request if parse is None else _parsed(parse, request, context), seen):
                if seen.unsent:
                    seen.send_initial_metadata(())
                yield response

    return run


def _unknown(gate: Gate, method: str) -> Behaviour:
    def run(request: Any, context: Any) -> Iterator[Any]:
        _admit(gate, method, context, None)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, UNIMPLEMENTED)
        yield

    return run


def _admit(gate: Gate, method: str, context: Any, message: bytes | None, *, streams: bool = False) -> tuple[Serving, Seen]:
    """`message` None: requests are streamed; an authorizer sees nothing of them.  Ends the call if it is not let in."""
    try:
        serving = gate.begin(method, context)
        while serving.pending is not None:
            serving.check(framed(message) if message is not None and serving.wanted_body else b"", complete=message is not None)
        return serving, gate.admitted(serving, context, streams=streams)
    except Refused as refused:
        _abort(context, refused)


def _abort(context: Any, refused: Refused) -> NoReturn:
    if refused.metadata:
        context.set_trailing_metadata(refused.metadata)
    context.abort(refused.code, refused.details)
    raise AssertionError("abort raises")


def _parsed(parse: Callable[[bytes], Any], message: bytes, context: Any) -> Any:
    try:
        return parse(message)
    except Exception:
        logger.exception("a request could not be deserialized")
        context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


def _as_it_is(message: bytes) -> bytes:
    return message
