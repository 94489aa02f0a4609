"""Requests at random, most of them made to satisfy some rule of a configuration, or to miss it by a little."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.support.routing.configurations import Configuration
from tests.support.routing.rules import Hosts
from tests.support.routing.vocabulary import (
    HEADERS,
    METHODS,
    ODD_PATHS,
    PATHS,
    QUERY,
    Document,
    chance,
    satisfying,
    some,
)


@dataclass(frozen=True, slots=True)
class Request:
    """`authority`: the Host header, and what the client's URL names."""

    method: str
    authority: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.method} http://{self.authority}{self.target} {list(self.headers)}"


def requests(found: Configuration, rng: Random, count: int) -> list[Request]:
    aims = [(host, condition) for document in found.documents for host, condition in _aims(document, found)]
    return [
        _request(found, rng, *rng.choice(aims)) if aims and chance(rng, 0.75) else _request(found, rng) for _ in range(count)
    ]


def _aims(document: Document, found: Configuration) -> list[tuple[str, Document]]:
    """The conditions of a VirtualService, each with a host that it is about."""
    if document["kind"] != "VirtualService":
        return []
    hosts = document["spec"].get("hosts") or [each.host for each in found.hosts]
    owner = document["metadata"].get("namespace", "")
    full = [f"{host}.{owner}.svc.cluster.local" if "." not in host else host for host in hosts]
    return [(host, condition) for host in full for rule in document["spec"]["http"] for condition in rule.get("match", [{}])]


def _request(found: Configuration, rng: Random, host: str = "", condition: Document | None = None) -> Request:
    condition = condition or {}
    method = rng.choice(METHODS) if chance(rng, 0.2) else "GET"
    if "method" in condition:
        method = rng.choice((*METHODS, str(next(iter(condition["method"].values()))).strip("()").split("|")[0].upper()[:7]))
        method = method if method in METHODS else "GET"
    return Request(method, _authority(found, rng, host, condition), _target(rng, condition), _headers(rng, condition))


def _authority(found: Configuration, rng: Random, host: str, condition: Document) -> str:
    known = [each for each in found.hosts if each.host == host] or [
        each for each in found.hosts if host.startswith("*") and each.host.endswith(host[1:])
    ]
    target = rng.choice(known or (found.hosts if chance(rng, 0.9) else found.unlisted))
    name = rng.choice(_names(rng, target, found))
    port = condition["port"] if "port" in condition and chance(rng, 0.5) else rng.choice(target.ports)
    authority = name if port == 80 and chance(rng, 0.7) else f"{name}:{port}"
    match rng.randrange(40):
        case 0:
            return authority.upper()
        case 1:
            return f"{name}:{rng.choice((81, 1234, 8080))}"
        case 2:
            return rng.choice(
                ("unknown", "www.example.org", f"unknown.{found.namespace}", f"x{name}", "203.0.113.7", "[2001:db8::1]:80")
            )
        case 3:
            return name  # without a port, whether it has a port 80 or not
        case _:
            return authority


def _names(rng: Random, target: Hosts, found: Configuration) -> tuple[str, ...]:
    """Every way in which the caller may name a host; and those in which only others may."""
    host = target.host
    if host.startswith("*"):
        host = rng.choice(("x", "y.z", "")) + host[1:]
        return (host.lstrip("."),)
    if not target.short:
        return (host, host, f"{host}.", *target.addresses)
    short = f"{target.short}.{target.namespace}"
    own = (target.short, target.short) if target.namespace == found.namespace else ()
    return (*own, short, f"{short}.svc", host, host, f"{host}.", *target.addresses, target.short)


def _target(rng: Random, condition: Document) -> str:
    if chance(rng, 0.12):
        return rng.choice(ODD_PATHS)
    path = satisfying(rng, condition["uri"], PATHS) if "uri" in condition else PATHS.near(rng)
    if condition.get("ignoreUriCase") and chance(rng, 0.5):
        path = path.swapcase()
    if not path.startswith("/"):
        path = f"/{path}"
    pairs = [f"{name}={satisfying(rng, wanted, QUERY[name])}" for name, wanted in condition.get("queryParams", {}).items()]
    if chance(rng, 0.25):
        name = rng.choice(sorted(QUERY))
        pairs.insert(0, rng.choice((f"{name}={QUERY[name].near(rng)}", name, f"{name.swapcase()}=1", f"{name}%20=1", "=", "")))
    if not pairs:
        return path.replace(" ", "%20")
    return (path + ("&" if "?" in path else "?") + "&".join(pairs)).replace(" ", "%20")


def _headers(rng: Random, condition: Document) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for name, wanted in condition.get("headers", {}).items():
        if chance(rng, 0.9):
            pairs.append((name, satisfying(rng, wanted, HEADERS[name])))
    more = [name for name in condition.get("withoutHeaders", {}) if chance(rng, 0.4)]
    if chance(rng, 0.4):
        more += some(rng, sorted(HEADERS.keys() - {name for name, _ in pairs} - set(more)) or ["x-a"], 2)
    pairs += [(name, HEADERS[name].near(rng)) for name in more]
    if pairs and chance(rng, 0.15):
        name = rng.choice(pairs)[0]
        if name != "user-agent":  # of which Envoy makes one line before it looks at it
            pairs.append((name, HEADERS[name].near(rng)))
    if chance(rng, 0.05):
        pairs.append(("content-type", rng.choice(("application/grpc", "application/grpc+proto", "text/plain"))))
    return tuple((name.title() if chance(rng, 0.1) else name, value) for name, value in pairs)
