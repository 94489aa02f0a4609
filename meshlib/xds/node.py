"""Who asks, as the control service reads it: the keys of Istio's node metadata, the same for every kind of data plane."""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from meshlib.model.workload import Workload
from meshlib.xds.proto import core_pb2

USER_AGENT = "meshlib"
"""Chooses our generator on the control service, as ``envoy`` and ``gRPC C-core ...`` choose theirs."""


def node_message(workload: Workload, *, instance: str = "", version: str = "") -> core_pb2.Node:
    """The xDS node of `workload`.

    `instance` replaces the workload's own: a forked child is another client of the control service.  What is in the
    metadata is a claim: with identities configured the control service believes the certificate instead, and refuses who claims
    something else; what a workload was not told it does not claim.
    """
    claims = {"NAMESPACE": workload.namespace, "SERVICE": workload.service, "SERVICE_ACCOUNT": workload.service_account}
    claims["WORKLOAD_GROUP"] = workload.group
    metadata = Struct()
    metadata.update({name: value for name, value in claims.items() if value})
    metadata.update({"LABELS": dict(workload.labels)})
    locality = workload.locality
    return core_pb2.Node(
        id=instance or workload.instance,
        cluster=f"{workload.service or workload.service_account or 'client'}.{workload.namespace or 'default'}",
        metadata=metadata,
        locality=core_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.sub_zone),
        user_agent_name=USER_AGENT,
        user_agent_version=version,
    )
