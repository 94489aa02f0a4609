"""`http` rules of VirtualServices at random: conditions, and what is done with the requests that satisfy them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.support.routing.vocabulary import (
    HEADERS,
    METHODS,
    PATHS,
    QUERY,
    SCHEMES,
    Document,
    Words,
    chance,
    some,
    string_match,
)


@dataclass(frozen=True, slots=True)
class Hosts:
    """A host that can be called or routed to.  `short`: its name in its own namespace, if it has one."""

    host: str
    short: str
    namespace: str
    ports: tuple[int, ...]
    versions: tuple[str, ...]
    addresses: tuple[str, ...] = ()


_CONDITIONS = (
    *("uri", "uri", "uri", "headers", "headers", "withoutHeaders", "method", "queryParams", "authority", "port", "scheme"),
    *("sourceLabels", "sourceNamespace", "name"),
)


def rules(rng: Random, hosts: Sequence[Hosts], namespace: str, delegates: list[Document]) -> list[Document]:
    """Several with conditions, and mostly a last one without.  Delegates that they lead to are appended to `delegates`."""
    found = [_rule(rng, hosts, namespace, conditions(rng, hosts), delegates) for _ in range(rng.randint(1, 5))]
    if chance(rng, 0.7):
        found.append(_rule(rng, hosts, namespace, [], None))
    return found


def conditions(rng: Random, hosts: Sequence[Hosts]) -> list[Document]:
    return [_condition(rng, hosts) for _ in range(rng.choice((1, 1, 1, 2, 3)))]


def authorities(hosts: Sequence[Hosts]) -> Words:
    """What a rule can ask of the Host header."""
    names = sorted({name for each in hosts for name in (each.host, each.short) if name and "*" not in name})
    ports = sorted({port for each in hosts for port in each.ports})
    values = (*names, *(f"{name}:{port}" for name in names for port in ports))
    return Words(values, ("rev", "api.", "r", names[0]), {r"(reviews|ratings)(:\d+)?": (), r".*\.test(:80)?": (), "[a-z]+": ()})


def _condition(rng: Random, hosts: Sequence[Hosts]) -> Document:
    found: Document = {}
    for kind in some(rng, _CONDITIONS, 3):
        match kind:
            case "uri":
                found["uri"] = string_match(rng, PATHS)
                if "regex" not in found["uri"] and chance(rng, 0.25):
                    found["ignoreUriCase"] = True
            case "headers" | "withoutHeaders":
                names = some(rng, sorted(HEADERS), 2)
                found[kind] = {name: {} if chance(rng, 0.2) else string_match(rng, HEADERS[name]) for name in names}
            case "method":
                word = rng.choice(METHODS)
                found["method"] = rng.choice(
                    ({"exact": word}, {"prefix": word[:2]}, {"regex": f"({word}|GET)"}, {"exact": word.lower()})
                )
            case "queryParams":
                names = some(rng, sorted(QUERY), 2)
                found[kind] = {name: {} if chance(rng, 0.2) else string_match(rng, QUERY[name]) for name in names}
            case "authority":
                found["authority"] = string_match(rng, authorities(hosts))
            case "port":
                found["port"] = rng.choice((80, 8080, 9080))
            case "scheme":
                found["scheme"] = string_match(rng, SCHEMES)
            case "sourceLabels":
                found["sourceLabels"] = rng.choice(
                    ({"app": "client"}, {"team": "b"}, {"version": "v1", "team": "a"}, {"none": "x"})
                )
            case "sourceNamespace":
                found["sourceNamespace"] = rng.choice(hosts).namespace
            case _:
                found["name"] = rng.choice(("one", "two"))
    return found


def _rule(
    rng: Random, hosts: Sequence[Hosts], namespace: str, match: list[Document], delegates: list[Document] | None
) -> Document:
    rule: Document = {"match": match} if match else {}
    if chance(rng, 0.3):
        rule["name"] = rng.choice(("first", "second", "third"))
    kind = rng.choice(("route",) * 8 + ("redirect", "directResponse", "delegate"))
    if kind == "delegate" and delegates is not None:
        inner = [_rule(rng, hosts, namespace, _within(rng, match, hosts), None) for _ in range(rng.randint(1, 3))]
        delegates.append({"http": inner})
        rule["delegate"] = {}
        return rule
    if kind == "redirect":
        rule["redirect"] = _redirect(rng)
    elif kind == "directResponse":
        status = rng.choice((200, 204, 404, 418, 503))
        body = (
            {"body": {"string": rng.choice(("", "short and stout", "{}", "ä"))}} if status != 204 and chance(rng, 0.7) else {}
        )
        rule["directResponse"] = {"status": status, **body}
    else:
        _forward(rng, hosts, rule)
    if chance(rng, 0.3):
        rule["headers"] = _operations(rng)
    return rule


def _within(rng: Random, match: list[Document], hosts: Sequence[Hosts]) -> list[Document]:
    """Conditions of a delegate's rule: none, some that narrow those of the root, or any."""
    if not match or chance(rng, 0.3):
        return []
    if chance(rng, 0.3):
        return conditions(rng, hosts)
    narrowed = dict(rng.choice(match))
    narrowed.pop("name", None)
    if "prefix" in narrowed.get("uri", {}):
        narrowed["uri"] = rng.choice(({"prefix": narrowed["uri"]["prefix"] + "a"}, {"exact": narrowed["uri"]["prefix"] + "b"}))
    elif chance(rng, 0.5):
        narrowed["method"] = {"exact": "GET"}
    return [narrowed]


