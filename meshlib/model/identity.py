"""Who somebody is: SPIFFE IDs, verified peers, and the roots that vouch for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SCHEME = "spiffe://"
MAX_ID = 2048
"""Bytes of a SPIFFE ID (SPIFFE-ID section 2.3)."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """``spiffe://<trust domain><path>``; equal IDs are equal byte for byte (the standard has no other equality)."""

    trust_domain: str
    path: str = ""  # "/ns/default/sa/reviews"; empty: the trust domain itself (a signing authority)

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain):
            raise ValueError(f"{self.trust_domain!r} is no trust domain: expected 1 to 255 of a-z, 0-9, '.', '-' and '_'")
        if self.path:
            first, *segments = self.path.split("/")
            if first or not all(_SEGMENT.fullmatch(part) and part not in (".", "..") for part in segments):
                raise ValueError(f"{self.path!r} is no SPIFFE path: expected '/' and segments of A-Z, a-z, 0-9, '.', '-', '_'")
        if len(SCHEME) + len(self.trust_domain) + len(self.path) > MAX_ID:
            raise ValueError(f"a SPIFFE ID has at most {MAX_ID} bytes")

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Raises ValueError saying what is wrong (SPIFFE-ID sections 2.1 and 2.2)."""
        if not text.startswith(SCHEME):
            raise ValueError(f"{text[:100]!r} is no SPIFFE ID: expected it to begin with {SCHEME}")
        trust_domain, slash, rest = text[len(SCHEME) :].partition("/")
        return cls(trust_domain, slash + rest)

    @classmethod
    def of_workload(cls, trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
        """Istio's form.  Raises ValueError for parts that would not stay one segment each."""
        for name, value in (("namespace", namespace), ("service account", service_account)):
            if not _SEGMENT.fullmatch(value) or value in (".", ".."):
                raise ValueError(f"{value!r} is no {name}: expected A-Z, a-z, 0-9, '.', '-' and '_'")
        return cls(trust_domain, f"/ns/{namespace}/sa/{service_account}")

    @property
    def namespace(self) -> str:
        """Of ``/ns/NAMESPACE/sa/ACCOUNT``; empty for other paths."""
        return self._workload()[0]

    @property
    def service_account(self) -> str:
        """Of ``/ns/NAMESPACE/sa/ACCOUNT``; empty for other paths."""
        return self._workload()[1]

    @property
    def principal(self) -> str:
        """As Istio's policies write it: without the scheme."""
        return self.trust_domain + self.path

    def _workload(self) -> tuple[str, str]:
        parts = self.path.split("/")
        return (parts[2], parts[4]) if len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa" else ("", "")

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, proved by its certificate inside the handshake.  Never made from a header."""

    id: SpiffeId
    not_after: float = 0.0  # Unix seconds: end of the certificate
    uri: str = field(init=False, compare=False)  # str(id), which policies compare for every request
    dns_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", str(self.id))

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True, slots=True)
class TrustBundles:
    """Root certificates (DER) by trust domain.  A peer is verified with those of its own trust domain, and no others."""

    roots: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
