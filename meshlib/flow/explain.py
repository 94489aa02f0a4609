"""Why would this request go there?  Answered by the very code that routes: nothing is sent, no dice are rolled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from meshlib.flow.alterations import alterations_of
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call
from meshlib.model.request import DEFAULT_PORTS
from meshlib.model.route import NO_CHANGES, DirectResponse, Forward, Redirect, Route, RouteMatch, VirtualHost
from meshlib.model.snapshot import ClusterConfig, Snapshot, Target
from meshlib.policy.hashing import hasher_of
from meshlib.policy.matching import compile_header, compile_query, is_grpc
from meshlib.policy.paths import canonical_text
from meshlib.policy.rewriting import compile_location, compile_rewrite
from meshlib.policy.routing import compile_path
from meshlib.xds.decode import decode
from meshlib.xds.join import Roots, join
from meshlib.xds.states import ResourceKey, ResourceState, Status
from meshlib.xds.types import LISTENER


@dataclass(frozen=True, slots=True)
class RouteTrial:
    """One route that was looked at: `reason` says why it did not match, or what made it match."""

    name: str
    matched: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ClusterShare:
    """A cluster that the route may choose.  `endpoints`: ``address:port health``; `priorities`: theirs, one each (0 is used as
    long as enough of its endpoints are healthy); `error`: why it cannot be used.

    `placed`: the endpoint that the hash of the call leads to; empty: it has none, or dice decide.
    """

    name: str
    percent: float
    endpoints: tuple[str, ...]
    error: str = ""
    priorities: tuple[int, ...] = ()
    placed: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a call would go through.  Times in seconds, 0 for none."""

    authority: str
    outcome: Literal["forward", "direct_response", "no_route", "outside", "blocked", "unknown"]
    detail: str = ""
    virtual_host: str = ""
    route: str = ""
    routes: tuple[RouteTrial, ...] = ()
    clusters: tuple[ClusterShare, ...] = ()
    timeout: float = 0.0
    retries: int = 0
    retry_on: tuple[str, ...] = ()
    per_try_timeout: float = 0.0
    status: int = 0  # of a direct response


def explain(
    resources: Iterable[tuple[str, bytes]],
    method: str,
    authority: str,
    target: str,
    headers: Sequence[tuple[str, str]] = (),
) -> Explanation:
    """`resources`: (type URL, bytes) as a node gets them; `authority`: ``host:port``; `target`: path and query.

    Raises meshlib.xds.invalid.ResourceInvalid when a resource is one that a client would refuse.
    """
    states: dict[ResourceKey, ResourceState] = {}
    for type_url, value in resources:
        name, decoded = decode(type_url, value)
        states[type_url, name] = ResourceState(Status.ACKED, decoded)
    # The resources are all that a client would get: what is not among them does not exist.
    states.setdefault((LISTENER, authority), ResourceState(Status.DOES_NOT_EXIST))
    snapshot = join(states, Roots([authority]), Snapshot()).snapshot
    found = snapshot.targets.get(authority)
    if found is None:
        return _without_target(snapshot, authority)
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    path = canonical_text(target, found.normalization)
    if path is None:
        return Explanation(authority, "no_route", f"{target!r} is no path to call", found.virtual_host.name)
    return _with_target(found, Call(method, authority, path, raw, host=authority.removesuffix(f":{DEFAULT_PORTS['http']}")))


def _without_target(snapshot: Snapshot, authority: str) -> Explanation:
    if authority in snapshot.broken:
        return Explanation(authority, "unknown", snapshot.broken[authority])
    reason = snapshot.absent.get(authority)
    if reason is None:
        return Explanation(authority, "unknown", "its resources are not complete")
    if snapshot.allow_any is None:
        return Explanation(authority, "unknown", f"{reason}; and nothing says what happens to outside hosts")
    if snapshot.allow_any:
        return Explanation(authority, "outside", f"{reason}; outboundTrafficPolicy is ALLOW_ANY: the caller's own transport")
    return Explanation(authority, "blocked", f"{reason}; outboundTrafficPolicy is REGISTRY_ONLY")


def _with_target(target: Target, call: Call) -> Explanation:
    host = target.virtual_host
    trials: list[RouteTrial] = []
    for index, route in enumerate(host.routes):
        name = route.name or f"#{index}"
        reason = mismatch(route.match, call)
        trials.append(RouteTrial(name, reason is None, reason or describe(route.match)))
        if reason is None:
            return _with_route(target, host, route, name, trials=tuple(trials), call=call)
    return Explanation(target.authority, "no_route", "no route matches", host.name, routes=tuple(trials))


