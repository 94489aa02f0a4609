"""Node metadata → who is asking.  The keys are Istio's, so that Envoy sidecars and grpcio are configured as there."""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from meshlib import SpiffeId
from meshlib.xds.proto import core_pb2
from meshlib_control.compile.node import Flavour, Node, ServedPort
from meshlib_control.serve.dialects import BadRequest
from meshlib_control.serve.identity import check_claims

MAX_PORTS = 64
"""Ports of one workload: each costs a listener with all of its policies."""

MAX_TEXT = 256
"""Characters of what a client says of itself, and operators get to read."""


def node_of(message: core_pb2.Node, identity: SpiffeId | None = None) -> Node:
    """Who asks.  Namespace and service account are those of `identity`, if there is one; everything else is a claim.

    Raises `NotAllowed` when the metadata claims another namespace or service account (T05), `BadRequest` for metadata that
    make no sense.
    """
    metadata = message.metadata
    namespace, account = _text(metadata, "NAMESPACE"), _text(metadata, "SERVICE_ACCOUNT")
    check_claims(identity, namespace=namespace, service_account=account)
    locality = message.locality
    parts = (locality.region, locality.zone, locality.sub_zone)
    return Node(
        flavour=_flavour(message.user_agent_name),
        id=message.id[:MAX_TEXT],
        service=_text(metadata, "SERVICE")[:MAX_TEXT],
        namespace=identity.namespace if identity else namespace or "default",
        service_account=identity.service_account if identity else account or "default",
        labels=_labels(metadata),
        locality="/".join(parts).rstrip("/"),
        ports=_ports(metadata),
        identity_file=_text(metadata, "IDENTITY_FILE"),
        group=_text(metadata, "WORKLOAD_GROUP")[:MAX_TEXT],
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


def _ports(metadata: Struct) -> tuple[ServedPort, ...]:
    """``PORTS`` of an Envoy that stands before an application: ["9080:8080"]."""
    field = metadata.fields.get("PORTS")
    if field is None:
        return ()
    values = field.list_value.values
    if len(values) > MAX_PORTS:
        raise BadRequest(f"PORTS in the node's metadata: {len(values)}, more than {MAX_PORTS}")
    try:
        return tuple(ServedPort.parse(value.string_value) for value in values)
    except ValueError as error:
        raise BadRequest(f"PORTS in the node's metadata: {error}") from error
