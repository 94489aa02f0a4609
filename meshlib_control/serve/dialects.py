"""Delta and state-of-the-world: two ways to say the same, brought to one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import DecodeError

from meshlib.xds import wire
from meshlib.xds.proto.core_pb2 import Node
from meshlib.xds.proto.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from meshlib.xds.types import CLUSTER, LISTENER
from meshlib_control.errors import ControlServiceError
from meshlib_control.serve.cache import Packed

WILDCARD = "*"

MAX_ERROR = 1000
"""Characters of a client's reason for a NACK: it is kept, and shown to operators."""


class BadRequest(ControlServiceError):
    """A client sent what no xDS client may send; its stream is ended with INVALID_ARGUMENT."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of either dialect.

    `names`: the complete subscription (state-of-the-world), else None and `subscribe`/`unsubscribe` say what changes.
    `versions`: what the client already has; in state-of-the-world one version for all, under ``*``.
    """

    type_url: str
    node: Node | None = None
    names: frozenset[str] | None = None
    subscribe: frozenset[str] = frozenset()
    unsubscribe: frozenset[str] = frozenset()
    versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str = ""  # of a NACK


class Dialect(Protocol):
    """How to read requests and to build responses."""

    @property
    def says_removed(self) -> bool:
        """Can a response name what is gone?"""
        ...

    @property
    def complete_types(self) -> frozenset[str]:
        """Types whose every response lists all that exists: what is left out is thereby deleted."""
        ...

    def read(self, data: bytes) -> Request:
        """Raises `BadRequest`."""
        ...

    def frame(self, packed: Packed) -> bytes: ...

    def response(
        self, type_url: str, nonce: str, frames: Iterable[bytes], removed: Iterable[str], version: str, /
    ) -> bytes: ...


class Delta:
    """``DeltaAggregatedResources``."""

    says_removed = True
    complete_types: frozenset[str] = frozenset()

    def read(self, data: bytes) -> Request:
        try:
            request = DeltaDiscoveryRequest.FromString(data)
        except DecodeError as error:
            raise BadRequest(f"{len(data)} bytes that are not a DeltaDiscoveryRequest: {error}") from error
        versions = request.initial_resource_versions  # thousands of them after a restart, and dict(...) takes longer
        return Request(
            request.type_url,
            node=request.node if request.HasField("node") else None,
            subscribe=frozenset(request.resource_names_subscribe),
            unsubscribe=frozenset(request.resource_names_unsubscribe),
            versions={name: versions[name] for name in versions},
            nonce=request.response_nonce,
            error=_error(request),
        )

    def frame(self, packed: Packed) -> bytes:
        return packed.delta_frame

    def response(self, type_url: str, nonce: str, frames: Iterable[bytes], removed: Iterable[str], version: str, /) -> bytes:
        return wire.delta_response(type_url, nonce, frames=frames, removed=removed, version=version)


class StateOfTheWorld:
    """``StreamAggregatedResources``."""

    says_removed = False
    complete_types = frozenset((CLUSTER, LISTENER))

    def read(self, data: bytes) -> Request:
        try:
            request = DiscoveryRequest.FromString(data)
        except DecodeError as error:
            raise BadRequest(f"{len(data)} bytes that are not a DiscoveryRequest: {error}") from error
        return Request(
            request.type_url,
            node=request.node if request.HasField("node") else None,
            names=frozenset(request.resource_names),
            versions={WILDCARD: request.version_info} if request.version_info else {},
            nonce=request.response_nonce,
            error=_error(request),
        )

    def frame(self, packed: Packed) -> bytes:
        return packed.sotw_frame

    def response(self, type_url: str, nonce: str, frames: Iterable[bytes], removed: Iterable[str], version: str, /) -> bytes:
        # There are no removals here: what is gone is left out (LDS, CDS), or nobody refers to it any more (RDS, EDS).
        return wire.sotw_response(type_url, nonce, frames=frames, version=version)


DELTA: Dialect = Delta()
STATE_OF_THE_WORLD: Dialect = StateOfTheWorld()


def _error(request: DeltaDiscoveryRequest | DiscoveryRequest) -> str:
    if not request.HasField("error_detail"):
        return ""
    return request.error_detail.message[:MAX_ERROR] or f"refused with code {request.error_detail.code} and no message"
