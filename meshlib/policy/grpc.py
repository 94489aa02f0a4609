"""gRPC's side of things that are HTTP's elsewhere: methods as paths, metadata as headers, statuses as codes."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable

from meshlib.model.call import Headers
from meshlib.model.outcome import Outcome

Metadata = Iterable[tuple[str, str | bytes]]

BINARY = "-bin"
"""Ends the names of metadata whose values are any bytes."""

_SEGMENT = r"[^/?#%;\\\x00-\x20\x7f-\U0010ffff]+"
_METHOD = re.compile(rf"/(?!\.{{1,2}}/){_SEGMENT}/(?!\.{{1,2}}$){_SEGMENT}")
"""``/package.Service/Method`` and no other spelling of it: two segments of visible ASCII without what somebody could decode,
cut off or take for another separator, and neither a step within a path."""

_CODES = {400: 13, 401: 16, 403: 7, 404: 12, 413: 8, 429: 8, 431: 8, 502: 14, 503: 14, 504: 14}
"""HTTP status to gRPC code: gRPC's own table (http-grpc-status-mapping.md), but RESOURCE_EXHAUSTED for what is too much."""

_UNKNOWN = 2


def is_method(path: str) -> bool:
    """Whether a method has its one canonical form.  gRPC has no normalization: another spelling is another method."""
    return _METHOD.fullmatch(path) is not None


def code_of_status(status: int) -> int:
    """The gRPC code for an HTTP status that is not 200."""
    return _CODES.get(status, _UNKNOWN)


def status_of(headers: Headers) -> bytes | None:
    """``grpc-status`` of a response that ended with its headers (trailers only); None: it did not, or is none of gRPC's."""
    for name, value in headers:
        if len(name) == 11 and name.lower() == b"grpc-status":  # nearly no other name has that length
            return value
    return None


def status_in(outcome: Outcome) -> bytes | None:
    """The same of an attempt's response; several want to know it of each."""
    status = outcome.grpc_status
    if status is False:
        status = outcome.grpc_status = status_of(outcome.headers)
    return status


def headers_of(metadata: Metadata) -> Headers:
    """Metadata as it is on the wire: binary values in base64."""
    return [(name.lower().encode("ascii"), _wire_value(name, value)) for name, value in metadata]


def metadata_of(headers: Headers) -> list[tuple[str, str | bytes]]:
    """Headers as metadata.  Raises ValueError for binary values that are no base64."""
    return [_metadatum(name.decode("ascii").lower(), value) for name, value in headers]


def _metadatum(name: str, value: bytes) -> tuple[str, str | bytes]:
    if name.endswith(BINARY):
        return name, b64decode(value + b"=" * (-len(value) % 4))
    return name, value.decode("latin-1")


def _wire_value(name: str, value: str | bytes) -> bytes:
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    return b64encode(value) if name.endswith(BINARY) else value
