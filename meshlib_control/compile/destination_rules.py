"""DestinationRule: which one holds for a call, and what policy comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

from meshlib_control.catalog.model import Service
from meshlib_control.compile.hosts import is_wildcard, matches, most_specific
from meshlib_control.compile.locality import NO_TRAITS, CallerTraits, LocalitySetting, asked_traits, effective_setting
from meshlib_control.compile.mesh_settings import MeshSettings, is_exported
from meshlib_control.config.kinds import (
    ClientTLSSettings,
    ConnectionPool,
    DestinationRule,
    LoadBalancer,
    OutlierDetection,
    PortTrafficPolicy,
    RetryBudget,
    Subset,
    TrafficPolicy,
)
from meshlib_control.config.model import ConfigResource

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A DestinationRule with its host resolved, or several of one namespace and host merged into one."""

    namespace: str
    host: str
    export_to: tuple[str, ...]
    selector: tuple[tuple[str, str], ...] = ()  # labels of the callers that it is for; none: all
    policy: TrafficPolicy | None = None
    subsets: Mapping[str, Subset] | None = None

    def subset(self, name: str) -> Subset | None:
        return (self.subsets or {}).get(name)


@dataclass(frozen=True, slots=True)
class Policy:
    """The traffic policy of one subset and port."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    retry_budget: RetryBudget | None = None
    tls: ClientTLSSettings | None = None
    outlier_detection: OutlierDetection | None = None


class DestinationRules:
    """All rules, merged as Istio merges them: same namespace, host, visibility and selector; the oldest policy holds,
    subsets add up, the oldest of a name holds.
    """

    def __init__(self, resources: Iterable[ConfigResource], resolve: Callable[[str, str], str], settings: MeshSettings) -> None:
        self._settings = settings
        merged: dict[tuple[object, ...], Rule] = {}
        for resource in resources:
            spec = resource.spec
            if isinstance(spec, DestinationRule):
                rule = _rule(resource, spec, resolve(spec.host, resource.key.namespace), settings)
                key = (rule.namespace, rule.host, frozenset(rule.export_to), rule.selector)
                merged[key] = _merged(merged[key], rule) if key in merged else rule
        by_namespace: dict[str, dict[str, tuple[Rule, ...]]] = {}
        for rule in merged.values():
            hosts = by_namespace.setdefault(rule.namespace, {})
            hosts[rule.host] = (*hosts.get(rule.host, ()), rule)
        self._by_namespace = by_namespace
        self._wildcards = {
            owner: tuple(pattern for pattern in hosts if is_wildcard(pattern)) for owner, hosts in by_namespace.items()
        }
        self.selector_keys = frozenset(key for rule in merged.values() for key, _ in rule.selector)
        """Labels of callers that some rule asks for."""
        self._traits = _traits_by_visibility(merged.values(), settings.locality)
        self._traits_failing_over = _traits_by_visibility(merged.values(), settings.locality, failing_over=True)

    def asked_traits(self, namespace: str, *, failing_over: bool = False) -> CallerTraits:
        """What of callers in `namespace` decides the order of the endpoints that they get.

        `failing_over`: failures of some endpoints are noticed by other means than these rules.
        """
        visible = (
            traits
            for (owner, export_to), traits in (self._traits_failing_over if failing_over else self._traits).items()
            if owner == namespace or is_exported(export_to, owner, namespace)
        )
        everywhere = asked_traits(effective_setting(self._settings.locality, None), failing_over=failing_over)
        return reduce(or_, visible, everywhere)

    def holding_for(self, service: Service, namespace: str, labels: Labels) -> Rule | None:
        """The rule for calls from `namespace`: the caller's namespace, then the service's, then the root's."""
        root = self._settings.root_namespace
        if (own := self._narrowest(namespace, service.host, labels)) is not None:
            return own
        for owner in dict.fromkeys((service.namespace, root)):
            if owner != namespace and (rule := self._narrowest(owner, service.host, labels, seen_from=namespace)):
                return rule
        return None

    def _narrowest(self, owner: str, host: str, labels: Labels, seen_from: str | None = None) -> Rule | None:
        """Among the rules of namespace `owner`, the one with the narrowest host; one for these callers comes first."""
        usable: dict[str, list[Rule]] = {}
        for pattern, rules in self._covering(owner, host):
            for rule in rules:
                foreign = seen_from is not None
                if foreign and (rule.selector or not is_exported(rule.export_to, owner, seen_from or "")):
                    continue  # selectors choose among the callers of the rule's own namespace
                if set(rule.selector) <= set(labels.items()):
                    usable.setdefault(pattern, []).append(rule)
        chosen = most_specific(usable, host)
        if chosen is None:
            return None
        return max(usable[chosen], key=lambda rule: bool(rule.selector))

    def _covering(self, owner: str, host: str) -> Iterator[tuple[str, tuple[Rule, ...]]]:
        hosts = self._by_namespace.get(owner, {})
        if host in hosts:
            yield host, hosts[host]
        for pattern in self._wildcards.get(owner, ()):
            if pattern != host and matches(pattern, host):
                yield pattern, hosts[pattern]

    def subset_names(self, host: str) -> frozenset[str]:
        """Subsets of `host` in any rule, whoever sees it."""
        return frozenset(
            name
            for owner in self._by_namespace
            for _, rules in self._covering(owner, host)
            for rule in rules
            for name in rule.subsets or ()
        )


