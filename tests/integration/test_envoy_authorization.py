"""Real Envoy judges requests by the filters that policies become, and the data plane by the same ones: they agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshlib.lowlevel import Connection, Peer, ServerRequest, SpiffeId, authorize
from meshlib_control.compile import Node, World, scope_of
from meshlib_control.compile.inbound import inbound_listener, inbound_name
from tests.integration.test_envoy_mtls import DOMAIN, MODE, SERVED, TRUST, Protected, protected
from tests.support.configuring import world
from tests.unit.config.support import CORPORA

pytestmark = pytest.mark.envoy

POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/alice]}}]
    to: [{operation: {methods: [GET, "PO*"], paths: ["/a/*", "/items/{*}/parts/{**}"]}}]
    when: [{key: "request.headers[x-role]", values: ["adm*"], notValues: [adm-ex]}]
  - from: [{source: {serviceAccounts: [bob]}}]
    to: [{operation: {hosts: ["TES*"], notPaths: ["*.secret"], notPorts: ["1"]}}]
  - from: [{source: {trustDomains: ["cluster*"], namespaces: ["def*"], notServiceAccounts: [alice, bob]}}]
    to: [{operation: {paths: ["/open"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: ["/a/forbidden"]}}]
  - when: [{key: "request.headers[x-bad]", values: ["*"]}]
  - from: [{source: {principals: ["*/sa/mallory"]}}]
"""

ADMIN = {"x-role": "admin"}
REQUESTS = [
    ("alice", "/a/x", ADMIN, 200),
    ("alice", "/a/x?y=1", ADMIN, 200),
    ("alice", "/items/7/parts/1/2", ADMIN, 200),
    ("alice", "/items/7/8/parts/1", ADMIN, 403),
    ("alice", "/a/x", {}, 403),
    ("alice", "/a/x", {"x-role": "adm-ex"}, 403),
    ("alice", "/a/x", {"x-role": "user"}, 403),
    ("alice", "/b", ADMIN, 403),
    ("alice", "/a/forbidden", ADMIN, 403),
    ("alice", "/a/b/../forbidden", ADMIN, 403),
    ("alice", "/a/x", {**ADMIN, "x-bad": "1"}, 403),
    ("alice", "/open", {}, 403),
    ("bob", "/anything", {}, 200),
    ("bob", "/top.secret", {}, 403),
    ("bob", "/top.secret/", {}, 200),
    ("carol", "/open", {}, 200),
    ("carol", "/open/", {}, 403),
    ("mallory", "/open", {}, 403),
    ("", "/open", {}, 403),
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    with protected(tmp_path_factory.mktemp("guarded"), MODE % "PERMISSIVE", POLICIES) as found:
        yield found


def by_envoy(guarded: Protected, account: str, path: str, headers: dict[str, str]) -> int:
    if not account:
        return guarded.get_plain(path).status
    return guarded.get(DOMAIN.leaf(account), path, **headers).status


def in_process(current: World, account: str, path: str, headers: dict[str, str]) -> int:
    listener = inbound_listener(current, scope_of(current, Node(labels={"app": "reviews"})), inbound_name(SERVED))
    assert listener is not None
    peer = Peer(SpiffeId.parse(f"spiffe://cluster.local/ns/default/sa/{account}")) if account else None
    connection = Connection(remote_address="127.0.0.1", local_port=SERVED, tls=peer is not None, peer=peer)
    raw = [(name.encode(), value.encode()) for name, value in {"host": "tests", **headers}.items()]
    found = authorize(listener.SerializeToString(), ServerRequest("GET", path.encode(), raw, connection=connection), now=0.0)
    return 200 if found.outcome == "allowed" else found.status


@pytest.mark.parametrize(("account", "path", "headers", "status"), REQUESTS)
def test_envoy_and_the_data_plane_agree(
    guarded: Protected, account: str, path: str, headers: dict[str, str], status: int
) -> None:
    current = world(MODE % "PERMISSIVE", POLICIES, trust=TRUST)
    assert in_process(current, account, path, headers) == status
    assert by_envoy(guarded, account, path, headers) == status


def test_envoy_takes_every_field_of_a_policy(tmp_path: Path) -> None:
    """A NACK would fail the fixture."""
    case = CORPORA / "authz" / "http" / "allow-full-rule-in.yaml"
    if not case.exists():
        pytest.skip("Istio's cases are not here")
    text = case.read_text().replace("namespace: foo", "namespace: default").replace("      version: v1\n", "")
    text = text.replace("app: httpbin", "app: reviews")
    with protected(tmp_path, MODE % "PERMISSIVE", text) as found:
        assert found.get_plain("/").status == 403
