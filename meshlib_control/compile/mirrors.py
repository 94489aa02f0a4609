"""`mirror` and `mirrors` of a rule → the policies of a route that has requests copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from meshlib.xds.proto import route_pb2
from meshlib_control.compile.http_actions import set_percentage
from meshlib_control.config.kinds import Destination, HTTPRoute, Percent


def set_mirrors(action: route_pb2.RouteAction, rule: HTTPRoute, cluster_name: Callable[[Destination], str]) -> None:
    """Istio's: without a percentage all requests are copied, with one of zero none; copies are not traced."""
    for destination, percentage in mirrored(rule):
        if percentage is not None and not percentage.value:
            continue
        policy = action.request_mirror_policies.add(cluster=cluster_name(destination))
        set_percentage(policy.runtime_fraction.default_value, percentage or _ALL)
        policy.trace_sampled.value = False


def mirrored(rule: HTTPRoute) -> Iterator[tuple[Destination, Percent | None]]:
    """Where copies go, and of which share of the requests; None: nothing is said of it."""
    if rule.mirror is not None:
        yield rule.mirror, _percentage(rule)
    for mirror in rule.mirrors:
        yield mirror.destination, mirror.percentage


def _percentage(rule: HTTPRoute) -> Percent | None:
    if rule.mirror_percentage is not None:
        return rule.mirror_percentage
    whole = rule.mirror_percent if rule.mirror_percent is not None else rule.mirror_percent_snake
    return Percent(value=float(whole)) if whole is not None else None


_ALL = Percent(value=100.0)
