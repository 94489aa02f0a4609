"""Whom the mesh trusts: its own trust domain, other names of it, and the roots of all domains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshlib_control.compile.mesh_settings import MeshSettings

DEFAULT_TRUST_DOMAIN = "cluster.local"
SPIFFE = "spiffe://"
_DEFAULT_ACCOUNT = "default"


@dataclass(frozen=True, slots=True)
class Trust:
    """`secure` False: a mesh without identities (`--insecure-dev`): nobody is told to use certificates.

    `roots`: PEM bundle by trust domain, the own one and the federated ones.  Offline there may be none.
    """

    domain: str = DEFAULT_TRUST_DOMAIN
    aliases: tuple[str, ...] = ()
    roots: Mapping[str, str] = field(default_factory=dict)
    secure: bool = True

    @property
    def domains(self) -> tuple[str, ...]:
        """The trust domain and its other names."""
        return (self.domain, *(alias for alias in self.aliases if alias != self.domain))


def completed(trust: Trust | None, settings: MeshSettings) -> Trust:
    """`trust` with what MeshConfig adds: other names of the domain, roots of other domains, further roots of the own.

    None: there is no certificate authority to ask (offline), so MeshConfig says the name of the trust domain too.
    """
    base = Trust(settings.trust_domain or DEFAULT_TRUST_DOMAIN) if trust is None else trust
    roots = dict(base.roots)
    for domain, pem in settings.federated_roots:
        roots[domain] = _joined(roots.get(domain, ""), pem)
    aliases = tuple(dict.fromkeys((*base.aliases, *settings.trust_domain_aliases)))
    return Trust(base.domain, aliases, roots, base.secure)


def _joined(pem: str, more: str) -> str:
    if more.strip() in pem:
        return pem
    return f"{pem.rstrip()}\n{more}" if pem else more


def identities(trust: Trust, namespace: str, accounts: Iterable[str]) -> frozenset[str]:
    """SPIFFE IDs that workloads of these service accounts may have, under every name of the trust domain.

    An account that is not known is the one that processes have unless they are told otherwise.
    """
    names = {account or _DEFAULT_ACCOUNT for account in accounts} or {_DEFAULT_ACCOUNT}
    return frozenset(f"{SPIFFE}{domain}/ns/{namespace}/sa/{name}" for domain in trust.domains for name in names)


def under_aliases(trust: Trust, names: Iterable[str]) -> frozenset[str]:
    """SPIFFE IDs as they are written, and under every other name of the trust domain."""
    found: set[str] = set()
    for name in names:
        found.add(name)
        domain, slash, path = name.removeprefix(SPIFFE).partition("/")
        if name.startswith(SPIFFE) and domain in trust.domains:
            found.update(f"{SPIFFE}{other}{slash}{path}" for other in trust.domains)
    return frozenset(found)
