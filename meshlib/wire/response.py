"""What a response consists of, and how long its body is (RFC 9112 section 6.3, read strictly).

A response that two readers could frame differently is refused, not interpreted: both lengths given, a length given twice,
a transfer coding that is not exactly ``chunked``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from meshlib.wire.errors import ProtocolViolation

HeaderPairs = tuple[tuple[bytes, bytes], ...]


class Framing(Enum):
    """What ends a body."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class ResponseHead:
    """Status line and headers.  Immutable by convention: heads are shared by responses whose bytes are the same."""

    __slots__ = ("framing", "headers", "http_version", "keep_alive", "length", "reason", "status")

    def __init__(self, status: int, reason: bytes, http_version: bytes, headers: HeaderPairs) -> None:
        self.status = status
        self.reason = reason
        self.http_version = http_version  # b"HTTP/1.1" or b"HTTP/1.0"
        self.headers = headers  # names as they came
        self.framing, self.length, self.keep_alive = _framing(status, http_version, headers)

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} {self.framing.value}>"


class Informational:
    """A 1xx response: the final one is still to come.  100 asks for the request's body."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: HeaderPairs) -> None:
        self.status = status
        self.headers = headers


class Trailers:
    """Fields after a chunked body.  Kept apart from headers for good: nothing that was decided by headers may change."""

    __slots__ = ("headers",)

    def __init__(self, headers: HeaderPairs) -> None:
        self.headers = headers


class End(Enum):
    """The response is complete."""

    END = "end"


END: Final = End.END

Event = ResponseHead | Informational | bytes | Trailers | End
"""In order: any number of Informational, one ResponseHead, body bytes, perhaps Trailers, END."""

_WITHOUT_BODY: Final = frozenset({204, 304})
_FRAMING_NAME_LENGTHS: Final = frozenset({10, 14, 17})  # connection, content-length, transfer-encoding


def _framing(status: int, http_version: bytes, headers: HeaderPairs) -> tuple[Framing, int, bool]:
    """Framing (for any method but HEAD), body length where it is known, and whether the connection may live on."""
    length = -1
    chunked = False
    options = b""
    for name, value in headers:
        if len(name) not in _FRAMING_NAME_LENGTHS:
            continue
        lowered = name.lower()
        if lowered == b"content-length":
            if length >= 0:
                raise ProtocolViolation("response has content-length more than once")
            length = _length(value)
        elif lowered == b"transfer-encoding":
            if chunked or value.strip().lower() != b"chunked":
                raise ProtocolViolation(f"response has transfer-encoding {value!r}; only chunked, once, is understood")
            chunked = True
        elif lowered == b"connection":
            options += b"," + value.lower()
    modern = http_version == b"HTTP/1.1"
    if chunked and (length >= 0 or not modern):
        raise ProtocolViolation("response has transfer-encoding beside content-length, or in HTTP/1.0")
    keep_alive = _keep_alive(options, modern) if options else modern
    if status in _WITHOUT_BODY or status < 200:
        # A length means bytes that must not come, except in a 304, where it is that of the body not sent again.
        return Framing.NONE, 0, keep_alive and (length <= 0 or status == 304)
    if chunked:
        return Framing.CHUNKED, 0, keep_alive
    if length >= 0:
        return Framing.LENGTH, length, keep_alive
    return Framing.CLOSE, 0, False


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise ProtocolViolation(f"response has content-length {value!r}")
    return int(value)


def _keep_alive(options: bytes, modern: bool) -> bool:
    """RFC 9112 section 9.3."""
    named = {option.strip() for option in options.split(b",")}
    return b"close" not in named and (modern or b"keep-alive" in named)
