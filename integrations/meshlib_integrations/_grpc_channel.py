"""What the channels of `grpc` and `grpc_aio` have in common."""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

import grpc

from meshlib.errors import MeshError, RateLimited, RequestError, TimeoutExceeded
from meshlib.lowlevel import GrpcCall, RouteAnswers, authority_of
from meshlib_integrations._errors import Translation

Options = tuple[tuple[str, Any], ...]

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Method(NamedTuple):
    """One method of a stub."""

    path: str  # "/package.Service/Method"
    serializer: Any
    deserializer: Any


def authority(target: str) -> str:
    """``ratings`` or ``ratings:9080`` as the mesh names it.  Raises RequestError for what only gRPC's resolvers know."""
    name, colon, port = target.rpartition(":")
    if "/" in target or (colon and not port.isdigit() and not target.endswith("]")):
        raise RequestError(f"{target!r}: a mesh's channel goes to a host of the mesh; expected 'ratings' or 'ratings:9080'")
    has_port = colon and port.isdigit()
    return authority_of(name if has_port else target, int(port) if has_port else None, "http")


def asked(target: str, path: str, metadata: Any, timeout: float | None, **more: Any) -> GrpcCall:
    """A call as the data plane takes it."""
    return GrpcCall(target, path, tuple((name, value) for name, value in metadata or ()), timeout, **more)


def code_of(error: MeshError) -> grpc.StatusCode:
    """What a stub's caller sees of an error of the mesh's."""
    if isinstance(error, TimeoutExceeded):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if isinstance(error, RouteAnswers):
        return CODES.get(error.grpc_status, grpc.StatusCode.UNKNOWN)
    if isinstance(error, RateLimited):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if isinstance(error, RequestError):
        return grpc.StatusCode.INTERNAL
    return grpc.StatusCode.UNAVAILABLE


def pushback(error: object) -> tuple[tuple[str, str], ...]:
    """Trailing metadata of a call that was refused: how long gRPC's own retries are to wait (gRFC A6)."""
    seconds = error.retry_after if isinstance(error, RateLimited) else 0.0
    return (("grpc-retry-pushback-ms", str(max(ceil(seconds * 1000), 1))),) if seconds else ()


def translation(kind: type[Exception]) -> Translation:
    """The mesh's errors as `kind` of gRPC's: ``except grpc.RpcError`` and ``except errors.NoHealthyUpstream`` catch each."""
    return Translation({MeshError: kind}, {})