def _with_route(
    target: Target, host: VirtualHost, route: Route, name: str, *, trials: tuple[RouteTrial, ...], call: Call
) -> Explanation:
    action = route.action
    if isinstance(action, DirectResponse):
        return Explanation(target.authority, "direct_response", "", host.name, name, trials, status=action.status)
    if isinstance(action, Redirect):
        location = compile_location(route.match.path, action)("http", call.host, call.path)
        detail = f"to {location}"
        return Explanation(target.authority, "direct_response", detail, host.name, name, trials, status=action.status)
    if not isinstance(action, Forward):
        return Explanation(target.authority, "no_route", "the route is for servers only", host.name, name, trials)
    total = sum(cluster.weight for cluster in action.clusters) or 1
    sent = _altered(route, host, call)
    shares = tuple(
        _share(cluster.name, 100.0 * cluster.weight / total, target.clusters.get(cluster.name), action, sent)
        for cluster in action.clusters
    )
    retry = action.retry
    return Explanation(
        target.authority,
        "forward",
        describe_changes(route, call),
        host.name,
        name,
        trials,
        shares,
        timeout=action.timeout,
        retries=retry.attempts if retry is not None else 0,
        retry_on=tuple(sorted(retry.retry_on)) if retry is not None else (),
        per_try_timeout=retry.per_try_timeout if retry is not None else 0.0,
    )


def describe_changes(route: Route, call: Call) -> str:
    """What becomes of the request on its way, in words."""
    action = route.action
    assert isinstance(action, Forward)
    parts: list[str] = []
    rewrite = compile_rewrite(route.match.path, action)
    if rewrite is not None:
        parts.append(f"path becomes {rewrite(call.path)}")
    if action.authority:
        parts.append(f"Host becomes {action.authority}")
    if route.headers != NO_CHANGES or any(cluster.headers != NO_CHANGES for cluster in action.clusters):
        parts.append("headers are changed")
    fault = route.fault
    if fault is not None and fault.delay and fault.delay_fraction:
        parts.append(f"{fault.delay_fraction:.2%} of calls are delayed by {fault.delay:g}s")
    if fault is not None and fault.abort_fraction:
        parts.append(f"{fault.abort_fraction:.2%} of calls are aborted")
    parts += [f"{mirror.fraction:.2%} of calls are copied to {mirror.cluster}" for mirror in action.mirrors]
    return ", ".join(parts)


def _altered(route: Route, host: VirtualHost, call: Call) -> Call:
    """The request as the route makes it: that is what is hashed."""
    sent = Call(call.method, call.authority, call.path, call.headers, host=call.host)
    altered = alterations_of(route, host.headers)
    if altered is not None:
        altered.apply(sent, altered.draw(_NoDice()))
    return sent


class _NoDice:
    """Where they would be rolled, the answer does not count."""

    def random(self) -> float:
        return 0.0

    def randrange(self, stop: int, /) -> int:
        return 0


def _placed(config: ClusterConfig, action: Forward, call: Call) -> str:
    """The address that leads calls by their source is known to callers alone."""
    upstream, dice = Upstream(config.name), _NoDice()
    upstream.update(config, dice)
    hasher = hasher_of(action.hash_policies) if upstream.hashes else None
    if hasher is None or any(policy.kind == "source_ip" for policy in action.hash_policies):
        return ""
    found = hasher(call, dice)
    host = upstream.pick((), 0, dice, 0.0, found.value) if found.value is not None and not found.cookies else None
    return host.key if host is not None else ""


def _share(name: str, percent: float, config: ClusterConfig | None, action: Forward, call: Call) -> ClusterShare:
    if config is None:
        return ClusterShare(name, percent, (), "it is not configured")
    found = sorted(config.endpoints, key=lambda endpoint: endpoint.priority)
    endpoints = tuple(f"{endpoint.key} {endpoint.health.value}" for endpoint in found)
    error = config.error or ("" if endpoints else "it has no endpoints")
    priorities = tuple(endpoint.priority for endpoint in found)
    return ClusterShare(name, percent, endpoints, error, priorities, _placed(config, action, call) if not error else "")


def mismatch(match: RouteMatch, call: Call) -> str | None:
    """The first condition that the call does not meet, in words; None when it meets all."""
    path = call.path.partition("?")[0]
    test = compile_path(match.path)
    if test is not None and not test(path):
        return f"path {path} is not {match.path.kind} {match.path.value!r}"
    for header in match.headers:
        if not compile_header(header)(call):
            wanted = f"{header.match.kind} {header.match.value!r}" if header.match is not None else "present"
            return f"header {header.name} is {'not wanted' if header.invert else 'not'} {wanted}"
    for query in match.query:
        if not compile_query(query)(call):
            wanted = f"{query.match.kind} {query.match.value!r}" if query.match is not None else "present"
            return f"query parameter {query.name} is not {wanted}"
    if match.grpc and not is_grpc(call):
        return "it is not a gRPC request"
    return None


def describe(match: RouteMatch) -> str:
    """What a route asks for, in words."""
    parts = [] if match.path.value in ("", "/") else [f"path {match.path.kind} {match.path.value!r}"]
    parts += [f"header {header.name}" for header in match.headers]
    parts += [f"query parameter {query.name}" for query in match.query]
    if match.fraction is not None:
        parts.append(f"{match.fraction:.2%} of requests")
    return ", ".join(parts) or "matches everything"
