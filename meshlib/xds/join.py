"""Resources → Snapshot: LDS → RDS → virtual host → CDS → EDS, as in gRFC A74; inbound listeners and trust beside it.

A target is published when it is whole: each cluster that its routes name is there with its endpoints, or is known not
to exist.  Until then the target before it stays (make before break), and follows its own endpoints meanwhile.
Parts that did not change keep their identity.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.endpoint import Assignment
from meshlib.model.identity import TrustBundles
from meshlib.model.listener import INBOUND_PREFIX, TRUST_BUNDLE, VIRTUAL_OUTBOUND, InboundListener, Listener
from meshlib.model.route import Forward, RouteConfig, VirtualHost
from meshlib.model.snapshot import ClusterConfig, Snapshot, Target
from meshlib.xds.states import ResourceKey, ResourceState, Status
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET, SHORT_NAMES

Resources = Mapping[ResourceKey, ResourceState]

ALLOW_ANY = "allow_any"
"""Name of the virtual host of `VIRTUAL_OUTBOUND` that lets calls to outside hosts pass."""


@dataclass(frozen=True, slots=True)
class Joined:
    """`snapshot` is the previous one itself when nothing changed.  `wanted`: type URL → all names to be subscribed."""

    snapshot: Snapshot
    wanted: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Roots:
    """What a process wants to know: where everything that it asks for begins.

    `authorities`: what it calls, as called ("reviews:80").  `ports`: those that it serves.  `trust`: it has an identity, so it
    wants to know whom to believe.
    """

    authorities: Collection[str] = ()
    ports: Collection[int] = ()
    trust: bool = False


@dataclass(frozen=True, slots=True)
class _Absent:
    reason: str
    denied: bool = False  # the control service itself said that it does not exist


@dataclass(slots=True)
class _Pass:
    """One run over all roots: what was read, what is missing, what other targets already share."""

    resources: Resources
    known: Mapping[str, ClusterConfig]  # of the previous snapshot, by cluster
    wanted: dict[str, set[str]] = field(default_factory=dict)
    clusters: dict[str, ClusterConfig | None] = field(default_factory=dict)


def join(resources: Resources, roots: Roots, previous: Snapshot) -> Joined:
    """The snapshot for what is wanted, and the names that it takes to complete it."""
    known = {name: config for target in previous.targets.values() for name, config in target.clusters.items()}
    run = _Pass(resources, known, {type_url: set() for type_url in SHORT_NAMES})
    listeners = run.wanted[LISTENER]
    targets: dict[str, Target] = {}
    absent: dict[str, str] = {}
    broken: dict[str, str] = {}
    for authority in roots.authorities:
        state = resources.get((LISTENER, authority))
        if state is not None and state.status is Status.DOES_NOT_EXIST and state.value is None:
            # A process may have called thousands of outside hosts: each costs next to nothing here.
            listeners.add(authority)
            absent[authority] = previous.absent.get(authority) or _reason(LISTENER, authority, state)
            continue
        if state is not None and _is_outside(state.value):
            listeners.add(authority)
            absent[authority] = f"LDS {authority}: a Sidecar keeps it from this process"
            continue
        before = previous.targets.get(authority)
        match _target(run, authority, before):
            case Target() as target:
                targets[authority] = target
            case _Absent(reason):
                broken[authority] = reason
            case None if before is not None:
                targets[authority] = _kept(run, before)
            case None:
                pass
    allow_any = _allow_any(run, previous.allow_any)
    inbound = _inbound(run, roots.ports, previous)
    trust = _trust(run, previous.trust) if roots.trust else previous.trust
    wanted = {type_url: frozenset(names) for type_url, names in run.wanted.items()}
    snapshot = Snapshot(previous.generation + 1, targets, absent, broken, allow_any, inbound, trust)
    return Joined(previous if _same(snapshot, previous) else snapshot, wanted)


def _same(snapshot: Snapshot, before: Snapshot) -> bool:
    return (
        len(snapshot.targets) == len(before.targets)
        and all(before.targets.get(name) is target for name, target in snapshot.targets.items())
        and snapshot.absent == before.absent
        and snapshot.broken == before.broken
        and snapshot.allow_any is before.allow_any
        and snapshot.trust is before.trust
        and len(snapshot.inbound) == len(before.inbound)
        and all(before.inbound.get(port) is listener for port, listener in snapshot.inbound.items())
    )


def _find(run: _Pass, type_url: str, name: str) -> object:
    """The value, `_Absent`, or None while it is on its way."""
    run.wanted[type_url].add(name)
    state = run.resources.get((type_url, name))
    if state is None:
        return None
    if state.value is not None:
        return state.value
    if state.status is Status.REQUESTED:
        return None
    return _Absent(_reason(type_url, name, state), denied=type_url == LISTENER and state.status is Status.DOES_NOT_EXIST)


def _is_outside(listener: object) -> bool:
    """Whether a host is explicitly none of this process's mesh: its listener is that of hosts outside."""
    if not isinstance(listener, Listener) or listener.route_config is None:
        return False
    return listener.route_config.name == VIRTUAL_OUTBOUND


