"""Which RequestAuthentications hold for a workload, and which key sets somebody has to fetch for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from meshlib_control.config.authorization import is_for_workloads
from meshlib_control.config.kinds import JWTRule, RequestAuthentication
from meshlib_control.config.model import ConfigResource

Labels = Mapping[str, str]

DISCOVERY: Final = "/.well-known/openid-configuration"
"""Where an issuer says where its keys are (OpenID Connect Discovery 1.0, section 4)."""


class RequestAuthentications:
    """Those of the root namespace and of the workload's own, whose selector the workload has.  All of them hold."""

    def __init__(self, resources: Iterable[ConfigResource], root_namespace: str) -> None:
        self._root = root_namespace
        self._by_namespace: dict[str, list[RequestAuthentication]] = {}
        for resource in resources:
            if isinstance(resource.spec, RequestAuthentication) and is_for_workloads(resource):
                self._by_namespace.setdefault(resource.key.namespace, []).append(resource.spec)
        everything = [spec for specs in self._by_namespace.values() for spec in specs]
        self.selector_keys = frozenset(key for spec in everything for key in _labels(spec))
        """Labels of workloads that some policy asks for."""
        wanted: dict[str, float] = {}
        for rule in (rule for spec in everything for rule in spec.jwt_rules):
            if uri := keys_uri(rule):
                wanted[uri] = max(wanted.get(uri, 0.0), rule.timeout)
        self.key_uris: Mapping[str, float] = MappingProxyType(wanted)
        """Addresses of key sets, or of documents that name such an address, with seconds that fetching may take."""

    def rules_of(self, namespace: str, labels: Labels) -> tuple[JWTRule, ...]:
        """The rules of a workload's policies together, sorted by issuer as Istio does."""
        rules = [
            rule
            for owner in dict.fromkeys((self._root, namespace))
            for spec in self._by_namespace.get(owner, ())
            if _labels(spec).items() <= labels.items()
            for rule in spec.jwt_rules
        ]
        return tuple(sorted(rules, key=lambda rule: rule.issuer))


def _labels(spec: RequestAuthentication) -> dict[str, str]:
    return spec.selector.match_labels if spec.selector is not None else {}


def keys_uri(rule: JWTRule) -> str:
    """Where the keys of a rule are; ends with `DISCOVERY` where the issuer has to be asked first; "": they are in the rule."""
    if rule.jwks:
        return ""
    return rule.jwks_uri or rule.jwks_uri_snake or f"{rule.issuer.removesuffix('/')}{DISCOVERY}"
