"""What is valid in Istio and not executed by this version: refused by name, never ignored in silence.

One row a field.  Executing a field in a later version is deleting its row.  `[]` stands for every item of a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import re2

from meshlib_control.config.codes import NOT_SUPPORTED
from meshlib_control.config.problems import Path, Problem
from meshlib_control.config.validate.strings import regex_fault


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


def _unsendable(headers: object) -> bool:
    """Whether a name is no token, a value has a control character, or a Host header has what none can hold."""
    return isinstance(headers, Mapping) and any(
        not _TOKEN.fullmatch(str(name))
        or _CONTROL.search(str(value)) is not None
        or (str(name).lower() in (":authority", "host") and not _AUTHORITY.fullmatch(str(value)))
        for name, value in headers.items()
        if name and value is not None
    )


def _refers_to_no_group(rewrite: object) -> bool:
    if not isinstance(rewrite, Mapping):
        return False
    pattern, replacement = rewrite.get("match"), rewrite.get("rewrite")
    if not isinstance(pattern, str) or not isinstance(replacement, str) or regex_fault(pattern):
        return False
    return any(int(group) > re2.compile(pattern).groups for group in _REFERENCE.findall(replacement) if group)


def _too_heavy(shares: object) -> bool:
    weights = (
        [share.get("weight") for share in shares if isinstance(share, Mapping)] if isinstance(shares, list | tuple) else []
    )
    return sum(weight for weight in weights if isinstance(weight, int)) > _LARGEST_TOTAL


def _no_scheme(value: object) -> bool:
    return isinstance(value, str) and value != "" and not _SCHEME.fullmatch(value)


def _has_other_escape(replacement: object) -> bool:
    return isinstance(replacement, str) and "\\" in re.sub(r"\\[0-9\\]", "", replacement)


def _true(value: object) -> bool:
    return value is True


def _empty(value: object) -> bool:
    return value == ""


def _no_token(value: object) -> bool:
    return isinstance(value, str) and value != "" and not _TOKEN.fullmatch(value)


def _no_cookie_text(value: object) -> bool:
    return isinstance(value, str) and not _COOKIE_TEXT.fullmatch(value)


def _present(value: object) -> bool:
    return value is not None


def _zero(value: object) -> bool:
    return value == 0 and value is not False


def _more_than(limit: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and value > limit


def _network(value: object) -> bool:
    return isinstance(value, str) and "/" in value


def _no_path(value: object) -> bool:
    return isinstance(value, str) and not _TARGET.fullmatch(value)


def _no_authority(value: object) -> bool:
    return isinstance(value, str) and not _AUTHORITY.fullmatch(value)


def _http_proxy(value: object) -> bool:
    return isinstance(value, str) and value.upper() == "HTTP_PROXY"


def _socket(value: object) -> bool:
    return isinstance(value, str) and value.startswith("unix://")


def _identities_outside(tls: object) -> bool:
    if not isinstance(tls, Mapping) or tls.get("mode") not in ("SIMPLE", "MUTUAL"):
        return False
    names = tls.get("subjectAltNames")
    return isinstance(names, list | tuple) and any(isinstance(name, str) and "://" in name for name in names)


_TOKEN = re.compile(r":?[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, and pseudo headers
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REFERENCE = re.compile(r"\\\\|\\([0-9])")  # an escaped backslash, or a group
_LARGEST_TOTAL = 2**32 - 1
_MOST_RETRIES = 1000
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")  # RFC 3986 section 3.1
_COOKIE_TEXT = re.compile(r"[ -:<-~]*")  # RFC 6265 section 4.1.1
_TARGET = re.compile(r"[!\"$-~]*")  # what may stand in a request line, without "#"
_AUTHORITY = re.compile(r"[!$&'()*+,;=:\[\]%._~0-9A-Za-z-]*")


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
_TOO_MANY = "no caller waits for so many; use less"
_HEADERS = "commands of Envoy are not evaluated; write fixed values, and %% for a percent sign"

VIRTUAL_SERVICE = (
    Row("gateways[]", _GATEWAY, _but("mesh"), "other than `mesh`"),
    Row("tls", "connections that the application encrypts itself are not routed; use http rules"),
    Row("tcp", "plain TCP is not routed; use http rules"),
    Row("http[].redirect.redirectCode", "use 301, 302, 303, 307 or 308", _not_among(301, 302, 303, 307, 308), "other statuses"),
    *(
        Row(
            f"http[].{field}",
            "percent-encode it; nothing after a # is ever sent",
            _no_path,
            "text that no request line can hold",
        )
        for field in ("rewrite.uri", "redirect.uri", "redirect.prefixRewrite")
    ),
    *(
        Row(f"http[].{field}", "write a host, with or without a port", _no_authority, "text that no Host header can hold")
        for field in ("rewrite.authority", "redirect.authority")
    ),
    Row("http[].redirect.port", "ports are 1 to 65535", _more_than(65535), "above 65535"),
    Row(
        "http[].rewrite.uriRegexRewrite",
        "the expression has no group of that number; put it in parentheses",
        _refers_to_no_group,
        "a reference to a group that `match` does not have",
    ),
    Row(
        "http[].route",
        "only their proportions count; write smaller ones",
        _too_heavy,
        f"weights above {_LARGEST_TOTAL} in total",
    ),
    Row("http[].retries.attempts", _TOO_MANY, _more_than(_MOST_RETRIES), f"more than {_MOST_RETRIES}"),
    Row("http[].redirect.scheme", "use http or https", _no_scheme, "what is no scheme"),
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
    *(
        Row(f"{level}.{way}.{operation}", "use a header's name, and visible text", _unsendable, "what no header can hold")
        for level in ("http[].headers", "http[].route[].headers")
        for way in ("request", "response")
        for operation in ("set", "add")
    ),
    *(
        Row(f"{level}.{way}.remove[]", "use letters, digits and !#$%&'*+.^_`|~-", _no_token, "what is no header's name")
        for level in ("http[].headers", "http[].route[].headers")
        for way in ("request", "response")
    ),
    Row("http[].match[].gateways[]", _GATEWAY, _but("mesh"), "other than `mesh`"),
)

_MAXIMUM_RING_SIZE = 8 * 1024 * 1024

_LOAD_BALANCER = (
    *(
        Row(f"consistentHash.{field}", "use letters, digits and -._~", _no_token, "text that is no name there")
        for field in ("httpHeaderName", "httpCookie.name", "httpCookie.attributes[].name")
    ),
    *(
        Row(
            f"consistentHash.{field}",
            "leave out semicolons and what is not visible ASCII",
            _no_cookie_text,
            "text that ends a cookie",
        )
        for field in ("httpCookie.path", "httpCookie.attributes[].value")
    ),
    *(
        Row(f"consistentHash.{field}", "say what is hashed", _empty, "an empty name")
        for field in ("httpHeaderName", "httpQueryParameterName")
    ),
    *(
        Row(
            f"consistentHash.{field}",
            f"a ring has at most {_MAXIMUM_RING_SIZE} points",
            _more_than(_MAXIMUM_RING_SIZE),
            "larger than any ring",
        )
        for field in ("minimumRingSize", "ringHash.minimumRingSize")
    ),
    Row("backendUtilization", "endpoints are not asked for their load; use LEAST_REQUEST, which follows it", _present),
    Row("warmup.aggression", "it is the inverse of an exponent; 1 rises evenly, more rises faster at first", _zero, "`0`"),
)

_POLICY_OF_A_PORT = (
    *(replace(row, path=f"loadBalancer.{row.path}") for row in _LOAD_BALANCER),
    Row(
        "connectionPool.http.h2UpgradePolicy",
        "HTTP/2 is spoken where the port's protocol is http2 or grpc; declare it so",
        _one_of("UPGRADE"),
        "`UPGRADE`",
    ),
    Row(
        "connectionPool.http.http2KeepAlive",
        "gRPC's servers close connections on which they are pinged more often than they allow; use tcp.tcpKeepalive",
    ),
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
    Row("retryBudget.budgetInterval", "the budget is a share of the requests under way at the moment; leave it out"),
)

DESTINATION_RULE = (
    *(replace(row, path=f"trafficPolicy.{row.path}") for row in _TRAFFIC_POLICY),
    *(replace(row, path=f"subsets[].trafficPolicy.{row.path}") for row in _TRAFFIC_POLICY),
)

_INSTANCE = (
    Row("address", "sockets of the file system are not dialled; use an IP address", _socket, "`unix://`"),
    Row("network", "all instances must be reachable directly; leave it out"),
)

SERVICE_ENTRY = (
    Row("addresses[]", "calls to every address of a network cannot be told apart; list single addresses", _network, "networks"),
    *(replace(row, path=f"endpoints[].{row.path}") for row in _INSTANCE),
)

WORKLOAD_ENTRY = _INSTANCE

WORKLOAD_GROUP = (
    Row("template.address", "each process that joins has an address of its own; leave it out"),
    Row("template.network", "all instances must be reachable directly; leave it out"),
    Row("metadata.annotations", "registered instances have labels only; leave them out"),
    Row("probe.httpGet.scheme", "the probe stays within the process's machine; use HTTP", _one_of("HTTPS"), "`HTTPS`"),
    Row("probe.exec", "no commands are run in the process; use httpGet, tcpSocket or grpc"),
)

_BESIDE = "the process itself has the port, there is no proxy beside it"
_NO_HOP = "there is no connection between a proxy and the application; leave it out"
_INBOUND_POOL = (
    *(Row(f"tcp.{field}", _NO_HOP) for field in ("connectTimeout", "tcpKeepalive", "idleTimeout", "maxConnectionDuration")),
    *(
        Row(f"http.{field}", _NO_HOP)
        for field in ("maxRequestsPerConnection", "maxConcurrentStreams", "idleTimeout", "http2KeepAlive")
    ),
    Row("http.maxRetries", "nothing is retried on the way into the application; leave it out"),
    Row("http.h2UpgradePolicy", _NO_HOP, _one_of("UPGRADE"), "`UPGRADE`"),
    Row("http.useClientProtocol", _NO_HOP, _true, "`true`"),
)

SIDECAR = (
    Row("egress[].bind", "no local address is opened: hosts are called by their names; leave it out"),
    Row("egress[].port.protocol", "no proxy is opened: leave the port out", _http_proxy, "`HTTP_PROXY`"),
    Row("egress[].captureMode", "calls through the mesh need no capturing; leave it out", _one_of("NONE"), "`NONE`"),
    Row("ingress[].bind", f"{_BESIDE}; leave it out"),
    Row("ingress[].captureMode", f"{_BESIDE}; leave it out", _one_of("NONE"), "`NONE`"),
    Row("ingress[].defaultEndpoint", f"{_BESIDE}; leave it out"),
    Row("ingress[].tls", "the mesh's own mTLS is a matter of PeerAuthentication, other TLS of the application's server"),
    *(replace(row, path=f"ingress[].connectionPool.{row.path}") for row in _INBOUND_POOL),
    *(replace(row, path=f"inboundConnectionPool.{row.path}") for row in _INBOUND_POOL),
    Row("outboundTrafficPolicy.egressProxy", "declare the hosts by ServiceEntry, and route them to the proxy's service"),
)

_ENVOY = "it is about the process of Envoy, which this workload does not have; remove it"

PROXY_CONFIG = (
    Row("concurrency", f"{_ENVOY}, and set workers where the application's server is started", lambda value: value is not None),
    Row("environmentVariables", f"{_ENVOY}, and set the environment where the application is started"),
    Row("image", _ENVOY),
)

MESH_CONFIG = (Row("defaultHttpRetryPolicy.attempts", _TOO_MANY, _more_than(_MOST_RETRIES), f"more than {_MOST_RETRIES}"),)

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