def _reason(type_url: str, name: str, state: ResourceState) -> str:
    return f"{SHORT_NAMES[type_url]} {name}: {state.error or state.status.value}"


def _target(run: _Pass, authority: str, before: Target | None) -> Target | _Absent | None:
    listener = _find(run, LISTENER, authority)
    if not isinstance(listener, Listener):
        return listener if isinstance(listener, _Absent) else None
    config: object = listener.route_config
    if config is None:
        config = _find(run, ROUTE, listener.route_config_name)
    if not isinstance(config, RouteConfig):
        return config if isinstance(config, _Absent) else None
    if before is not None and before.route_config is config:
        host: VirtualHost | None = before.virtual_host
        names: Collection[str] = before.clusters.keys()
    else:
        host = select_virtual_host(config, authority)
        names = cluster_names(host) if host else ()
    if host is None:
        return _Absent(f"RDS {config.name or listener.name}: no virtual host for {authority}")
    clusters: dict[str, ClusterConfig] = {}
    for name in names:
        found = _cluster(run, name)
        if found is not None:
            clusters[name] = found
    if len(clusters) < len(names):
        return None
    normalization = listener.normalization
    known = before is not None and before.virtual_host is host and before.normalization is normalization
    if before is not None and known and _same_clusters(clusters, before.clusters):
        return before
    return Target(authority, host, clusters, config, normalization)


def _kept(run: _Pass, before: Target) -> Target:
    """The target before, with what its clusters have become where that is known."""
    clusters = {name: _cluster(run, name) or config for name, config in before.clusters.items()}
    if _same_clusters(clusters, before.clusters):
        return before
    return replace(before, clusters=clusters)


def _same_clusters(clusters: Mapping[str, ClusterConfig], before: Mapping[str, ClusterConfig]) -> bool:
    return len(clusters) == len(before) and all(before.get(name) is config for name, config in clusters.items())


def _cluster(run: _Pass, name: str) -> ClusterConfig | None:
    """The cluster with its endpoints, or with the reason why it has none; None while something is on its way."""
    if name in run.clusters:
        return run.clusters[name]
    fresh = _join_cluster(run, name)
    before = run.known.get(name)
    # Compared by identity first: equality of a thousand endpoints is only looked at when they were sent again.
    if fresh is not None and before is not None and (_is(fresh, before) or fresh == before):
        fresh = before
    run.clusters[name] = fresh
    return fresh


def _is(one: ClusterConfig, other: ClusterConfig) -> bool:
    return (
        one.cluster is other.cluster
        and one.endpoints is other.endpoints
        and one.error == other.error
        and one.overprovisioning_factor == other.overprovisioning_factor
    )


