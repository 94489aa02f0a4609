"""Node metadata → who is asking.  The keys are Istio's, so that Envoy sidecars and grpcio are configured as there."""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from meshlib.xds.proto import core_pb2
from meshlib_control.compile.node import Flavour, Node


def node_of(message: core_pb2.Node) -> Node:
    """What the client claims to be.  Claims only: where identities are configured, the certificate decides."""
    metadata = message.metadata
    locality = message.locality
    parts = (locality.region, locality.zone, locality.sub_zone)
    return Node(
        flavour=_flavour(message.user_agent_name),
        id=message.id,
        service=_text(metadata, "SERVICE"),
        namespace=_text(metadata, "NAMESPACE") or "default",
        service_account=_text(metadata, "SERVICE_ACCOUNT") or "default",
        labels=_labels(metadata),
        locality="/".join(parts).rstrip("/"),
    )


def _flavour(user_agent: str) -> Flavour:
    if user_agent == "meshlib":
        return "meshlib"
    # "gRPC C-core linux", "gRPC Go", "gRPC-java": proxyless gRPC, whatever the language.
    return "grpc" if user_agent.startswith("gRPC") else "envoy"


def _text(metadata: Struct, key: str) -> str:
    field = metadata.fields.get(key)
    return field.string_value if field is not None else ""


def _labels(metadata: Struct) -> dict[str, str]:
    field = metadata.fields.get("LABELS")
    if field is None:
        return {}
    labels = sorted(field.struct_value.fields.items())
    return {key: value.string_value for key, value in labels if value.HasField("string_value")}
