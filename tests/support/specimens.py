"""Configuration that nobody would think of: specs drawn from the schema of a kind, and cut back until the validator takes them.

A spec begins as a tree of fields with values of roughly the right form.  Whatever is complained about is taken out, the rest
stays: so nearly every draw ends as a resource, and odd combinations survive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from msgspec import inspect as types

from meshlib_control.catalog.model import Instance, Port
from meshlib_control.compile import Node, World
from meshlib_control.compile.node import ServedPort
from meshlib_control.compile.trust import Trust
from meshlib_control.config import CODES, KINDS, ConfigResource, Severity, load_document
from meshlib_control.config.kinds import StringMatch
from meshlib_control.config.model import ConfigSet, Key
from meshlib_control.config.parse import read_resource
from meshlib_control.config.problems import Path
from meshlib_control.config.schema import Reading
from tests.support.configuring import catalog, registered

SERVICES: Final = ("reviews", "ratings")
"""Names of services that every namespace has, with the ports 80 (HTTP) and 81 (gRPC), in the versions v1 and v2."""

_NAMESPACES: Final = ("default", "other")
_PORTS: Final = (Port(80, "http"), Port(81, "grpc"))
_OUTSIDE: Final = ("ext.example.com", "Nowhere", "ext.example.com.", "192.0.2.1", "2001:db8::1")
_HOSTS: Final = (*SERVICES, "reviews.other.svc.cluster.local", *_OUTSIDE)
_LABELS: Final[tuple[dict[str, str], ...]] = ({"version": "v1"}, {"app": "web"}, {"version": "v2", "app": "web"}, {})
_DURATIONS: Final = ("1s", "100ms", "5m", "0.25s", "1h30m", "2562047h", "0s")
_INTEGERS: Final = (0, 1, 2, 3, 5, 10, 50, 80, 81, 100, 301, 418, 503, 1024, 65537, 2**31 - 1, 2**32 - 1)
_NUMBERS: Final = (0.001, 0.5, 33.3, 100, 1900.0)
_LOCALITIES: Final = ("us-east", "us-east/a", "us-east/a/1", "eu-west", "eu-west/b/*", "*")
_MATCHES: Final[tuple[dict[str, str], ...]] = (
    *({"exact": text} for text in ("/a", "", "GET", "reviews")),
    *({"prefix": text} for text in ("/a/", "/", "a")),
    *({"regex": text} for text in ("/[a-z]+/.*", ".*")),
    {},
)
_HEADERS: Final = ("x-a", "X-B", "end-user", ":authority", "cookie", "host", "uri", "grpc-timeout", "é b")
_PLAIN: Final = ("a", "/a", "x-a", "1.2.3.4", "10.0.0.0/8", "GET", "v1", "http", "spiffe://cluster.local/ns/default/sa/a")
_TEXTS: Final = (*_PLAIN, "é b", "5%%", "a\n", "")
_KEYS: Final[Mapping[str, Sequence[str]]] = {"to": _LOCALITIES, "ports": ("http", "a"), "portLevelMtls": ("80", "81")}

_BY_NAME: Final[Mapping[str, Sequence[object]]] = {
    "host": _HOSTS,
    "hosts": (*_HOSTS, "*.example.com", "*-eu.example.com", "*/*", "./*", "*/reviews.default.svc.cluster.local", "~/*"),
    "sniHosts": ("reviews", "*.example.com"),
    "subset": ("v1", "v2", "v9"),
    "gateways": ("mesh",),
    "address": ("127.0.0.1", "127.0.0.2", "::1", "localhost", "db.example.com"),
    "addresses": ("240.0.0.1", "240.0.0.2"),
    "number": (80, 81, 8080, 70000),
    "port": (80, 81, 8080, 70000),
    "targetPort": (8080, 9090),
    "protocol": ("HTTP", "grpc", "TCP", "HTTPS", "http2"),
    "exportTo": (".", "*", "other"),
    "retryOn": ("5xx", "connect-failure,503", "unavailable,cancelled", "retriable-status-codes,429", "reset"),
    "grpcStatus": ("UNAVAILABLE", "DEADLINE_EXCEEDED"),
    "attempts": (0, 1, 3),
    "httpStatus": (200, 503, 599),
    "status": (200, 204, 418, 503),
    "redirectCode": (301, 302, 303, 307, 308),
    "weight": (0, 1, 50, 100, 2**31 - 1),
    "match": ("/a(.*)", "(.*)/b"),
    "rewrite": ("/x\\1", "\\0/y", "\\2"),
    "uri": ("/a", "/", "/a?b=c"),
    "authority": ("example.com", "reviews:80"),
    "scheme": ("http", "https"),
    "from": _LOCALITIES,
    "to": _LOCALITIES,
    "locality": _LOCALITIES,
    "failoverPriority": ("topology.kubernetes.io/region", "version", "app=web", "topology.istio.io/subzone"),
    "tableSize": (7, 997, 65537),
    "minimumRingSize": (0, 1, 1024),
    "allowMethods": ("GET", "POST", "*"),
    "httpHeaderName": ("x-a", ":path"),
    "key": ("source.ip", "request.headers[x-a]", "request.auth.claims[a][b]", "destination.port", "source.principal"),
    "values": ("1.2.3.4", "80", "a*", "*"),
    "ports": ("80", "81"),
    "paths": ("/a", "/a/*", "*/b", "/a/{*}/{**}"),
    "ipBlocks": ("10.0.0.0/8", "::1"),
    "methods": ("GET", "*"),
    "issuer": ("https://issuer.example.com",),
    "jwks": ('{"keys": [{"kty": "oct", "k": "AAAA"}]}', '{"keys": []}'),
    "jwksUri": ("https://issuer.example.com/keys",),
    "namespace": ("default", "other"),
    "name": ("v1", "v2", "a", "b", "http"),
}


_USUAL: Final = frozenset({"http", "route", "hosts", "host", "limits", "address", "ports", "egress"})
"""Fields without which a spec says little."""

_ROUNDS: Final = 20


def document(draw: Random, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
    """A document of the kind that the validator takes; None: nothing was left of it."""
    found = KINDS[kind]
    written = {
        "apiVersion": found.api_versions[0],
        "kind": kind,
        "metadata": {"name": found.only_name or name, "namespace": "default" if found.only_name else namespace},
        "spec": _value(draw, types.type_info(found.spec), "", depth=0),
    }
    for _ in range(_ROUNDS):
        faults = [
            problem.path
            for problem in read_resource(found, written, Reading(), namespace=namespace)[1]
            if (problem.severity or CODES[problem.code].severity) is Severity.ERROR
        ]
        if not faults:
            return written
        taken = [_take_out(written, path) for path in sorted(set(faults), key=_order, reverse=True)]
        if not all(taken):
            return None
    return None


def _order(path: Path) -> list[tuple[bool, str]]:
    """Reversed, the later items of a list come before the earlier ones, whose places stay what they are."""
    return [(isinstance(step, int), f"{step:05}" if isinstance(step, int) else step) for step in path]


def _take_out(written: dict[str, Any], path: Path) -> bool:
    """Removes the value at the path, or the nearest one around it; False: that would be the whole spec."""
    holders: list[Any] = [written]
    for step in path:
        if not _has(holders[-1], step):
            break
        holders.append(holders[-1][step])
    depth = len(holders) - 1
    if depth < 2:
        return False
    del holders[depth - 1][path[depth - 1]]
    return True


def _has(holder: object, step: str | int) -> bool:
    if isinstance(holder, dict):
        return step in holder
    return isinstance(holder, list) and isinstance(step, int) and step < len(holder)


def _value(draw: Random, info: types.Type, name: str, *, depth: int) -> Any:
    match info:
        case types.Metadata():
            is_duration = (info.extra or {}).get("format") == "duration"
            return draw.choice(_DURATIONS) if is_duration else _value(draw, info.type, name, depth=depth)
        case types.UnionType():
            return _value(draw, next(item for item in info.types if not isinstance(item, types.NoneType)), name, depth=depth)
        case types.StructType() if info.cls is StringMatch:
            return dict(draw.choice(_MATCHES))
        case types.StructType():
            return _struct(draw, info, depth=depth)
        case types.VarTupleType():
            return [_value(draw, info.item_type, name, depth=depth) for _ in range(draw.choice((1, 1, 2, 3)))]
        case types.DictType() if "abel" in name:
            return dict(draw.choice(_LABELS))
        case types.DictType():
            keys = _KEYS.get(name, _HEADERS)
            return {draw.choice(keys): _value(draw, info.value_type, "", depth=depth) for _ in range(draw.choice((1, 2)))}
        case types.LiteralType():
            return draw.choice([str(word) for word in info.values])
        case types.BoolType():
            return draw.choice((True, False))
        case types.FloatType():
            return draw.choice(_NUMBERS)
        case types.IntType():
            chosen = _BY_NAME.get(name, ())
            return draw.choice([item for item in chosen if isinstance(item, int)] or _INTEGERS)
        case _:
            return draw.choice([item for item in _BY_NAME.get(name, ()) if isinstance(item, str)] or _TEXTS)


def _struct(draw: Random, info: types.StructType, *, depth: int) -> dict[str, Any]:
    """Each optional field with a probability that falls with the depth, and one at most of those that exclude each other."""
    share = 0.45 if depth == 0 else 0.3
    chosen = [item for item in info.fields if item.required or draw.random() < (0.9 if item.encode_name in _USUAL else share)]
    if not chosen:
        chosen = [draw.choice(info.fields)] if info.fields else []
    names = {item.encode_name for item in chosen}
    for group in getattr(info.cls, "at_most_one", ()):
        given = [item for item in group if item in names]
        names -= set(given) - {draw.choice(given)} if given else set()
    kept = [(item.encode_name, item.type) for item in chosen if item.encode_name in names]
    return {name: _value(draw, of, name, depth=depth + 1) for name, of in kept}


SERVED: Final = (ServedPort(80), ServedPort(81, 0, "http2"))
WEB: Final = Node(
    service="reviews",
    labels={"app": "web", "version": "v1"},
    locality="us-east/a/1",
    ports=SERVED,
    group="r0",
)
"""A process of `reviews`, for which most of the resources hold."""


def resources(draw: Random, count: int, kinds: Sequence[str] = tuple(sorted(KINDS))) -> list[ConfigResource]:
    """At most so many, of the two namespaces."""
    found: dict[Key, ConfigResource] = {}
    for index in range(count):
        written = document(draw, draw.choice(kinds), f"r{index}", draw.choice(_NAMESPACES))
        if written is not None:
            made = load_document(written, created=index + 1)
            found[made.key] = made
    return list(found.values())


def world_of(found: Sequence[ConfigResource], *, trust: Trust) -> World:
    """With `SERVICES` in both namespaces."""
    listed = [registered(name, *_instances(name), namespace=owner, ports=_PORTS) for owner in _NAMESPACES for name in SERVICES]
    instances = {host: items for _, by_host in listed for host, items in by_host.items()}
    return World.of(ConfigSet(found), catalog([service for service, _ in listed], instances), trust=trust)


def _instances(name: str) -> tuple[Instance, ...]:
    return tuple(
        Instance(f"{name}-{version}", "127.0.0.1", port, labels={"version": version, "app": "web"}, locality=locality)
        for version, port, locality in (("v1", 9001, "us-east/a/1"), ("v2", 9002, "eu-west/b/2"))
    )
