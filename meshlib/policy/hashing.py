"""What places a call: the sources of its hash, combined to 64 bits exactly as by Envoy (``RouteAction.hash_policy``).

A client that lacks the cookie by which it is to be placed gets one.  Envoy derives its value from the addresses of the
connection that the client has with it; a process has no connection with itself, so here it is drawn (docs/decisions/030).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from meshlib.model.call import Call
from meshlib.model.route import HashPolicy
from meshlib.policy.matching import query_value, values_of
from meshlib.policy.rewriting import compile_replacement
from meshlib.policy.rng import Rng

_WORD = 2**64

Digest = Callable[..., int]
"""XXH64 of bytes, with a seed of 0 unless another one is given."""


class Hashed(NamedTuple):
    """`value`: of a call; None: it has nothing to hash.  `cookies`: Set-Cookie values for its response."""

    value: int | None
    cookies: tuple[bytes, ...] = ()


NO_HASH = Hashed(None)
"""Of a call to a cluster that does not ask for one."""

Source = Callable[[Call, Rng, list[bytes]], "int | None"]
"""One policy's hash of a call; a cookie that it makes is appended to the list."""


class Hasher:
    """The hash policies of a route, compiled."""

    __slots__ = ("_sources",)

    def __init__(self, policies: Sequence[HashPolicy], address: str = "") -> None:
        """`address`: of this process, for policies that place calls by their source.

        Raises ValueError for a rewrite that RE2 does not take.
        """
        from xxhash import xxh64_intdigest  # only for those who hash

        # A route has the policies of all its destinations, which are often the same: None asks for the value before once more.
        self._sources = tuple(
            (
                None if place and _asks_again(policies[place - 1], policy) else _compile(policy, address, xxh64_intdigest),
                policy.terminal,
            )
            for place, policy in enumerate(policies)
        )

    def __call__(self, call: Call, rng: Rng) -> Hashed:
        """Once per call: retries keep it, and so do the cookies that it makes."""
        found: int | None = None
        value: int | None = None
        cookies: list[bytes] = []
        for source, terminal in self._sources:
            if source is not None:
                value = source(call, rng, cookies)
            if value is not None:
                found = value if found is None else ((found << 1 | found >> 63) % _WORD) ^ value
            if terminal and found is not None:  # whichever policy it comes from
                break
        return Hashed(found, tuple(cookies))


def hasher_of(policies: Sequence[HashPolicy], address: str = "") -> Hasher | None:
    """None: the route hashes nothing, so a cluster that wants a hash gets random ones.  Raises as `Hasher`."""
    return Hasher(policies, address) if policies else None


def _asks_again(before: HashPolicy, policy: HashPolicy) -> bool:
    """Whether it has the same value, whatever the call is.  Cookies that are made are drawn."""
    return policy == before and policy.ttl is None


def _compile(policy: HashPolicy, address: str, digest: Digest) -> Source:
    match policy.kind:
        case "header":
            return _header(policy, digest)
        case "cookie":
            return _cookie(policy, digest)
        case "query":
            return _query(policy.name, digest)
        case "source_ip":
            whole = digest(address.encode("ascii")) if address else None
            return lambda call, rng, cookies: whole


def _header(policy: HashPolicy, digest: Digest) -> Source:
    """Of several values, sorted, each is the seed of the next one's hash."""
    read = _reader(policy.name)
    rewrite = compile_replacement(policy.rewrite) if policy.rewrite is not None else None

    def source(call: Call, rng: Rng, cookies: list[bytes]) -> int | None:
        values = read(call)
        if not values:
            return None
        if rewrite is not None:
            values = [rewrite(value) for value in values]
        if len(values) == 1:
            return digest(values[0])
        seed = 0
        for value in sorted(values):
            seed = digest(value, seed)
        return seed

    return source


def _reader(name: str) -> Callable[[Call], Sequence[bytes]]:
    """All values of a header; pseudo headers are what goes on the wire."""
    match name:
        case ":method":
            return lambda call: [call.method.encode("ascii")]
        case ":path":
            return lambda call: [call.path.encode("latin-1", "replace")]
        case ":authority" | "host":
            return lambda call: [call.host.encode("latin-1", "replace")]
    wanted = name.encode("ascii")
    return lambda call: values_of(call, wanted)


def _query(name: str, digest: Digest) -> Source:
    """As it stands in the URL, percent-encoding and all."""

    def source(call: Call, rng: Rng, cookies: list[bytes]) -> int | None:
        value = query_value(call.path, name)
        return digest(value.encode("latin-1", "replace")) if value is not None else None

    return source


def _cookie(policy: HashPolicy, digest: Digest) -> Source:
    name = policy.name.encode("latin-1")
    lifetime = b"; Max-Age=%d" % policy.ttl if policy.ttl else b""
    path = b"; Path=%b" % policy.path.encode("latin-1") if policy.path else b""
    pairs = (f"; {key}={value}" if value else f"; {key}" for key, value in policy.attributes)
    attributes = b"".join(pair.encode("latin-1") for pair in pairs)

    def source(call: Call, rng: Rng, cookies: list[bytes]) -> int | None:
        value = cookie_value(values_of(call, b"cookie"), name)
        if not value and policy.ttl is not None:
            value = b"%016x" % rng.randrange(_WORD)
            cookies.append(b'%b="%b"%b%b%b; HttpOnly' % (name, value, lifetime, path, attributes))
        return digest(value) if value else None

    return source


def cookie_value(headers: Sequence[bytes], name: bytes) -> bytes:
    """The first cookie of that name, without the quotes around it; empty when there is none (RFC 6265 section 4.2)."""
    for header in headers:
        for pair in header.split(b";"):
            key, equals, value = pair.strip(b" ").partition(b"=")
            if equals and key == name:
                return value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value
    return b""
