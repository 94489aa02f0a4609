"""AuthorizationPolicy: who may send which requests to a workload."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, field

from meshlib_control.config.kinds.common import Element, PolicyTargetReference
from meshlib_control.config.kinds.destination_rule import WorkloadSelector

Strings = tuple[str, ...]
ServiceAccounts = Annotated[tuple[Annotated[str, Meta(max_length=320)], ...], Meta(max_length=16)]


class Source(Element, frozen=True):
    """Where a request comes from. All fields that are given have to match; in a list, any value."""

    principals: Strings = ()
    """Verified identities: `cluster.local/ns/default/sa/productpage`, without `spiffe://`. Needs mutual TLS."""
    not_principals: Strings = ()
    """None of these identities."""
    request_principals: Strings = ()
    """Identities of a token: issuer, slash, subject. Needs a RequestAuthentication."""
    not_request_principals: Strings = ()
    """None of these."""
    namespaces: Strings = ()
    """Namespaces of the verified identity. Needs mutual TLS."""
    not_namespaces: Strings = ()
    """None of these."""
    service_accounts: ServiceAccounts = ()
    """Service accounts, `namespace/name`, or `name` of the policy's own namespace; no wildcards. Needs mutual TLS."""
    not_service_accounts: ServiceAccounts = ()
    """None of these."""
    trust_domains: Strings = ()
    """Trust domains of the verified identity. Needs mutual TLS."""
    not_trust_domains: Strings = ()
    """None of these."""
    ip_blocks: Strings = ()
    """Addresses and networks of the connection's other end."""
    not_ip_blocks: Strings = ()
    """None of these."""
    remote_ip_blocks: Strings = ()
    """Addresses and networks of the client, as trusted proxies forward them."""
    not_remote_ip_blocks: Strings = ()
    """None of these."""


class From(Element, frozen=True):
    """One source."""

    source: Source | None = None
    """The source; has to be given."""


class Operation(Element, frozen=True):
    """What is asked for. All fields that are given have to match; in a list, any value."""

    hosts: Strings = ()
    """Host names, in any case."""
    not_hosts: Strings = ()
    """None of these."""
    ports: Strings = ()
    """Ports of the workload, as strings."""
    not_ports: Strings = ()
    """None of these."""
    methods: Strings = ()
    """HTTP methods; `POST` for gRPC."""
    not_methods: Strings = ()
    """None of these."""
    paths: Strings = ()
    """Paths without query, after normalization; `{*}` stands for one segment, `{**}` for any number of them."""
    not_paths: Strings = ()
    """None of these."""


class To(Element, frozen=True):
    """One operation."""

    operation: Operation | None = None
    """The operation; has to be given."""


class Condition(Element, frozen=True):
    """A further condition on an attribute."""

    key: str
    """`request.headers[NAME]`, `source.ip`, `remote.ip`, `source.namespace`, `source.principal`, `source.serviceAccount`,
    `source.trustDomain`, `request.auth.principal`, `request.auth.audiences`, `request.auth.presenter`,
    `request.auth.claims[NAME]` (`[A][B]` for nested claims), `destination.ip`, `destination.port`, `connection.sni`
    or `experimental.envoy.filters.FILTER[KEY]`."""
    values: Strings = ()
    """Any of these."""
    not_values: Strings = ()
    """None of these."""


class Rule(Element, frozen=True):
    """Matches when one of `from`, one of `to` and all of `when` do; what is left out matches everything."""

    from_: Annotated[tuple[From, ...], Meta(max_length=512)] | None = field(name="from", default=None)
    """Sources; any of them."""
    to: tuple[To, ...] | None = None
    """Operations; any of them."""
    when: tuple[Condition, ...] = ()
    """Conditions; all of them."""


class ExtensionProviderReference(Element, frozen=True):
    """Who decides."""

    name: str = ""
    """One of MeshConfig's `extensionProviders`; has to be given."""


class AuthorizationPolicy(Element, frozen=True):
    """Who may send which requests to a workload. In the root namespace it holds for all namespaces.

    CUSTOM policies are asked first, then DENY, then ALLOW; a workload with ALLOW policies refuses what none of them allows.
    Values may start or end with `*`. The annotation `istio.io/dry-run: "true"` evaluates and reports without enforcing.
    """

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("selector", "targetRef", "targetRefs"),)

    selector: WorkloadSelector | None = None
    """The workloads that it is for: all of the namespace unless given."""
    target_ref: PolicyTargetReference | None = None
    """A gateway or waypoint. The policy is for that alone, and so for no workload of this mesh."""
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Meta(max_length=16)] = ()
    """Gateways or waypoints, as `targetRef`."""
    rules: Annotated[tuple[Rule, ...], Meta(max_length=512)] = ()
    """Matches when any of them does. Without rules it never matches: ALLOW without rules refuses everything."""
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    """What it means that the policy matches. `CUSTOM`: the provider is asked."""
    provider: ExtensionProviderReference | None = None
    """Who is asked, for `CUSTOM`."""
