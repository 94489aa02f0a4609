"""ASGI's types, and headers added to whatever an application answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from meshlib.lowlevel import RETRIED, RequestContext, Stay

CONNECTION = "meshlib.connection"
"""Key in ``scope["state"]`` of the `meshlib.lowlevel.Connection`; no client can write there."""

CLOSE = (b"connection", b"close")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
"""Any: frameworks write the scope as dict, MutableMapping or TypedDict, and none of these types takes the others' functions."""

_ANSWERS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


def adding(send: Send, headers: Sequence[tuple[bytes, bytes]]) -> Send:
    """`send`, with these headers in the answer beside the application's own."""

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] in _ANSWERS:
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        return send(message)

    return sending


def setting(send: Send, headers: Mapping[bytes, bytes]) -> Send:
    """`send`, with these headers in the answer in the place of the application's own of the same name."""

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] in _ANSWERS:
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in headers]
            message = {**message, "headers": [*kept, *headers.items()]}
        return send(message)

    return sending


def closing(send: Send) -> Send:
    """`send`, telling the client to go elsewhere: to another process, or to another connection.  HTTP/1 only."""

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
            message = {**message, "headers": [*kept, CLOSE]}
        return send(message)

    return sending


def marking(send: Send, context: RequestContext) -> Send:
    """`send`, telling the client not to try again what was tried again behind the application already."""

    def sending(message: Message) -> Awaitable[None]:
        if context.retried and message["type"] == "http.response.start" and message["status"] >= 500:
            message = {**message, "headers": [*message.get("headers", ()), (RETRIED, b"1")]}
        return send(message)

    return sending


def leaving(send: Send, stay: Stay) -> Send:
    """`send`, telling the limits of what is in the application that the answer begins."""

    def sending(message: Message) -> Awaitable[None]:
        if message["type"] in _ANSWERS:
            stay.end(sampled=message["type"] != "websocket.accept")  # how soon that is says nothing about requests
        return send(message)

    return sending
