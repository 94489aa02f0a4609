"""Principals and trust domains of policies under every name of the mesh's trust domain (Istio: pilot/pkg/trustbundle).

A policy that names the trust domain by one of its names holds for all of them, so that a trust domain can be renamed.
``cluster.local`` always means the mesh's own, whatever its name is.
"""

from __future__ import annotations

from meshlib_control.compile.trust import DEFAULT_TRUST_DOMAIN, Trust

_PARTS = 5  # TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT


def under_all_names(principal: str, trust: Trust) -> tuple[str, ...]:
    """`principal`, written without scheme, with each name of the trust domain if it is of that.

    Of another form, of any trust domain (``*``) or of a foreign one: as it is.
    """
    parts = principal.split("/")
    domain = parts[0]
    if len(parts) != _PARTS or domain == "*" or not _is_own(domain, trust):
        return (principal,)
    rest = "/".join(parts[1:])
    # A pattern such as *-td already covers the names that end so.
    names = (principal if _covers(domain, name) else f"{name}/{rest}" for name in trust.domains)
    return tuple(dict.fromkeys(names))


def under_all_names_of_domain(domain: str, trust: Trust) -> tuple[str, ...]:
    """As `under_all_names`, of the trust domain alone."""
    if domain == "*" or not _is_own(domain, trust):
        return (domain,)
    return tuple(dict.fromkeys(domain if _covers(domain, name) else name for name in trust.domains))


def _is_own(domain: str, trust: Trust) -> bool:
    return domain == DEFAULT_TRUST_DOMAIN or any(domain == name or _covers(domain, name) for name in trust.domains)


def _covers(pattern: str, name: str) -> bool:
    return pattern.startswith("*") and name.endswith(pattern[1:])