def _rule(resource: ConfigResource, spec: DestinationRule, host: str, settings: MeshSettings) -> Rule:
    selector = spec.workload_selector.match_labels if spec.workload_selector else {}
    return Rule(
        namespace=resource.key.namespace,
        host=host,
        export_to=spec.export_to or settings.destination_rule_export_to,
        selector=tuple(sorted(selector.items())),
        policy=spec.traffic_policy,
        subsets={subset.name: subset for subset in reversed(spec.subsets)},
    )


def _merged(older: Rule, newer: Rule) -> Rule:
    return replace(older, policy=older.policy or newer.policy, subsets={**(newer.subsets or {}), **(older.subsets or {})})


def policy_of(rule: Rule | None, subset: Subset | None, port: int) -> Policy:
    """What holds for one port of a host or subset.

    A subset's elements replace the host's one by one; the settings of a single port replace all of their own level.
    """
    policy = Policy()
    if rule is not None and rule.policy is not None:
        policy = _overlaid(policy, rule.policy, port)
    if subset is not None and subset.traffic_policy is not None:
        policy = _overlaid(policy, subset.traffic_policy, port)
    return policy


def _overlaid(below: Policy, above: TrafficPolicy, port: int) -> Policy:
    policy = Policy(
        load_balancer=above.load_balancer or below.load_balancer,
        connection_pool=above.connection_pool or below.connection_pool,
        retry_budget=above.retry_budget or below.retry_budget,
        tls=above.tls or below.tls,
        outlier_detection=above.outlier_detection or below.outlier_detection,
    )
    for level in above.port_level_settings:
        if level.port is not None and level.port.number == port:
            # Not inherited: what the port's settings leave out has its default (destination_rule.proto).
            return replace(
                policy,
                load_balancer=level.load_balancer,
                connection_pool=level.connection_pool,
                tls=level.tls,
                outlier_detection=level.outlier_detection,
            )
    return policy


_Visibility = tuple[str, tuple[str, ...]]  # namespace, exportTo


def _traits_by_visibility(
    rules: Iterable[Rule], mesh: LocalitySetting, *, failing_over: bool = False
) -> dict[_Visibility, CallerTraits]:
    """What the rules ask of callers; many rules come down to a few entries, most of them to none."""
    found: dict[_Visibility, CallerTraits] = {}
    for rule in rules:
        levels = list(_levels(rule))
        # A level that says nothing of either inherits what another one says.
        noticed = failing_over or any(level.outlier_detection is not None for level in levels)
        balancers = [None, *(level.load_balancer for level in levels if level.load_balancer is not None)]
        for balancer in balancers:
            traits = asked_traits(effective_setting(mesh, balancer), failing_over=noticed)
            if traits != NO_TRAITS:
                key = (rule.namespace, rule.export_to)
                found[key] = found.get(key, NO_TRAITS) | traits
    return found


def _levels(rule: Rule) -> Iterator[TrafficPolicy | PortTrafficPolicy]:
    policies = (rule.policy, *(subset.traffic_policy for subset in (rule.subsets or {}).values()))
    for policy in policies:
        if policy is not None:
            yield policy
            yield from policy.port_level_settings
