"""Host names as configuration writes them: short names, wildcards, addresses."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from ipaddress import ip_address

ANY = "*"


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")


def is_address(name: str) -> bool:
    """An IP address; IPv6 with or without brackets."""
    if ":" not in name:  # by expression: asked for each endpoint, and `ipaddress` takes ten times as long
        return _IPV4.fullmatch(name) is not None
    try:
        return bool(ip_address(name.strip("[]")))
    except ValueError:
        return False


def is_wildcard(name: str) -> bool:
    return name.startswith(ANY)


def resolve(name: str, namespace: str, *, domain: str, known: Container[str] = ()) -> str:
    """The fully qualified form of a host in a resource of `namespace` (Istio's ResolveShortnameToFQDN).

    A name without a dot is completed; one with a dot is taken as it is, unless it is the ``svc.ns`` or ``svc.ns.svc`` form
    of a service that is `known`.
    """
    name = name.lower().rstrip(".")
    if name == ANY or not name or is_address(name):
        return name
    if "." not in name:
        return f"{name}.{namespace}.svc.{domain}"
    if name not in known:
        for completed in (f"{name}.svc.{domain}", f"{name}.{domain}"):
            if completed in known:
                return completed
    return name


def matches(pattern: str, host: str) -> bool:
    """Whether `pattern`, exact or ``*.suffix`` or ``*``, covers `host`, which may be a wildcard itself."""
    if not is_wildcard(pattern):
        return pattern == host
    suffix = pattern[1:]
    return host.lstrip(ANY).endswith(suffix) and (len(host) > len(suffix))


def most_specific(patterns: Iterable[str], host: str) -> str | None:
    """The pattern that covers `host` most narrowly: itself, else the longest wildcard."""
    best: str | None = None
    for pattern in patterns:
        if pattern == host:
            return pattern
        if is_wildcard(pattern) and matches(pattern, host) and (best is None or len(pattern) > len(best)):
            best = pattern
    return best


def with_port(name: str, port: int) -> str:
    """``host:port``, IPv6 addresses in brackets."""
    return f"[{name}]:{port}" if ":" in name and not name.startswith("[") else f"{name}:{port}"


def bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") else name


def split_authority(authority: str, default_port: int) -> tuple[str, int] | None:
    """Host in lower case without brackets and final dot, and port.  None when the port is no port."""
    host, colon, port = authority.lower().rpartition(":")
    if not colon or "]" in port or (":" in host and not host.startswith("[")):
        host, port = authority.lower(), str(default_port)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    return host.strip("[]").rstrip("."), int(port)
