"""The attributes that conditions of an AuthorizationPolicy are on: their names, and how names in brackets are written.

Istio: pkg/config/security/security.go and pilot/pkg/security/authz/model.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final

HEADERS: Final = "request.headers"
CLAIMS: Final = "request.auth.claims"
METADATA: Final = "experimental.envoy.filters."

ADDRESSES: Final = frozenset({"source.ip", "remote.ip", "destination.ip"})
TOKEN: Final = frozenset({"request.auth.principal", "request.auth.audiences", "request.auth.presenter"})
PEER: Final = frozenset({"source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain"})
"""What only the verified identity of the other end says: nothing is known of a plaintext connection."""

PLAIN: Final = ADDRESSES | TOKEN | PEER | {"destination.port", "connection.sni"}
"""Attributes without a name in brackets."""

FORMER: Final = {
    "destination.namespace": "a policy is for its own namespace",
    "destination.name": "choose workloads with the selector",
    "destination.user": "choose workloads with the selector",
    "destination.labels": "choose workloads with the selector",
}
"""Attributes of Istio's first API, and what says the same today."""


_PSEUDO: Final = frozenset({":authority", ":method", ":path"})
_HEADER_NAME: Final = re.compile(r":?[0-9A-Za-z!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.1


def is_http_only(key: str) -> bool:
    """Whether nothing is known of the attribute on a plain TCP connection."""
    return key in TOKEN or key.startswith((f"{HEADERS}[", f"{CLAIMS}["))


def needs_peer(key: str) -> bool:
    """Whether the attribute comes from the verified identity of the other end."""
    return key in PEER


def header_name(key: str) -> str:
    """``x-role`` of ``request.headers[x-role]``."""
    return _between(key.removeprefix(HEADERS))


def claim_path(key: str) -> tuple[str, ...]:
    """``("a", "b")`` of ``request.auth.claims[a][b]``.  Brackets that do not pair up are part of one name, as in Istio."""
    rest = key.removeprefix(CLAIMS)
    names: list[str] = []
    start = 0
    while start < len(rest):
        end = rest.find("]", start)
        if rest[start] != "[" or end < 0 or "[" in rest[start + 1 : end]:
            return (_between(rest),)
        names.append(rest[start + 1 : end])
        start = end + 1
    return tuple(names)


def metadata_key(key: str) -> tuple[str, str]:
    """Filter and key of ``experimental.envoy.filters.http.ext_authz[user]``."""
    name, _, inner = key.removeprefix("experimental.").removesuffix("]").partition("[")
    return name, inner


def attribute_fault(key: str) -> str | None:
    """What keeps `key` from being an attribute."""
    if not key:
        return "the key is empty; name an attribute such as request.headers[x-role]"
    if key in PLAIN:
        return None
    former = FORMER.get(key.partition("[")[0])
    if former is not None:
        return f"{key} is of Istio's first API; {former}"
    opening = key.find("[")
    for prefix in (HEADERS, CLAIMS, METADATA):
        if key.startswith(prefix):
            name = "NAME" if prefix == METADATA else ""
            starts = opening > len(prefix) if name else opening == len(prefix)
            if not starts or not key.endswith("]") or opening >= len(key) - 2:
                return f"{key!r} needs a name in brackets, as in {prefix}{name}[name]"
            return _name_fault(key, prefix)
    name, bracket, rest = key.partition("[")
    close = get_close_matches(name, (HEADERS, CLAIMS) if bracket else (*PLAIN, f"{HEADERS}[]", f"{CLAIMS}[]"), n=1)
    if close:
        return f"there is no attribute {key!r}; did you mean {close[0]}{bracket}{rest}?"
    return f"there is no attribute {key!r}; known are {', '.join(sorted(PLAIN))}, {HEADERS}[], {CLAIMS}[] and {METADATA}NAME[]"


def unreadable_header(key: str) -> str | None:
    """Why policies cannot look at a header, although it is one that Envoy shows them."""
    name = header_name(key).lower() if key.startswith(f"{HEADERS}[") else ""
    if name.startswith("grpc-"):
        return f"{name} is gRPC's own, and not every server shows it to policies; ask for another header"
    if name.startswith(":") and name not in _PSEUDO:
        return f"{name} is what the client says of itself; nothing may depend on it"
    return None


def _name_fault(key: str, prefix: str) -> str | None:
    if prefix == HEADERS and not _HEADER_NAME.fullmatch(header_name(key)):
        return f"{header_name(key)!r} is not the name of a header"
    if prefix == CLAIMS and "" in claim_path(key):
        return f"{key!r} names a claim without a name"
    return None


def _between(text: str) -> str:
    return text.removeprefix("[").removesuffix("]")
