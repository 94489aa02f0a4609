"""What a route does to response headers, on the call objects of gRPC's own.

Callers expect those very objects, and gRPC's interceptors check for them: so such an object becomes one of a subclass, which
answers one question differently.  Only the initial metadata are response headers; a failure without any has none, and trailers
stay as they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import grpc.aio

from meshlib.lowlevel import GrpcTry
from meshlib_integrations._grpc_server import Metadatum


def edited(call: Any, current: GrpcTry) -> Any:
    """`call`, whose initial metadata are as the route wants them."""
    if current.edit is not None:
        call.meshlib_try = current
        kind: Any = type(call)
        call.__class__ = _editing(kind)
    return call


def aedited(call: Any, current: GrpcTry) -> Any:
    """`edited` for `grpc.aio`."""
    if current.edit is not None:
        call.meshlib_try = current
        kind: Any = type(call)
        call.__class__ = _aediting(kind)
    return call


@cache
def _editing(kind: Any) -> Any:
    def initial_metadata(call: Any) -> Any:
        found = call.meshlib_try.response_metadata(kind.initial_metadata(call) or ())
        return tuple(Metadatum(name, value) for name, value in found)

    return type(kind.__name__, (kind,), {"initial_metadata": initial_metadata})


@cache
def _aediting(kind: Any) -> Any:
    async def initial_metadata(call: Any) -> Any:
        return grpc.aio.Metadata(*call.meshlib_try.response_metadata(await kind.initial_metadata(call) or ()))

    return type(kind.__name__, (kind,), {"initial_metadata": initial_metadata})
