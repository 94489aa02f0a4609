"""Which host a name means, and who can see a resource."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TypeVar

from meshlib_control.config.validate.names import host_is_within, is_ip

DEFAULT_DOMAIN = "cluster.local"

T = TypeVar("T")


def fqdn(host: str, namespace: str, domain: str = DEFAULT_DOMAIN, *, known: Container[str] = ()) -> str:
    """The full name of a host as a resource of `namespace` writes it.

    As in Istio only a name without dots is completed; ``name.ns`` and ``name.ns.svc`` too when that is a host which is `known`.
    """
    host = host.lower().rstrip(".")
    if not host or host == "*" or is_ip(host):
        return host
    if "." not in host:
        return f"{host}.{namespace}.svc.{domain}"
    if host not in known:
        for completed in (f"{host}.svc.{domain}", f"{host}.{domain}"):
            if completed in known:
                return completed
    return host


def is_visible(export_to: Sequence[str], namespace: str, to: str) -> bool:
    """Whether a resource of `namespace` with `export_to` (defaults filled in) is seen in the namespace `to`."""
    return any(entry == "*" or entry == to or (entry == "." and namespace == to) for entry in export_to)


def most_specific(host: str, patterns: Iterable[tuple[str, T]]) -> list[T]:
    """Those whose pattern matches `host` best: the exact ones, else those of the longest wildcard."""
    matching = [(pattern, value) for pattern, value in patterns if host_is_within(host, pattern)]
    if not matching:
        return []
    best = max(matching, key=lambda item: (not item[0].startswith("*"), len(item[0])))[0]
    return [value for pattern, value in matching if pattern == best]
