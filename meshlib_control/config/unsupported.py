"""What is valid in Istio and not executed by this version: refused by name, never ignored in silence.

One row a field.  Executing a field in a later version is deleting its row.  `[]` stands for every item of a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from meshlib_control.config.codes import NOT_SUPPORTED
from meshlib_control.config.problems import Path, Problem


def _given(value: object) -> bool:
    return value not in (None, "", [], {}, False)  # 0 too


def _but(*words: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value not in words


def _one_of(*words: str) -> Callable[[object], bool]:
    return lambda value: value in words


def _not_among(*numbers: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and value not in (0, *numbers)


def _has_command(headers: object) -> bool:
    return isinstance(headers, Mapping) and any("%" in str(value).replace("%%", "") for value in headers.values())


def _has_other_escape(replacement: object) -> bool:
    return isinstance(replacement, str) and "\\" in re.sub(r"\\[0-9\\]", "", replacement)


def _true(value: object) -> bool:
    return value is True


def _network(value: object) -> bool:
    return isinstance(value, str) and "/" in value


def _no_hosts(value: object) -> bool:
    return isinstance(value, Mapping) and value.get("hosts") in (None, [], ())


def _socket(value: object) -> bool:
    return isinstance(value, str) and value.startswith("unix://")


def _identities_outside(tls: object) -> bool:
    if not isinstance(tls, Mapping) or tls.get("mode") not in ("SIMPLE", "MUTUAL"):
        return False
    names = tls.get("subjectAltNames")
    return isinstance(names, list | tuple) and any(isinstance(name, str) and "://" in name for name in names)


@dataclass(frozen=True, slots=True)
class Row:
    """`path` is below ``spec``; `refuses` says which values are not executed: by default any that is given.

    `only` says the same in words, where it is not all.
    """

    path: str
    instead: str
    refuses: Callable[[object], bool] = _given
    only: str = ""


_GATEWAY = "only calling processes (`mesh`) are configured here, there is no gateway; leave gateways out"
_HEADERS = "commands of Envoy are not evaluated; write fixed values, and %% for a percent sign"
_MIRROR = "no copies are sent; remove it"

VIRTUAL_SERVICE = (
    Row(
        "",
        "write its rules into the VirtualService that has the hosts",
        _no_hosts,
        "without hosts (a delegate)",
    ),
    Row("gateways[]", _GATEWAY, _but("mesh"), "other than `mesh`"),
    Row("tls", "connections that the application encrypts itself are not routed; use http rules"),
    Row("tcp", "plain TCP is not routed; use http rules"),
    Row("http[].redirect.redirectCode", "use 301, 302, 303, 307 or 308", _not_among(301, 302, 303, 307, 308), "other statuses"),
    Row("http[].delegate", "write the rules into this VirtualService"),
    Row("http[].mirror", _MIRROR),
    Row("http[].mirrorPercent", _MIRROR),
    Row("http[].mirror_percent", _MIRROR),
    Row("http[].mirrorPercentage", _MIRROR),
    Row("http[].mirrors", _MIRROR),
    Row("http[].corsPolicy", "answer browsers in the service, with the middleware of its framework"),
    Row(
        "http[].rewrite.uriRegexRewrite.rewrite",
        "write a group's number after a backslash, or two backslashes",
        _has_other_escape,
        "other escapes than groups",
    ),
    *(
        Row(f"{level}.{way}.{operation}", _HEADERS, _has_command, "values with `%` that is not doubled")
        for level in ("http[].headers", "http[].route[].headers")
        for way in ("request", "response")
        for operation in ("set", "add")
    ),
    Row("http[].match[].scheme", "every call to a mesh host is plain http to the router; leave the condition out"),
    Row("http[].match[].gateways[]", _GATEWAY, _but("mesh"), "other than `mesh`"),
    Row("http[].match[].statPrefix", "metrics are by service and route; give the route a name"),
)

_LOAD_BALANCER = (
    Row("simple", "use LEAST_REQUEST, ROUND_ROBIN or RANDOM", _one_of("PASSTHROUGH"), "`PASSTHROUGH`"),
    Row("consistentHash", "use LEAST_REQUEST, ROUND_ROBIN or RANDOM"),
    Row("backendUtilization", "use LEAST_REQUEST, which follows the load"),
    Row("localityLbSetting", "all healthy endpoints are used alike"),
    Row("zoneAwareLbSetting", "all healthy endpoints are used alike"),
    Row("warmup", "new endpoints get their full share at once"),
    Row("warmupDurationSecs", "new endpoints get their full share at once"),
)

_POLICY_OF_A_PORT = (
    *(replace(row, path=f"loadBalancer.{row.path}") for row in _LOAD_BALANCER),
    Row("connectionPool.tcp.idleTimeout", "it is about plain TCP, which is not routed; use http.idleTimeout"),
    Row(
        "connectionPool.http.h2UpgradePolicy", "the protocol stays the caller's; leave it out", _one_of("UPGRADE"), "`UPGRADE`"
    ),
    Row("connectionPool.http.useClientProtocol", "the protocol stays the caller's anyway; leave it out", _true, "`true`"),
    Row("connectionPool.http.http2KeepAlive", "use tcp.tcpKeepalive"),
    Row("outlierDetection", "failing endpoints are left out by health checks and retries only"),
    Row("tls.credentialName", "name files where the caller runs: clientCertificate, privateKey, caCertificates"),
    Row("tls.caCrl", "no lists are read; give a caCertificates that does not vouch for the revoked ones"),
    Row(
        "tls",
        "identities are verified with ISTIO_MUTUAL; with SIMPLE and MUTUAL name hosts",
        _identities_outside,
        "with SIMPLE or MUTUAL and URIs as subjectAltNames",
    ),
)
_TRAFFIC_POLICY = (
    *_POLICY_OF_A_PORT,
    *(replace(row, path=f"portLevelSettings[].{row.path}") for row in _POLICY_OF_A_PORT),
    Row("tunnel", "calls go to the host directly"),
    Row("proxyProtocol", "the header is not sent"),
    Row("retryBudget", "the budget is always on: 20 % of the requests under way, at least 3"),
)

DESTINATION_RULE = (
    *(replace(row, path=f"trafficPolicy.{row.path}") for row in _TRAFFIC_POLICY),
    *(replace(row, path=f"subsets[].trafficPolicy.{row.path}") for row in _TRAFFIC_POLICY),
    Row("workloadSelector", "a rule holds for all callers that can see it; use exportTo"),
)

_INSTANCE = (
    Row("address", "sockets of the file system are not dialled; use an IP address", _socket, "`unix://`"),
    Row("network", "all instances must be reachable directly; leave it out"),
)

SERVICE_ENTRY = (
    Row("addresses[]", "calls to every address of a network cannot be told apart; list single addresses", _network, "networks"),
    Row("resolution", "use DNS with a host without wildcard", _one_of("DYNAMIC_DNS"), "`DYNAMIC_DNS`"),
    *(replace(row, path=f"endpoints[].{row.path}") for row in _INSTANCE),
)

WORKLOAD_ENTRY = _INSTANCE

MESH_CONFIG: tuple[Row, ...] = ()

_STEP = re.compile(r"[^.\[\]]+|\[\]")


@dataclass(slots=True)
class _Branch:
    """The rows as a tree, so that one walk finds all of them."""

    rows: list[Row] = field(default_factory=list)
    steps: dict[str, _Branch] = field(default_factory=dict)


@cache
def _tree(rows: tuple[Row, ...]) -> _Branch:
    root = _Branch()
    for row in rows:
        branch = root
        for step in _STEP.findall(row.path):
            branch = branch.steps.setdefault(step, _Branch())
        branch.rows.append(row)
    return root


def check_supported(rows: tuple[Row, ...], spec: object, *, at: str = "") -> Iterator[Problem]:
    """A problem for each row that `spec`, a plain value, makes use of.  `at`: where below the kind's spec it stands."""
    branch = _tree(rows)
    for step in _STEP.findall(at):
        branch = branch.steps.get(step) or _Branch()
    yield from _walk(branch, spec, ())


def _walk(branch: _Branch, value: Any, path: Path) -> Iterator[Problem]:
    for row in branch.rows:
        if row.refuses(value):
            name = row.path.rpartition(".")[2].removesuffix("[]") or f"spec {row.only}"
            shown = f"{name}: {value}" if isinstance(value, str) else name
            message = f"{shown} is not supported by this version; it is refused rather than ignored: {row.instead}"
            yield Problem(path, NOT_SUPPORTED, message)
    for step, inner in branch.steps.items():
        if step == "[]" and isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield from _walk(inner, item, (*path, index))
        elif isinstance(value, Mapping) and value.get(step) is not None:
            yield from _walk(inner, value[step], (*path, step))
