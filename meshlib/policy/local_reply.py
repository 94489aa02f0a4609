"""Responses that no upstream has given, in the form of Envoy's: what a gRPC caller asks for is answered in gRPC's terms."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from meshlib.model.call import Call
from meshlib.policy.matching import is_grpc


class LocalReply(NamedTuple):
    """`headers` include those of the body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def local_reply(call: Call, status: int, body: bytes, *, grpc_status: int | None = None, location: bytes = b"") -> LocalReply:
    """`grpc_status`: what a gRPC caller is told; unless given it follows from `status`."""
    headers = [(b"location", location)] if location else []
    if is_grpc(call):
        code = _CODES.get(status, _UNKNOWN) if grpc_status is None else grpc_status
        headers += [(b"content-type", b"application/grpc"), (b"grpc-status", b"%d" % code)]
        if body and call.method != "HEAD":
            headers.append((b"grpc-message", quote(body, safe=_MESSAGE).encode("ascii")))
        headers.append((b"content-length", b"0"))
        return LocalReply(200, headers, b"")
    if body:
        headers.append((b"content-type", b"text/plain"))
    if status not in _BODILESS:
        headers.append((b"content-length", b"%d" % len(body)))
    return LocalReply(status, headers, b"" if call.method == "HEAD" or status in _BODILESS else body)


GRPC_NAMES = frozenset({b"content-type", b"content-length", b"grpc-status", b"grpc-message"})

_CODES = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_UNKNOWN = 2
_BODILESS = frozenset({204, 304})
_MESSAGE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
"""Visible ASCII but for the percent sign (gRPC over HTTP/2, Percent-Encoded)."""
