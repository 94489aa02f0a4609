"""VirtualServices without hosts, which others lead to: how Istio makes one rule of two (pilot/pkg/model/virtualservice.go).

A rule with a `delegate` stands for the rules of another VirtualService, one level deep.  Each of those counts under both
conditions; what it does not say for itself, the rule that leads to it says.  A rule whose conditions go beyond those of the
rule that leads to it is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from meshlib_control.config.kinds import Destination, HTTPMatchRequest, HTTPRoute, StringMatch, VirtualService
from meshlib_control.config.model import ConfigResource, Key

T = TypeVar("T")

Delegates = Mapping[Key, ConfigResource]
"""VirtualServices without hosts, by key."""


def delegates_of(resources: Iterable[ConfigResource]) -> Delegates:
    """Those of `resources` that are delegates."""
    return {one.key: one for one in resources if isinstance(one.spec, VirtualService) and not one.spec.hosts}


def delegate_key(route: HTTPRoute, root: Key) -> Key | None:
    """Which VirtualService a rule of `root` leads to; None: it leads to none."""
    delegate = route.delegate
    if delegate is None:
        return None
    return Key(root.kind, delegate.namespace or root.namespace, delegate.name or "")


def expanded(
    root: ConfigResource,
    delegates: Delegates,
    *,
    is_seen: Callable[[ConfigResource], bool],
    resolve: Callable[[str, str], str],
) -> tuple[HTTPRoute, ...]:
    """The rules of `root` with those of its delegates in their places.

    `is_seen`: whether a delegate is exported to the root's namespace; those that are not, or do not exist, take their rule with
    them.  `resolve`: full name of a host that a resource of a namespace names.
    """
    spec: VirtualService = root.spec
    rules: list[HTTPRoute] = []
    for route in spec.http:
        key = delegate_key(route, root.key)
        if key is None:
            rules.append(route)
            continue
        delegate = delegates.get(key)
        if delegate is None or not is_seen(delegate):
            continue
        for own in delegate.spec.http:
            merged = merged_route(route, own)
            if merged is not None:
                rules.append(_resolved(merged, key.namespace, resolve) if key.namespace != root.key.namespace else merged)
    return tuple(rules)


def merged_route(root: HTTPRoute, own: HTTPRoute) -> HTTPRoute | None:
    """A delegate's rule, as the rule that leads to it has it; None: their conditions are in conflict."""
    match = merged_conditions(root.match, own.match)
    if match is None:
        return None
    return replace(
        own,
        match=match,
        name=_joined(root.name, own.name),
        rewrite=_first(own.rewrite, root.rewrite),
        direct_response=_first(own.direct_response, root.direct_response),
        timeout=_first(own.timeout, root.timeout),
        retries=_first(own.retries, root.retries),
        fault=_first(own.fault, root.fault),
        mirror=_first(own.mirror, root.mirror),
        mirror_percent=_first(own.mirror_percent, root.mirror_percent),
        mirror_percent_snake=_first(own.mirror_percent_snake, root.mirror_percent_snake),
        mirror_percentage=_first(own.mirror_percentage, root.mirror_percentage),
        mirrors=own.mirrors or root.mirrors,
        cors_policy=_first(own.cors_policy, root.cors_policy),
        headers=_first(own.headers, root.headers),
    )


def merged_conditions(
    root: tuple[HTTPMatchRequest, ...], own: tuple[HTTPMatchRequest, ...]
) -> tuple[HTTPMatchRequest, ...] | None:
    """Each condition of the delegate together with each of the root's that it is within; None: one of them is within none."""
    if not root or not own:
        return own or root
    merged: list[HTTPMatchRequest] = []
    for leaf in own:
        within = [_merged(wider, leaf) for wider in root if not in_conflict(wider, leaf)]
        if not within:
            return None
        merged.extend(within)
    return tuple(merged)


def in_conflict(root: HTTPMatchRequest, leaf: HTTPMatchRequest) -> bool:
    """Whether `leaf` may ask for what `root` has excluded."""
    pairs = [
        (root.uri, leaf.uri),
        (root.scheme, leaf.scheme),
        (root.method, leaf.method),
        (root.authority, leaf.authority),
        *((root.headers.get(name), condition) for name, condition in leaf.headers.items()),
        *((root.without_headers.get(name), condition) for name, condition in leaf.without_headers.items()),
        *((root.query_params.get(name), condition) for name, condition in leaf.query_params.items()),
    ]
    if any(wider is not None and narrower is not None and not _is_within(wider, narrower) for wider, narrower in pairs):
        return True
    if root.ignore_uri_case != leaf.ignore_uri_case:
        return True
    if root.port and leaf.port and root.port != leaf.port:
        return True
    if root.source_namespace and leaf.source_namespace and root.source_namespace != leaf.source_namespace:
        return True
    if any(root.source_labels.get(name, value) != value for name, value in leaf.source_labels.items()):
        return True
    return bool(root.gateways and leaf.gateways) and not set(leaf.gateways) <= set(root.gateways)


def _is_within(root: StringMatch, leaf: StringMatch) -> bool:
    """Istio compares expressions with nothing, not even with themselves."""
    if root.regex or leaf.regex:
        return False
    if root.exact:
        return leaf.exact == root.exact
    if root.prefix:
        return (leaf.prefix or leaf.exact or "").startswith(root.prefix)
    return False


def _merged(root: HTTPMatchRequest, leaf: HTTPMatchRequest) -> HTTPMatchRequest:
    return replace(
        leaf,
        name=_joined(root.name, leaf.name),
        uri=_first(leaf.uri, root.uri),
        scheme=_first(leaf.scheme, root.scheme),
        method=_first(leaf.method, root.method),
        authority=_first(leaf.authority, root.authority),
        headers={**root.headers, **leaf.headers},
        without_headers={**root.without_headers, **leaf.without_headers},
        query_params={**root.query_params, **leaf.query_params},
        port=leaf.port or root.port,
        source_labels={**root.source_labels, **leaf.source_labels},
        source_namespace=leaf.source_namespace or root.source_namespace,
        gateways=leaf.gateways or root.gateways,
        stat_prefix=leaf.stat_prefix or root.stat_prefix,
    )


def _joined(root: str | None, own: str | None) -> str | None:
    return f"{root}-{own}" if root and own else own or root


def _first(own: T | None, root: T | None) -> T | None:
    return own if own is not None else root


def _resolved(route: HTTPRoute, namespace: str, resolve: Callable[[str, str], str]) -> HTTPRoute:
    """With full names: what is short in another namespace means something else in the root's."""

    def full(destination: Destination) -> Destination:
        return replace(destination, host=resolve(destination.host, namespace))

    return replace(
        route,
        route=tuple(replace(share, destination=full(share.destination)) for share in route.route),
        mirror=full(route.mirror) if route.mirror is not None else None,
        mirrors=tuple(replace(mirror, destination=full(mirror.destination)) for mirror in route.mirrors),
    )
