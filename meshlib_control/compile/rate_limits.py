"""RateLimitPolicies → limits of calls (in virtual hosts) and of served requests (in inbound listeners).

Only processes of meshlib execute them.  All policies that hold do so together: those of the root namespace first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from meshlib.xds.proto import listener_pb2, rate_limit_pb2, route_pb2
from meshlib.xds.types import pack
from meshlib_control.catalog.model import Service
from meshlib_control.compile.hosts import matches
from meshlib_control.compile.matches import is_for_caller, route_match
from meshlib_control.compile.mesh_settings import MeshSettings, is_exported
from meshlib_control.compile.node import Scope
from meshlib_control.compile.retry_policy import duration
from meshlib_control.config.kinds.rate_limit_policy import RateLimit, RateLimitDescriptor, RateLimitPolicy
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.validate.rate_limit_policy import claim_names

FILTER: Final = "meshlib.filters.http.rate_limit"
EVERYBODY: Final = ("*",)

_Message = rate_limit_pb2.RateLimit


class RateLimitPolicies:
    """All of a configuration, by what they are for."""

    def __init__(self, resources: Iterable[ConfigResource], resolve: Callable[[str, str], str], settings: MeshSettings) -> None:
        self._root = settings.root_namespace
        self._of_workloads: list[ConfigResource] = []
        self._of_calls: list[tuple[str, ConfigResource]] = []  # with the full name of the host
        self._by_name: dict[str, ConfigResource] = {}
        self._hosts: dict[str, str] = {}  # full names, by the names of the policies
        for resource in resources:
            spec: RateLimitPolicy = resource.spec
            self._by_name[policy_name(resource)] = resource
            if spec.host is not None:
                self._hosts[policy_name(resource)] = host = resolve(spec.host, resource.key.namespace)
                self._of_calls.append((host, resource))
            else:
                self._of_workloads.append(resource)
        self.selector_keys = frozenset(key for resource in self._of_workloads for key in _selector(resource.spec)) | frozenset(
            key
            for _, resource in self._of_calls
            for limit in resource.spec.limits
            for match in limit.match
            for key in match.source_labels
        )
        """Labels of workloads and of callers that some policy asks for."""

    def for_workload(self, namespace: str, labels: Mapping[str, str]) -> list[ConfigResource]:
        """Those that hold for the requests that a workload serves."""
        return [
            resource
            for owner in dict.fromkeys((self._root, namespace))
            for resource in self._of_workloads
            if resource.key.namespace == owner and _selector(resource.spec).items() <= labels.items()
        ]

    def for_calls(self, host: str, owner: str, namespace: str) -> list[ConfigResource]:
        """Those that hold for calls from `namespace` to `host`, which is a service of the namespace `owner`.

        Nobody else's: a policy of a third namespace could keep these two from talking.
        """
        return [
            resource
            for source in dict.fromkeys((self._root, owner, namespace))
            for pattern, resource in self._of_calls
            if resource.key.namespace == source
            and is_exported(resource.spec.export_to or EVERYBODY, source, namespace)
            and (pattern == host or matches(pattern, host))
        ]

    def find(
        self, name: str, namespace: str, owner_of: Callable[[str], str | None]
    ) -> tuple[ConfigResource, RateLimitPolicy] | None:
        """The policy of this name (``namespace/name``), if it may hold for a process of `namespace`, whatever its labels.

        `owner_of`: the namespace of the service of a host, as `for_calls` has it.
        """
        resource = self._by_name.get(name)
        if resource is None:
            return None
        spec: RateLimitPolicy = resource.spec
        owner = resource.key.namespace
        if spec.host is not None:
            host = self._hosts[name]
            own = owner in (self._root, namespace) or host.startswith("*") or owner_of(host) == owner
            seen = own and is_exported(spec.export_to or EVERYBODY, owner, namespace)
        else:
            seen = owner in (self._root, namespace)
        return (resource, spec) if seen else None

    def concerning(self, hosts: frozenset[str], namespace: str) -> frozenset[str]:
        """Names of the policies of calls to these hosts, and of what workloads of the namespace serve."""
        calls = (
            resource for pattern, resource in self._of_calls if any(pattern == host or matches(pattern, host) for host in hosts)
        )
        served = (resource for resource in self._of_workloads if resource.key.namespace in (self._root, namespace))
        return frozenset(policy_name(resource) for resource in (*calls, *served))

    def named(self, name: str) -> RateLimitPolicy | None:
        """The policy of this name (``namespace/name``), whoever sees it."""
        resource = self._by_name.get(name)
        return None if resource is None else resource.spec

    def __bool__(self) -> bool:
        return bool(self._by_name)


def bucket_names(limit: RateLimit) -> frozenset[str]:
    """What the parts of a shared bucket's key are called (`meshlib.model.rate_limit.bucket_id`)."""
    return frozenset(f"{index}:{_descriptor_name(descriptor)}" for index, descriptor in enumerate(limit.by))