def _join_cluster(run: _Pass, name: str) -> ClusterConfig | None:
    cluster = _find(run, CLUSTER, name)
    if isinstance(cluster, _Absent):
        return ClusterConfig(name, error=cluster.reason)
    if not isinstance(cluster, Cluster):
        return None
    if cluster.discovery is not Discovery.EDS:
        return ClusterConfig(name, cluster, cluster.endpoints, overprovisioning_factor=cluster.overprovisioning_factor)
    found = _find(run, ENDPOINTS, cluster.eds_name or name)
    if isinstance(found, _Absent):
        return ClusterConfig(name, error=found.reason)
    if not isinstance(found, Assignment):
        return None
    return ClusterConfig(name, cluster, found.endpoints, overprovisioning_factor=found.overprovisioning_factor)


def _allow_any(run: _Pass, before: bool | None) -> bool | None:
    """What `VIRTUAL_OUTBOUND` says.  A control service that has no such listener lets nothing pass."""
    listener = _find(run, LISTENER, VIRTUAL_OUTBOUND)
    config: object = listener
    if isinstance(listener, Listener):
        config = listener.route_config or _find(run, ROUTE, listener.route_config_name)
    if isinstance(config, RouteConfig):
        return any(host.name == ALLOW_ANY for host in config.virtual_hosts)
    return False if isinstance(config, _Absent) and config.denied else before


def _inbound(run: _Pass, ports: Collection[int], before: Snapshot) -> dict[int, InboundListener]:
    """What holds for each served port.  Once known it holds until something else is said (gRFC A88): a deletion, or a version
    that is not understood, opens no port.
    """
    found: dict[int, InboundListener] = {}
    for port in ports:
        listener = _find(run, LISTENER, f"{INBOUND_PREFIX}{port}")
        if isinstance(listener, InboundListener):
            known = before.inbound.get(port)
            found[port] = known if known == listener and known is not None else listener
        elif port in before.inbound:
            found[port] = before.inbound[port]
    return found


def _trust(run: _Pass, before: TrustBundles | None) -> TrustBundles | None:
    bundles = _find(run, SECRET, TRUST_BUNDLE)
    return bundles if isinstance(bundles, TrustBundles) and bundles != before else before


def cluster_names(host: VirtualHost) -> tuple[str, ...]:
    """Every cluster that a route of the host can send to, in order of first mention."""
    names: dict[str, None] = {}
    for route in host.routes:
        if isinstance(route.action, Forward):
            for share in route.action.clusters:
                names[share.name] = None
            for mirror in route.action.mirrors:
                names[mirror.cluster] = None
    return tuple(names)


def select_virtual_host(config: RouteConfig, authority: str) -> VirtualHost | None:
    """Envoy's choice: exact, then the longest ``*.suffix``, then the longest ``prefix.*``, then ``*``.

    A wildcard stands for at least one character.
    """
    name = authority.lower()
    if config.ignore_port:
        name = _without_port(name)
    best: tuple[int, int] = (0, 0)
    chosen: VirtualHost | None = None
    for host in config.virtual_hosts:
        for domain in host.domains:
            rank = _rank(domain, name)
            if rank > best:
                best, chosen = rank, host
    return chosen


def _rank(domain: str, name: str) -> tuple[int, int]:
    if domain == name:
        return 4, 0
    if domain == "*":
        return 1, 0
    length = len(domain) - 1
    if domain.startswith("*") and len(name) > length and name.endswith(domain[1:]):
        return 3, length
    if domain.endswith("*") and len(name) > length and name.startswith(domain[:-1]):
        return 2, length
    return 0, 0


def _without_port(name: str) -> str:
    """Cut at the rightmost colon outside of an IPv6 address's brackets, as `ignore_port_in_host_matching` does."""
    colon = name.rfind(":")
    return name[:colon] if colon > name.rfind("]") else name
