"""TrafficPolicy and its parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from meshlib_control.config.kinds import (
    ClientTLSSettings,
    ConnectionPool,
    ConsistentHash,
    HTTPSettings,
    LoadBalancer,
    LocalityDistribute,
    LocalityFailover,
    LocalityLbSetting,
    OutlierDetection,
    PortTrafficPolicy,
    TCPSettings,
    TrafficPolicy,
    Tunnel,
    ZoneAwareLbSetting,
)
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.strings import check_duration

_MAGLEV_LIMIT = 5_000_011
_TOPOLOGY = frozenset(
    {"topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"},
)
_TUNNEL_PROTOCOLS = ("CONNECT", "POST")
_FILES = {"client_certificate": "clientCertificate", "private_key": "privateKey", "ca_certificates": "caCertificates"}
_UNUSED = {"DISABLE": tuple(_FILES), "ISTIO_MUTUAL": tuple(_FILES), "SIMPLE": ("client_certificate", "private_key")}
"""Files that a mode has no use for."""


def check_traffic_policy(policy: TrafficPolicy | None) -> Iterator[Problem]:
    """Istio's rules for the policy of a host or subset."""
    if policy is None:
        return
    elements = (policy.tunnel, policy.proxy_protocol, policy.retry_budget, policy.port_level_settings or None)
    if all(element is None for element in elements) and _is_empty(policy):
        yield Problem((), "MSH0143", "the traffic policy is empty; leave it out, or give it a loadBalancer or connectionPool")
    if policy.tunnel is not None and policy.proxy_protocol is not None:
        yield Problem(("proxyProtocol",), "MSH0137", "tunnel and proxyProtocol exclude each other")
    yield from _check_elements(policy)
    for index, port_policy in enumerate(policy.port_level_settings):
        yield from under(("portLevelSettings", index), _check_port_policy(port_policy))
    yield from under(("tunnel",), _check_tunnel(policy.tunnel))


def _is_empty(policy: TrafficPolicy | PortTrafficPolicy) -> bool:
    elements = (policy.load_balancer, policy.connection_pool, policy.outlier_detection, policy.tls)
    return all(element is None for element in elements)


def _check_elements(policy: TrafficPolicy | PortTrafficPolicy) -> Iterator[Problem]:
    yield from under(("outlierDetection",), check_outlier_detection(policy.outlier_detection))
    yield from under(("connectionPool",), check_connection_pool(policy.connection_pool))
    yield from under(("loadBalancer",), check_load_balancer(policy.load_balancer))
    yield from under(("tls",), check_tls(policy.tls))


def _check_port_policy(policy: PortTrafficPolicy) -> Iterator[Problem]:
    if policy.port is None:
        yield Problem(("port",), "MSH0125", "a policy of a port needs the port; write port: {number: 80}")
    else:
        yield from under(("port", "number"), names.check_port(policy.port.number))
    if _is_empty(policy):
        yield Problem((), "MSH0143", "the policy of this port is empty; leave it out, or say what it should do")
    yield from _check_elements(policy)


def check_outlier_detection(outlier: OutlierDetection | None) -> Iterator[Problem]:
    if outlier is None:
        return
    yield from under(("baseEjectionTime",), check_duration(outlier.base_ejection_time))
    yield from under(("interval",), check_duration(outlier.interval))
    if outlier.consecutive_errors:
        yield Problem(("consecutiveErrors",), "MSH0150", "use consecutiveGatewayErrors or consecutive5xxErrors instead")
    if outlier.consecutive_local_origin_failures and not outlier.split_external_local_origin_errors:
        message = "it counts only when splitExternalLocalOriginErrors is true"
        yield Problem(("consecutiveLocalOriginFailures",), "MSH0137", message)
    for name, percent in (
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ):
        if percent is not None and not 0 <= percent <= 100:
            yield Problem((name,), "MSH0139", f"{percent} is not a percentage; it goes from 0 to 100")


def check_connection_pool(pool: ConnectionPool | None) -> Iterator[Problem]:
    if pool is None:
        return
    if pool.http is None and pool.tcp is None:
        yield Problem((), "MSH0143", "the connection pool is empty; leave it out, or give it tcp or http settings")
    if pool.http is not None:
        yield from under(("http",), _check_http_settings(pool.http))
    if pool.tcp is not None:
        yield from under(("tcp",), _check_tcp_settings(pool.tcp))


