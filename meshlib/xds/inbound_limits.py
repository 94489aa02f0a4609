"""``meshlib.policy.v1.InboundLimits`` → model."""

from __future__ import annotations

from typing import Final

from google.protobuf.wrappers_pb2 import UInt32Value

from meshlib.model.inbound_limits import InboundLimits
from meshlib.xds.proto import inbound_limits_pb2

FILTER: Final = "meshlib.filters.http.inbound_limits"


def decode_inbound_limits(message: inbound_limits_pb2.InboundLimits) -> InboundLimits:
    """Every number is one that can be executed: nothing here is refused."""

    def limit(name: str) -> int | None:
        if not message.HasField(name):
            return None
        value: UInt32Value = getattr(message, name)
        return value.value

    return InboundLimits(limit("max_requests"), limit("max_active"), limit("max_pending"))
