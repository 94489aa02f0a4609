"""Whatever may be written as a policy is a listener that workloads accept: a policy that is refused there protects nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from meshlib.xds.decode import decode
from meshlib.xds.invalid import ResourceInvalid
from meshlib.xds.json import from_json
from meshlib.xds.types import LISTENER
from meshlib_control.catalog.model import CatalogSnapshot
from meshlib_control.compile.inbound import inbound_listener, inbound_name
from meshlib_control.compile.trust import Trust
from meshlib_control.compile.world import World
from meshlib_control.config import CODES, ConfigSet, Severity, load
from tests.unit.compile.authz import GRPC_PROVIDER, scope_in, tcp_filters

TEXT = st.text(alphabet='abZ019-._/*{}[]:@%é "\\', min_size=1, max_size=12)
TEXTS = st.lists(TEXT, min_size=1, max_size=3)
ADDRESSES = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.0/8", "10.1.2.3/16", "::1", "fd00::/8", "0.0.0.0/0"]), min_size=1)
PORTS = st.lists(st.integers(0, 70000).map(str), min_size=1, max_size=3)
PATHS = st.lists(TEXT | st.lists(st.sampled_from(["", "a", "{*}", "{**}", "b*", "é"])).map("/".join), min_size=1, max_size=3)
NAMES = st.sampled_from(["x-a", "X_B", ":authority", ":scheme", "grpc-x", "a b", "a][b", "a]b[c", "a.b"])
ATTRIBUTES = [
    "source.ip", "remote.ip", "destination.ip", "destination.port", "connection.sni",
    "source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain",
    "request.auth.audiences", "request.auth.principal",
]  # fmt: skip
BRACKETED = st.sampled_from(["request.headers", "request.auth.claims", "experimental.envoy.filters.x"])
KEYS = st.sampled_from(ATTRIBUTES) | st.builds("{}[{}]".format, BRACKETED, NAMES)


def element(**lists: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Each of the lists, or its negation, may be given."""
    both = {**lists, **{f"not{name[0].upper()}{name[1:]}": values for name, values in lists.items()}}
    return st.fixed_dictionaries({}, optional=both)


SOURCES = element(
    principals=TEXTS,
    requestPrincipals=TEXTS,
    namespaces=TEXTS,
    trustDomains=TEXTS,
    ipBlocks=ADDRESSES,
    remoteIpBlocks=ADDRESSES,
) | element(serviceAccounts=TEXTS)
OPERATIONS = element(hosts=TEXTS, ports=PORTS, methods=TEXTS, paths=PATHS)
CONDITIONS = st.fixed_dictionaries({"key": KEYS}, optional={"values": TEXTS | PORTS | ADDRESSES, "notValues": TEXTS})
RULES = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(st.fixed_dictionaries({"source": SOURCES}), min_size=1, max_size=2),
        "to": st.lists(st.fixed_dictionaries({"operation": OPERATIONS}), min_size=1, max_size=2),
        "when": st.lists(CONDITIONS, min_size=1, max_size=2),
    },
)
SPECS = st.fixed_dictionaries(
    {"action": st.sampled_from(["ALLOW", "DENY", "AUDIT"])}, optional={"rules": st.lists(RULES, max_size=2)}
)


def refused(findings: list[Any]) -> bool:
    return any(item.severity is Severity.ERROR and item.code in CODES for item in findings)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(SPECS, st.booleans())
def test_valid_policies_are_accepted_by_workloads(spec: dict[str, Any], aliases: bool) -> None:
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "foo"},
        "spec": spec,
    }
    resources, findings = load([("p.json", json.dumps(document)), ("mesh.yaml", GRPC_PROVIDER)])
    assume(not refused(findings))
    world = World.of(ConfigSet(resources), CatalogSnapshot(), trust=Trust("td", ("cluster.local",)) if aliases else None)
    listener = inbound_listener(world, scope_in(world), inbound_name(8080))
    assert listener is not None
    try:
        decode(LISTENER, listener.SerializeToString())
    except ResourceInvalid as error:
        raise AssertionError(f"{spec} is refused: {error}") from error
    for item in tcp_filters(world):
        config = item["typed_config"]
        assert isinstance(config, dict)
        from_json(config)