def _forward(rng: Random, hosts: Sequence[Hosts], rule: Document) -> None:
    count = rng.choice((1, 1, 1, 2, 3))
    shares = [_destination(rng, hosts) for _ in range(count)]
    whole = rng.randrange(count)
    for index, share in enumerate(shares):
        if count > 1:
            share["weight"] = 100 if index == whole else 0
        if chance(rng, 0.2):
            share["headers"] = _operations(rng)
    rule["route"] = shares
    if chance(rng, 0.3):
        rule["rewrite"] = _rewrite(rng)
    if chance(rng, 0.12):
        rule["fault"] = _fault(rng)
    if chance(rng, 0.3):
        rule["timeout"] = rng.choice(("20s", "30s", "45.5s"))
    if chance(rng, 0.15):
        rule["mirrors"] = [_copies(rng, hosts) for _ in range(rng.randint(1, 2))]
    if chance(rng, 0.3):
        retries: Document = {"attempts": rng.choice((0, 1, 3))}
        if retries["attempts"] and chance(rng, 0.5):
            retries |= {"perTryTimeout": "25s", "retryOn": "5xx,reset"}
        rule["retries"] = retries


def _destination(rng: Random, hosts: Sequence[Hosts]) -> Document:
    """To anything that there is; sometimes to what there is not."""
    target = rng.choice([each for each in hosts if "*" not in each.host])
    destination: Document = {"host": target.host}
    if len(target.ports) > 1 or chance(rng, 0.3):
        destination["port"] = {"number": rng.choice((*target.ports, *target.ports, 1234))}
    if chance(rng, 0.6):
        destination["subset"] = rng.choice((*target.versions, *target.versions, "v3", "nobody"))
    return {"destination": destination}


def _copies(rng: Random, hosts: Sequence[Hosts]) -> Document:
    share = {"percentage": {"value": rng.choice((0, 100, 100))}} if chance(rng, 0.7) else {}
    return _destination(rng, hosts) | share


def _redirect(rng: Random) -> Document:
    found: Document = {}
    for kind in some(rng, ("uri", "prefixRewrite", "authority", "port", "derivePort", "scheme", "redirectCode"), 3):
        match kind:
            case "uri" if "prefixRewrite" not in found:
                found["uri"] = rng.choice(("/new", "/new?own=1", "/", "/n/%20"))
            case "prefixRewrite" if "uri" not in found:
                found["prefixRewrite"] = rng.choice(("/", "/other/", "/p", "/p?own=1"))
            case "authority":
                found["authority"] = rng.choice(("other.test", "other.test:99"))
            case "port" if "derivePort" not in found:
                found["port"] = rng.choice((80, 443, 8443))
            case "derivePort" if "port" not in found:
                found["derivePort"] = rng.choice(("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"))
            case "scheme":
                found["scheme"] = rng.choice(("http", "https"))
            case "redirectCode":
                found["redirectCode"] = rng.choice((301, 302, 303, 307, 308))
    return found or {"uri": "/new"}


def _rewrite(rng: Random) -> Document:
    found: Document = {}
    match rng.randrange(4):
        case 0 | 1:
            found["uri"] = rng.choice(("/", "/x", "/x/", "/x/y%20z"))
        case 2:
            expression, replacement = rng.choice(
                (("/a/(.*)", r"/\1/a"), ("[a-z]+", "x"), ("/(a|api)", r"/\1\1"), ("^/", "/pre/"), ("o*", "0"), ("b$", r"\0\0"))
            )
            found["uriRegexRewrite"] = {"match": expression, "rewrite": replacement}
    if not found or chance(rng, 0.3):
        found["authority"] = rng.choice(("other.test", "other.test:99", "reviews"))
    return found


def _operations(rng: Random) -> Document:
    return {way: _changes(rng, way) for way in some(rng, ("request", "response"), 2)}


def _changes(rng: Random, way: str) -> Document:
    names = (
        ("x-a", "x-new", "X-Upper", "end-user", "cookie") if way == "request" else ("x-said", "x-new", "X-Upper", "set-cookie")
    )
    found: Document = {}
    for kind in some(rng, ("set", "add", "remove"), 3):
        chosen = some(rng, names, 2)
        if kind == "remove":
            found[kind] = chosen
        else:
            found[kind] = {name: rng.choice(("1", "two words", "", "5%%", "a,b")) for name in chosen}
    if way == "request" and chance(rng, 0.15):
        found.setdefault("set", {})[rng.choice(("host", "Host", ":authority"))] = "set.test"
    return found


def _fault(rng: Random) -> Document:
    found: Document = {}
    share = {"percentage": {"value": rng.choice((0, 100, 100))}} if chance(rng, 0.9) else {}
    if chance(rng, 0.8):
        code = rng.choice(({"httpStatus": 503}, {"httpStatus": 429}, {"httpStatus": 555}, {"grpcStatus": "NOT_FOUND"}))
        found["abort"] = {**code, **share}
    if not found or chance(rng, 0.3):
        found["delay"] = {"fixedDelay": "0.002s", **share}
    return found
