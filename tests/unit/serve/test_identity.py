"""Who a client is, and what it may claim (T05, C01)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from google.protobuf.struct_pb2 import Struct

from meshlib import SpiffeId
from meshlib.xds.proto import core_pb2
from meshlib_control.serve.identity import Callers, NotAllowed, check_claims
from meshlib_control.serve.nodes import node_of

SHOP = SpiffeId.of_workload("td1", "prod", "shop")


class Context:
    """What gRPC says of a connection."""

    def __init__(self, properties: Mapping[str, Sequence[bytes]]) -> None:
        self._properties = properties

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return self._properties


def of(*ids: str) -> Context:
    return Context({"peer_spiffe_id": [text.encode() for text in ids]} if ids else {})


def node(**metadata: str) -> core_pb2.Node:
    struct = Struct()
    struct.update(metadata)
    return core_pb2.Node(id="n", user_agent_name="meshlib", metadata=struct)


def test_a_workload_of_the_trust_domain() -> None:
    assert Callers("td1").caller(of(str(SHOP))) == SHOP


def test_without_identities_nobody_is_asked() -> None:
    assert Callers().caller(of()) is None


@pytest.mark.parametrize(
    "ids",
    [
        (),
        ("spiffe://td2/ns/prod/sa/shop",),
        ("spiffe://td1/prod/shop",),
        ("spiffe://td1",),
        ("https://td1/ns/prod/sa/shop",),
        ("spiffe://td1/ns/prod/sa/shop", "spiffe://td1/ns/prod/sa/other"),
        ("spiffe://td1/ns/prod/sa/../shop",),
    ],
)
def test_who_is_no_workload_of_it(ids: tuple[str, ...]) -> None:
    with pytest.raises(NotAllowed):
        Callers("td1").caller(of(*ids))


def test_a_ban_holds_for_one_identity() -> None:
    callers = Callers("td1", is_banned=lambda identity: identity == SHOP)
    with pytest.raises(NotAllowed, match="banned"):
        callers.caller(of(str(SHOP)))
    assert callers.caller(of("spiffe://td1/ns/prod/sa/other")) is not None


def test_T05_the_certificate_decides_what_a_node_sees() -> None:
    assert node_of(node(), SHOP).namespace == "prod"
    assert node_of(node(NAMESPACE="prod", SERVICE_ACCOUNT="shop"), SHOP).service_account == "shop"
    for claim in ({"NAMESPACE": "default"}, {"SERVICE_ACCOUNT": "admin"}, {"NAMESPACE": "prod", "SERVICE_ACCOUNT": "admin"}):
        with pytest.raises(NotAllowed, match="claims"):
            node_of(node(**claim), SHOP)


def test_without_identities_claims_are_all_there_is() -> None:
    assert node_of(node(NAMESPACE="other")).namespace == "other"
    check_claims(None, namespace="other", service_account="anyone")
