"""Who a client is, and what it may claim (T05, C01)."""

from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import Struct

from meshlib import SpiffeId
from meshlib.xds.proto import core_pb2
from meshlib_control.ca.errors import CallerRefused
from meshlib_control.serve.identity import Callers, NotAllowed, check_claims
from meshlib_control.serve.nodes import node_of

SHOP = SpiffeId.of_workload("td1", "prod", "shop")
BANNED = SpiffeId.of_workload("td1", "prod", "thief")


def says(identity: str) -> Callers:
    """Callers of a service where certificates say so."""
    return Callers(lambda context: SpiffeId.parse(identity), is_banned=lambda found: found == BANNED)


def node(**metadata: str) -> core_pb2.Node:
    struct = Struct()
    struct.update(metadata)
    return core_pb2.Node(id="n", user_agent_name="meshlib", metadata=struct)


def test_a_workload() -> None:
    assert says(str(SHOP)).caller(None) == SHOP


def test_without_identities_nobody_is_asked() -> None:
    assert Callers().caller(None) is None


@pytest.mark.parametrize("identity", ["spiffe://td1/prod/shop", "spiffe://td1", "spiffe://td1/ns/prod/sa/shop/x", str(BANNED)])
def test_who_is_no_workload_or_banned(identity: str) -> None:
    with pytest.raises(NotAllowed):
        says(identity).caller(None)


def test_a_certificate_that_does_not_hold() -> None:
    def refused(context: object) -> SpiffeId:
        raise CallerRefused("not valid now")

    with pytest.raises(NotAllowed, match="not valid now"):
        Callers(refused).caller(None)


def test_T05_the_certificate_decides_what_a_node_sees() -> None:
    assert node_of(node(), SHOP).namespace == "prod"
    assert node_of(node(NAMESPACE="prod", SERVICE_ACCOUNT="shop"), SHOP).service_account == "shop"
    for claim in ({"NAMESPACE": "default"}, {"SERVICE_ACCOUNT": "admin"}, {"NAMESPACE": "prod", "SERVICE_ACCOUNT": "admin"}):
        with pytest.raises(NotAllowed, match="claims"):
            node_of(node(**claim), SHOP)


def test_without_identities_claims_are_all_there_is() -> None:
    assert node_of(node(NAMESPACE="other")).namespace == "other"
    check_claims(None, namespace="other", service_account="anyone")