def _check_http_settings(http: HTTPSettings) -> Iterator[Problem]:
    for name, limit in (
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ):
        yield from _check_limit(name, limit)
    yield from under(("idleTimeout",), check_duration(http.idle_timeout))
    if http.use_client_protocol and http.h2_upgrade_policy == "UPGRADE":
        yield Problem(("useClientProtocol",), "MSH0137", "useClientProtocol contradicts h2UpgradePolicy: UPGRADE")


def _check_tcp_settings(tcp: TCPSettings) -> Iterator[Problem]:
    yield from _check_limit("maxConnections", tcp.max_connections)
    yield from under(("connectTimeout",), check_duration(tcp.connect_timeout))
    yield from under(("maxConnectionDuration",), check_duration(tcp.max_connection_duration))
    if tcp.idle_timeout:
        yield from under(("idleTimeout",), check_duration(tcp.idle_timeout))


def _check_limit(name: str, limit: int | None) -> Iterator[Problem]:
    if limit is not None and limit < 0:
        yield Problem((name,), "MSH0105", f"{limit} is negative; leave {name} out for no limit")


def check_load_balancer(balancer: LoadBalancer | None) -> Iterator[Problem]:
    if balancer is None:
        return
    if balancer.simple == "LEAST_CONN":
        yield Problem(("simple",), "MSH0150", "LEAST_CONN is the old name of LEAST_REQUEST")
    yield from under(("consistentHash",), _check_consistent_hash(balancer.consistent_hash))
    yield from under(("localityLbSetting",), check_locality(balancer.locality_lb_setting))
    yield from under(("zoneAwareLbSetting",), check_zone_awareness(balancer.zone_aware_lb_setting))
    yield from check_one_preference(balancer.locality_lb_setting, balancer.zone_aware_lb_setting)
    if balancer.warmup is not None and balancer.warmup_duration_secs is not None:
        yield Problem(("warmupDurationSecs",), "MSH0137", "warmup replaces warmupDurationSecs; give only warmup")
    elif balancer.warmup_duration_secs is not None:
        yield Problem(("warmupDurationSecs",), "MSH0150", "use warmup.duration instead")
    yield from _check_warmup(balancer)


def _check_warmup(balancer: LoadBalancer) -> Iterator[Problem]:
    field = "warmup" if balancer.warmup is not None else "warmupDurationSecs"
    if balancer.warmup is None and balancer.warmup_duration_secs is None:
        return
    if balancer.consistent_hash is not None or balancer.simple in ("RANDOM", "PASSTHROUGH"):
        yield Problem((field,), "MSH0151", "only ROUND_ROBIN and LEAST_REQUEST know a slow start")


def _check_consistent_hash(consistent: ConsistentHash | None) -> Iterator[Problem]:
    if consistent is None:
        return
    if consistent.http_cookie is not None and not consistent.http_cookie.name:
        yield Problem(("httpCookie", "name"), "MSH0143", "the cookie has no name")
    if consistent.minimum_ring_size:
        yield Problem(("minimumRingSize",), "MSH0150", "use ringHash.minimumRingSize instead")
        if consistent.ring_hash is not None or consistent.maglev is not None:
            yield Problem(("minimumRingSize",), "MSH0137", "minimumRingSize excludes ringHash and maglev")
    if consistent.maglev is not None:
        size = consistent.maglev.table_size or 0
        if not 1 < size < _MAGLEV_LIMIT or not _is_prime(size):
            message = f"{size} is not a table size: a prime below {_MAGLEV_LIMIT} is needed, such as 65537"
            yield Problem(("maglev", "tableSize"), "MSH0137", message)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def check_one_preference(locality: LocalityLbSetting | None, zone: ZoneAwareLbSetting | None) -> Iterator[Problem]:
    if locality is not None and zone is not None:
        yield Problem(("zoneAwareLbSetting",), "MSH0137", "localityLbSetting and zoneAwareLbSetting exclude each other")


def check_zone_awareness(setting: ZoneAwareLbSetting | None) -> Iterator[Problem]:
    if setting is not None:
        yield from _check_failovers(setting.failover, setting.failover_priority)


def check_locality(setting: LocalityLbSetting | None) -> Iterator[Problem]:
    if setting is None:
        return
    if setting.distribute and setting.failover:
        yield Problem(("failover",), "MSH0137", "distribute and failover exclude each other")
    yield from _check_failovers(setting.failover, setting.failover_priority)
    for index, distribute in enumerate(setting.distribute):
        yield from under(("distribute", index), _check_distribute(distribute))
    sources = [distribute.from_ or "" for distribute in setting.distribute]
    yield from under(("distribute",), _check_localities(sources, range(len(sources))))