def _descriptor_name(descriptor: RateLimitDescriptor) -> str:
    if descriptor.attribute is not None:
        return descriptor.attribute.lower()
    if descriptor.header is not None:
        return f"header:{descriptor.header.lower()}"
    return f"claim:{'.'.join(claim_names(descriptor.claim))}" if descriptor.claim is not None else "constant"


def policy_name(resource: ConfigResource) -> str:
    """What processes call a policy: ``namespace/name``."""
    return f"{resource.key.namespace}/{resource.key.name}"


def inbound_limits(policies: RateLimitPolicies, scope: Scope) -> list[listener_pb2.HttpFilter]:
    """The filter of the ports that workloads of this scope serve; none without policies."""
    if scope.flavour != "meshlib":
        return []
    found = policies.for_workload(scope.namespace, dict(scope.labels))
    message = _limits(found, lambda limit: [route_match(match) for match in limit.match])
    return [listener_pb2.HttpFilter(name=FILTER, typed_config=pack(message))] if message is not None else []


def set_call_limits(
    host: route_pb2.VirtualHost,
    policies: RateLimitPolicies,
    scope: Scope,
    called: tuple[str, int],
    service: Service | None,
) -> None:
    """Limits of the calls to one host and port (`called`)."""
    if scope.flavour != "meshlib" or not policies:
        return
    labels = dict(scope.labels)
    name, port = called
    found = policies.for_calls(name, service.namespace if service is not None else "", scope.namespace)

    def conditions(limit: RateLimit) -> list[route_pb2.RouteMatch] | None:
        held = [m for m in limit.match if is_for_caller(m, port=port, namespace=scope.namespace, labels=labels)]
        return [route_match(match) for match in held] if held or not limit.match else None

    message = _limits(found, conditions)
    if message is not None:
        host.typed_per_filter_config[FILTER].CopyFrom(pack(message))


def _limits(
    resources: Iterable[ConfigResource], conditions: Callable[[RateLimit], list[route_pb2.RouteMatch] | None]
) -> rate_limit_pb2.RateLimits | None:
    """`conditions` of a limit; None: it can match nothing here."""
    result = rate_limit_pb2.RateLimits()
    for resource in resources:
        policy = rate_limit_pb2.RateLimitPolicy(name=policy_name(resource))
        for limit in resource.spec.limits:
            found = conditions(limit)
            if found is not None:
                policy.limits.append(_limit(limit, found))
        if policy.limits:
            result.policies.append(policy)
    return result if result.policies else None


def _limit(limit: RateLimit, conditions: Iterable[route_pb2.RouteMatch]) -> _Message:
    message = _Message(name=limit.name, matches=conditions, by=map(_descriptor, limit.by), dry_run=limit.dry_run)
    if limit.quota is not None:
        message.quota.CopyFrom(_Message.Quota(requests=limit.quota.requests, period=limit.quota.period))
    else:
        tokens = limit.tokens or 1
        message.token_bucket.max_tokens = limit.burst or tokens
        message.token_bucket.tokens_per_fill.value = tokens
        message.token_bucket.fill_interval.CopyFrom(duration(limit.interval))
    if limit.quota is not None or limit.scope == "GLOBAL":
        message.scope = _Message.GLOBAL
        fallback = limit.fallback
        message.fallback.CopyFrom(_Message.Fallback(after=duration(fallback.after), action=fallback.action))
    return message


def _descriptor(descriptor: RateLimitDescriptor) -> _Message.Descriptor:
    if descriptor.attribute is not None:
        return _Message.Descriptor(attribute=descriptor.attribute)
    if descriptor.header is not None:
        return _Message.Descriptor(header=descriptor.header.lower())
    if descriptor.claim is not None:
        return _Message.Descriptor(claim=_Message.Descriptor.Claim(path=claim_names(descriptor.claim)))
    return _Message.Descriptor(constant=descriptor.constant or "")


def _selector(spec: RateLimitPolicy) -> dict[str, str]:
    return spec.selector.match_labels if spec.selector is not None else {}
