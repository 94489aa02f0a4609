"""What the authority is started with, and what it gives out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca.bans import Ban
from meshlib_control.ca.material import Lifetimes
from meshlib_control.ca.own import OwnAuthority
from meshlib_control.ca.state import Phase


@dataclass(frozen=True, slots=True)
class CaSettings:
    """Times in seconds.

    `max_ttl`: of a workload's certificate, and what it gets when it asks for nothing; `control_names`: DNS names and IP
    addresses that the control service's own certificate has besides the one of its identity; `witness`: the file in which this
    machine remembers the authority, apart from the store; `own`: the authority to begin with, in place of a root made here.
    """

    trust_domain: str
    max_ttl: float = 86400.0
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    control_names: tuple[str, ...] = ()
    witness: Path | None = None
    own: OwnAuthority | None = None
    log_retention: float = 86400.0
    log_limit: int = 10_000


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """`chain_pem`: the leaf, then what is between it and the root; times in Unix seconds."""

    chain_pem: tuple[str, ...]
    roots_pem: str
    serial: int
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """All roots of the own trust domain, in the same order in both forms; the tainted one last (`CaState.trusted`)."""

    trust_domain: str
    pem: str
    der: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ControlIdentity:
    """An SVID of the control service.  `chain_pem` ends with the root, so that who knows only its hash can check it."""

    identity: SpiffeId
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    roots_pem: bytes
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class AuthorityStatus:
    """`id`: SHA-256 of the root certificate (hex), which workloads may pin; times in Unix seconds."""

    id: str
    phase: Phase
    since: float
    root_not_after: float
    signing_not_after: float
    root_key_here: bool


@dataclass(frozen=True, slots=True)
class CaStatus:
    """`issuing` False: the reasons are among `problems`."""

    trust_domain: str
    epoch: int
    issuing: bool
    authorities: tuple[AuthorityStatus, ...]
    bans: tuple[Ban, ...]
    unlogged: int
    problems: tuple[str, ...]