def _check_failovers(failovers: Sequence[LocalityFailover], priorities: Sequence[str]) -> Iterator[Problem]:
    if failovers:
        for index, label in enumerate(priorities):
            if label.partition("=")[0] in _TOPOLOGY:
                yield Problem(("failoverPriority", index), "MSH0137", f"failover excludes {label} in failoverPriority")
    for index, failover in enumerate(failovers):
        yield from under(("failover", index), _check_failover(failover))


def _check_distribute(distribute: LocalityDistribute) -> Iterator[Problem]:
    for locality, weight in distribute.to.items():
        if not 1 <= weight <= 100:
            yield Problem(("to", locality), "MSH0132", f"the weight {weight} of a locality is not in 1 to 100")
    total = sum(distribute.to.values())
    if total != 100:
        yield Problem(("to",), "MSH0132", f"the weights add up to {total}; they must add up to 100")
    yield from under(("to",), _check_localities(list(distribute.to), list(distribute.to)))


def _check_localities(localities: Sequence[str], steps: Sequence[str | int]) -> Iterator[Problem]:
    """`steps`: how a path goes on to each of them."""
    for step, locality in zip(steps, localities, strict=True):
        parts = locality.split("/", 2)
        if "*" in locality[:-1] or not all(parts):
            message = f"{locality!r} is not a locality: region/zone/subzone, of which the end may be left out or be *"
            yield Problem((step,), "MSH0137", message)
    for (_, one), (step, other) in combinations(zip(steps, localities, strict=True), 2):
        pairs = zip(one.split("/", 2), other.split("/", 2), strict=False)
        if all(a == b or "*" in (a, b) for a, b in pairs):
            yield Problem((step,), "MSH0137", f"{other} and {one} overlap")


def _check_failover(failover: LocalityFailover) -> Iterator[Problem]:
    if failover.from_ == failover.to:
        yield Problem(("to",), "MSH0137", f"{failover.to} cannot take over from itself")
    for name, region in (("from", failover.from_ or ""), ("to", failover.to or "")):
        if "*" in region or "/" in region:
            yield Problem((name,), "MSH0137", f"{region} is not a region: zones and wildcards are not allowed")


def check_tls(tls: ClientTLSSettings | None) -> Iterator[Problem]:
    if tls is None:
        return
    if tls.insecure_skip_verify and tls.mode in ("SIMPLE", "MUTUAL"):
        named = (
            ("caCertificates", tls.ca_certificates),
            ("credentialName", tls.credential_name if tls.mode == "SIMPLE" else None),
            ("subjectAltNames", tls.subject_alt_names),
        )
        for name, value in named:
            if value:
                yield Problem((name,), "MSH0137", f"{name} contradicts insecureSkipVerify: nothing would be verified")
    if tls.mode in ("SIMPLE", "MUTUAL") and tls.credential_name:
        files = (
            ("clientCertificate", tls.client_certificate),
            ("privateKey", tls.private_key),
            ("caCertificates", tls.ca_certificates),
            ("caCrl", tls.ca_crl),
        )
        for name, value in files:
            if value:
                yield Problem((name,), "MSH0137", f"{name} and credentialName exclude each other")
    elif tls.mode == "MUTUAL":
        for name, value in (("clientCertificate", tls.client_certificate), ("privateKey", tls.private_key)):
            if not value:
                yield Problem((name,), "MSH0103", f"{name} is missing; mode MUTUAL needs it")
    for name in _UNUSED.get(tls.mode, ()):
        if getattr(tls, name):
            field = _FILES[name]
            yield Problem((field,), "MSH0151", f"mode {tls.mode} does not use {field}")


def _check_tunnel(tunnel: Tunnel | None) -> Iterator[Problem]:
    if tunnel is None:
        return
    if tunnel.protocol and tunnel.protocol not in _TUNNEL_PROTOCOLS:
        yield Problem(("protocol",), "MSH0104", f"{tunnel.protocol} is not one of {', '.join(_TUNNEL_PROTOCOLS)}")
    fault = names.fqdn_fault(tunnel.target_host)
    if fault and not names.is_ip(tunnel.target_host):
        yield Problem(("targetHost",), "MSH0121", fault)
    yield from under(("targetPort",), names.check_port(tunnel.target_port))
