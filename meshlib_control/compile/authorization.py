"""AuthorizationPolicies of a workload → RBAC and ext_authz filters, as Istio builds them (pilot/pkg/security/authz/builder).

Order in a filter chain: `custom_filters`, authentication of tokens, `authorization_filters`; on TCP `network_filters`.
The filters tell nothing of ports: one scope's filters are the same on all ports of its workloads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from meshlib.xds.proto import listener_pb2
from meshlib.xds.proto.rbac_pb2 import RBAC, HttpRBAC, NetworkRBAC
from meshlib.xds.types import pack
from meshlib_control.compile import ext_authz
from meshlib_control.compile.authz_rules import Circumstances, compile_rule, never
from meshlib_control.compile.node import Scope
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import AuthorizationPolicy
from meshlib_control.config.kinds.extension_provider import ExtensionProvider
from meshlib_control.config.model import ConfigResource
from meshlib_control.config.validate.authorization_policy import is_dry_run

HTTP_RBAC: Final = "envoy.filters.http.rbac"
HTTP_EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
NETWORK_RBAC: Final = "envoy.filters.network.rbac"
NETWORK_EXT_AUTHZ: Final = "envoy.filters.network.ext_authz"

DRY_RUN_ALLOW: Final = "istio_dry_run_allow_"
DRY_RUN_DENY: Final = "istio_dry_run_deny_"
CUSTOM: Final = "istio_ext_authz_"
MATCHED: Final = "shadow_effective_policy_id"
"""After one of the prefixes above: the metadata in which a filter tells the policy that has matched."""

BAD_CUSTOM: Final = "-deny-due-to-bad-CUSTOM-action"
_TCP_STATISTICS = "tcp."

# As Istio orders them: what is only told, what is refused, what is allowed.
_ACTIONS: Final = (("AUDIT", RBAC.LOG), ("DENY", RBAC.DENY), ("ALLOW", RBAC.ALLOW))


@dataclass(frozen=True, slots=True)
class _Rules:
    """The policies of one action.  None: none of them is enforced, or none is a dry run."""

    enforced: RBAC | None
    dry_run: RBAC | None

    @property
    def prefix(self) -> str:
        """What Istio puts before dry-run results; without any, the one of ALLOW, which is nobody's."""
        if self.dry_run is None or self.dry_run.action == RBAC.ALLOW:
            return DRY_RUN_ALLOW
        return DRY_RUN_DENY if self.dry_run.action == RBAC.DENY else ""


@dataclass(frozen=True, slots=True)
class _Custom:
    """CUSTOM policies of one provider; `provider` None: it cannot be asked, and `rules` refuse instead."""

    rules: RBAC
    prefix: str
    provider: ExtensionProvider | None


def authorization_filters(world: World, scope: Scope) -> list[listener_pb2.HttpFilter]:
    """For requests: AUDIT, DENY, ALLOW; each only if there are policies of that action."""
    if scope.flavour == "grpc":
        return _grpc_filters(world, scope)
    return [
        _http_filter(
            HTTP_RBAC, HttpRBAC(rules=rules.enforced, shadow_rules=rules.dry_run, shadow_rules_stat_prefix=rules.prefix)
        )
        for rules in _Builder(world, scope).plain()
    ]


def custom_filters(world: World, scope: Scope) -> list[listener_pb2.HttpFilter]:
    """For requests that an external authorizer judges: the RBAC filter that says which, and the one that asks.

    Asking is impossible with a bad provider, and with several of them on one workload: what would be asked is refused.
    """
    filters: list[listener_pb2.HttpFilter] = []
    for custom in _Builder(world, scope).customs():
        if scope.flavour == "grpc":
            # gRPC's servers have no ext_authz: what they cannot ask about they refuse.
            filters.append(_http_filter(f"{HTTP_RBAC}.{custom.prefix}", HttpRBAC(rules=custom.rules)))
            continue
        if custom.provider is None:
            filters.append(_http_filter(HTTP_RBAC, HttpRBAC(rules=custom.rules)))
            continue
        condition = ext_authz.Condition(HTTP_RBAC, CUSTOM + MATCHED, custom.prefix)
        filters.append(_http_filter(HTTP_RBAC, HttpRBAC(shadow_rules=custom.rules, shadow_rules_stat_prefix=CUSTOM)))
        filters.append(_http_filter(HTTP_EXT_AUTHZ, ext_authz.http_filter(world, custom.provider, condition)))
    return filters


