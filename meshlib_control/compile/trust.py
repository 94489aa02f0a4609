"""Whom the mesh trusts: its own trust domain, other names of it, and the roots of all domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_TRUST_DOMAIN = "cluster.local"


@dataclass(frozen=True, slots=True)
class Trust:
    """`secure` False: a mesh without identities (`--insecure-dev`, offline): nobody is told to use certificates.

    `roots`: PEM bundle by trust domain, the own one and the federated ones.  Offline there are none.
    """

    domain: str = DEFAULT_TRUST_DOMAIN
    aliases: tuple[str, ...] = ()
    roots: Mapping[str, str] = field(default_factory=dict)
    secure: bool = True
