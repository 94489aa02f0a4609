"""What the tests of authorization share: policies as text, and the filters that come of them."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from meshlib.xds.json import Json, to_json
from meshlib.xds.proto import listener_pb2
from meshlib_control.catalog.model import CatalogSnapshot, Port, Service
from meshlib_control.compile.authorization import authorization_filters, custom_filters, network_filters
from meshlib_control.compile.node import Flavour, Node, Scope
from meshlib_control.compile.scope import scope_of
from meshlib_control.compile.trust import Trust
from meshlib_control.compile.world import World
from meshlib_control.config import ConfigSet, Severity, load

HOST = "my-custom-ext-authz.foo.svc.cluster.local"
LABELS = {"app": "httpbin", "version": "v1"}

GRPC_PROVIDER = f"""\
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {{name: mesh}}
spec:
  extensionProviders:
  - name: default
    envoyExtAuthzGrpc:
      service: foo/{HOST}
      port: 9000
      timeout: 2ms
      failOpen: true
      statusOnError: "403"
      includeRequestBodyInCheck: {{maxRequestBytes: 4096, allowPartialMessage: true}}
"""

HTTP_PROVIDER = f"""\
apiVersion: meshlib.io/v1
kind: MeshConfig
metadata: {{name: mesh}}
spec:
  extensionProviders:
  - name: default
    envoyExtAuthzHttp:
      service: foo/{HOST}
      port: 9000
      timeout: 10s
      failOpen: true
      statusOnError: "403"
      pathPrefix: /check
      includeRequestHeadersInCheck: [x-custom-id, "x-prefix-*", "*-suffix"]
      includeHeadersInCheck: [not-this]
      includeAdditionalHeadersInCheck: {{x-header-2: value-2, x-header-1: value-1}}
      includeRequestBodyInCheck: {{maxRequestBytes: 2048, allowPartialMessage: true, packAsBytes: true}}
      headersToUpstreamOnAllow: [Authorization, "x-prefix-*", "*-suffix"]
      headersToDownstreamOnDeny: [Set-cookie, "x-prefix-*", "*-suffix"]
      headersToDownstreamOnAllow: [Set-cookie]
"""


def world_of(*texts: str, trust: Trust | None = None, authorizer: bool = True) -> World:
    """A world of these documents, with the authorizer's service in its catalog."""
    resources, findings = load([(f"file{index}.yaml", text) for index, text in enumerate(texts)])
    assert not [str(finding) for finding in findings if finding.severity is Severity.ERROR]
    services = {HOST: Service(HOST, "foo", (Port(9000, "grpc"),))} if authorizer else {}
    return World.of(ConfigSet(resources), CatalogSnapshot(services), trust=trust)


def scope_in(world: World, *, namespace: str = "foo", flavour: Flavour = "meshlib") -> Scope:
    """Of the workload that Istio's cases are about."""
    return scope_of(world, Node(flavour=flavour, namespace=namespace, labels=LABELS))


def http_filters(world: World, *, namespace: str = "foo", flavour: Flavour = "meshlib") -> list[Json]:
    scope = scope_in(world, namespace=namespace, flavour=flavour)
    return shown([*custom_filters(world, scope), *authorization_filters(world, scope)])


def tcp_filters(world: World) -> list[Json]:
    return shown(network_filters(world, scope_in(world)))


def shown(filters: Sequence[Message]) -> list[Json]:
    """Name and configuration of each filter."""
    found: list[Json] = []
    for item in filters:
        assert isinstance(item, listener_pb2.HttpFilter | listener_pb2.Filter)
        found.append(to_json(item))
    return found


def policy(spec: str, name: str = "p", *, namespace: str = "foo", annotations: str = "{}", action: str = "ALLOW") -> str:
    """An AuthorizationPolicy; `spec` in flow style without the braces."""
    return f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}, annotations: {annotations}}}
spec: {{action: {action}, {spec}}}
"""


def rules_of(filters: Sequence[Json], index: int = 0) -> Json:
    """Name to policy, of an RBAC filter."""
    config = filters[index]["typed_config"]
    assert isinstance(config, dict)
    rules = config.get("rules") or config["shadow_rules"]
    found: Json = rules.get("policies", {})
    return found