def network_filters(world: World, scope: Scope) -> list[listener_pb2.Filter]:
    """For TCP connections: CUSTOM with a gRPC provider, AUDIT, DENY, ALLOW."""
    builder = _Builder(world, scope, tcp=True)
    filters: list[listener_pb2.Filter] = []
    for custom in builder.customs():
        if custom.provider is None:
            filters.append(_filter(NETWORK_RBAC, NetworkRBAC(rules=custom.rules, stat_prefix=_TCP_STATISTICS)))
            continue
        condition = ext_authz.Condition(NETWORK_RBAC, CUSTOM + MATCHED, custom.prefix)
        asking = ext_authz.network_filter(world, custom.provider, condition)
        if asking is not None:
            rbac = NetworkRBAC(shadow_rules=custom.rules, shadow_rules_stat_prefix=CUSTOM, stat_prefix=_TCP_STATISTICS)
            filters += [_filter(NETWORK_RBAC, rbac), _filter(NETWORK_EXT_AUTHZ, asking)]
    for rules in builder.plain():
        message = NetworkRBAC(
            rules=rules.enforced,
            shadow_rules=rules.dry_run,
            shadow_rules_stat_prefix=rules.prefix,
            stat_prefix=_TCP_STATISTICS,
        )
        filters.append(_filter(NETWORK_RBAC, message))
    return filters


def policies_of(world: World, scope: Scope) -> tuple[ConfigResource, ...]:
    """The AuthorizationPolicies that hold for workloads of this scope."""
    return world.authorization_policies.of(scope.namespace, dict(scope.labels))


def policy_name(resource: ConfigResource, rule: int) -> str:
    """What RBAC calls one rule of a policy."""
    return f"ns[{resource.key.namespace}]-policy[{resource.key.name}]-rule[{rule}]"


@dataclass(frozen=True, slots=True)
class _Builder:
    """The policies of one scope, for requests or for connections."""

    world: World
    scope: Scope
    tcp: bool = False

    def plain(self) -> list[_Rules]:
        """AUDIT, DENY and ALLOW, as far as there are policies."""
        found = []
        for name, action in _ACTIONS:
            policies = [resource for resource in policies_of(self.world, self.scope) if resource.spec.action == name]
            dry = [resource for resource in policies if is_dry_run(resource.annotations)]
            enforced = [resource for resource in policies if not is_dry_run(resource.annotations)]
            if policies:
                found.append(
                    _Rules(self._rbac(enforced, action) if enforced else None, self._rbac(dry, action) if dry else None)
                )
        return found

    def customs(self) -> list[_Custom]:
        """CUSTOM, by provider."""
        by_provider: dict[str, list[ConfigResource]] = {}
        for resource in policies_of(self.world, self.scope):
            spec: AuthorizationPolicy = resource.spec
            if spec.action == "CUSTOM" and spec.provider is not None:
                by_provider.setdefault(spec.provider.name, []).append(resource)
        return [self._custom(name, by_provider[name], alone=len(by_provider) == 1) for name in sorted(by_provider)]

    def _custom(self, name: str, policies: Sequence[ConfigResource], *, alone: bool) -> _Custom:
        prefix = f"istio-ext-authz-{name}"
        try:
            provider = ext_authz.usable_provider(self.world, name) if alone else None
        except ext_authz.BadProvider:
            provider = None
        suffix = BAD_CUSTOM if provider is None else ""
        # DENY, so that on TCP rules get wider where they cannot be asked, never narrower.
        return _Custom(self._rbac(policies, RBAC.DENY, f"{prefix}-", suffix), prefix, provider)

    def _rbac(self, policies: Iterable[ConfigResource], action: RBAC.Action, prefix: str = "", suffix: str = "") -> RBAC:
        rbac = RBAC(action=action)
        for resource in policies:
            spec: AuthorizationPolicy = resource.spec
            circumstances = Circumstances(
                resource.key.namespace,
                self.world.trust,
                tcp=self.tcp,
                allow=action == RBAC.ALLOW,
                lower_headers=self.scope.flavour == "grpc",
            )
            compiled = [compile_rule(rule, circumstances) for rule in spec.rules] or [never()]
            for index, policy in enumerate(compiled):
                if policy is not None:
                    rbac.policies[f"{prefix}{policy_name(resource, index)}{suffix}"].CopyFrom(policy)
        return rbac


def _grpc_filters(world: World, scope: Scope) -> list[listener_pb2.HttpFilter]:
    """What gRPC's own xDS servers understand (gRFC A41): DENY and ALLOW that are enforced, under names of their own."""
    filters = []
    for rules in _Builder(world, scope).plain():
        if rules.enforced is not None and rules.enforced.action != RBAC.LOG:
            name = HTTP_RBAC if rules.enforced.action == RBAC.ALLOW else f"{HTTP_RBAC}.DENY"
            filters.append(_http_filter(name, HttpRBAC(rules=rules.enforced)))
    return filters


def _http_filter(name: str, message: Message) -> listener_pb2.HttpFilter:
    return listener_pb2.HttpFilter(name=name, typed_config=pack(message))


def _filter(name: str, message: Message) -> listener_pb2.Filter:
    return listener_pb2.Filter(name=name, typed_config=pack(message))
