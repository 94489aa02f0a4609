"""What a mesh knows of its endpoints' health, and services whose endpoints are checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib import Mesh
from meshlib.flow.upstream import Upstream
from meshlib.model.cluster import GrpcHealthCheck, HealthCheck, HttpHealthCheck, TcpHealthCheck
from meshlib.model.snapshot import Target

OFTEN = 0.05
"""Seconds between two checks."""


def check(how: HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck, **more: Any) -> HealthCheck:
    """A check that comes often and is patient with a busy machine."""
    settings = {"timeout": 20.0, "interval": OFTEN, "no_traffic_interval": OFTEN}
    return HealthCheck(how, unhealthy_threshold=2, healthy_threshold=2, **{**settings, **more})


def with_cluster(target: Target, **fields: Any) -> Target:
    """The same service, whose clusters have these fields as well."""
    clusters = {}
    for name, config in target.clusters.items():
        assert config.cluster is not None
        clusters[name] = replace(config, cluster=replace(config.cluster, **fields))
    return replace(target, clusters=clusters)


def upstream_of(mesh: Mesh) -> Upstream | None:
    """Of the only cluster that the mesh knows; None: it knows none yet."""
    process = mesh._processes.current
    assert process is not None
    return next(iter(process.client.destinations.upstreams.values()), None)


def left_out(mesh: Mesh) -> set[int]:
    """Ports of the endpoints that are not used for what the mesh found out about them."""
    upstream = upstream_of(mesh)
    if upstream is None:
        return set()
    return {host.endpoint.port for host in upstream.hosts.values() if host.ejected or host.failed_check}


def all_checked(mesh: Mesh) -> bool:
    """Whether each endpoint's first check has ended."""
    upstream = upstream_of(mesh)
    if upstream is None or not upstream.hosts:
        return False
    return all(host.checking is not None and not host.checking.first for host in upstream.hosts.values())
