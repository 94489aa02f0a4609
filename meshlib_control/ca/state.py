"""What all replicas agree on: one document in the store, moved by compare-and-set from one step to the next.

The document is authenticated with the key encryption key (its certificates decide whom the mesh trusts, so who can write to
the store must not be able to add one), and the private keys in it are sealed with that key.  `epoch` grows with every change.

A rotation goes prepare -> activate -> taint -> revoke, as SPIRE's: the phases of the two authorities are then

    prepare   ACTIVE  PREPARED     both are trusted, the old one still issues
    activate  OLD     ACTIVE       the new one issues
    taint     TAINTED ACTIVE       workloads with a certificate of the old one renew at once
    revoke            ACTIVE       the old one is trusted no more
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from meshlib_control.ca.errors import CaError, RotationRefused
from meshlib_control.ca.keys import KeyEncryptionKey, Sealed

WATCHED = "ca/trust/"
"""What replicas follow: the state, the marker and the bans."""
STATE = "ca/trust/authority"
MARKER = "ca/trust/created"
BANS = "ca/trust/bans/"

FORMAT = 1


class Phase(StrEnum):
    """Of one authority in a rotation."""

    PREPARED = "prepared"
    ACTIVE = "active"
    OLD = "old"
    TAINTED = "tainted"


class Authority(msgspec.Struct, frozen=True):
    """A root, and what signs below it.  `id`: SHA-256 of the root certificate (DER, hex).

    `chain`: the signing certificate and those between it and the root (PEM).  `root_key` is None for a root whose key the
    operator keeps: then the signing certificate cannot be renewed here.  `since`: Unix seconds, of the phase.
    """

    id: str
    phase: Phase
    since: float
    root: str
    chain: tuple[str, ...]
    key: Sealed
    root_key: Sealed | None = None


class CaState(msgspec.Struct, frozen=True):
    """`lineage`: random, and the same through all rotations; `authorities`: oldest first; exactly one is active."""

    lineage: str
    trust_domain: str
    epoch: int
    authorities: tuple[Authority, ...]

    @property
    def active(self) -> Authority:
        return next(each for each in self.authorities if each.phase is Phase.ACTIVE)

    def of_phase(self, phase: Phase) -> Authority | None:
        return next((each for each in self.authorities if each.phase is phase), None)

    @property
    def trusted(self) -> tuple[Authority, ...]:
        """As trust bundles list them: the tainted one last.

        Workloads renew at once when another root comes first than the one their certificate leads to, and did not before:
        the order is how they learn of a taint over plain SDS.
        """
        return tuple(sorted(self.authorities, key=lambda each: each.phase is Phase.TAINTED))


class _Stored(msgspec.Struct, frozen=True):
    format: int
    kek: str
    tag: bytes
    state: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a rotation: what it takes, and what becomes of it."""

    name: str
    before: Phase
    after: Phase | None  # None: removed
    missing: str  # what to do first
    also: tuple[Phase, Phase] | None = None  # a second authority that changes with it


ACTIVATE = Step("activate", Phase.PREPARED, Phase.ACTIVE, "Prepare a new root first.", (Phase.ACTIVE, Phase.OLD))
TAINT = Step("taint", Phase.OLD, Phase.TAINTED, "Prepare a new root and activate it first.")
REVOKE = Step("revoke", Phase.TAINTED, None, "Taint the old root first, and let workloads renew.")


def root_id(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def key_path(public_key: bytes) -> str:
    """Where a private key counts as being stored: in the state, under the hash of its public key."""
    return f"{STATE}/{hashlib.sha256(public_key).hexdigest()}"


def encoded(state: CaState, kek: KeyEncryptionKey) -> bytes:
    content = msgspec.json.encode(state)
    return msgspec.json.encode(_Stored(FORMAT, kek.id, kek.authenticate(STATE, content), msgspec.Raw(content)))


def decoded(value: bytes, kek: KeyEncryptionKey) -> CaState:
    """Raises `KeyUnusable` for another key or a changed document, `CaError` for what is none of ours."""
    try:
        stored = msgspec.json.decode(value, type=_Stored)
    except msgspec.DecodeError as error:
        raise _unreadable(f"it is damaged ({error})") from error
    if stored.format != FORMAT:
        raise _unreadable(f"it has format {stored.format}, and this version knows {FORMAT}")
    kek.check(STATE, stored.kek)
    content = bytes(stored.state)
    kek.verify(STATE, content, stored.tag)
    try:
        return msgspec.json.decode(content, type=CaState)
    except msgspec.DecodeError as error:
        raise _unreadable(str(error)) from error


def prepared(state: CaState, authority: Authority) -> CaState:
    """With a second authority.  Raises `RotationRefused` while there is one already."""
    if len(state.authorities) > 1:
        other = next(each for each in state.authorities if each.phase is not Phase.ACTIVE)
        raise refused("prepare", f"another rotation is under way: root {other.id[:16]} is {other.phase}", "Finish that one.")
    if authority.id in {each.id for each in state.authorities}:
        raise refused("prepare", f"root {authority.id[:16]} is the one in use", "Bring another one, or let one be made.")
    return _next(state, (*state.authorities, authority))


def stepped(state: CaState, step: Step, now: float) -> CaState:
    """After `step`.  Raises `RotationRefused` when it is not the next one."""
    if state.of_phase(step.before) is None:
        raise refused(step.name, f"no root is {step.before}", step.missing)
    phases: dict[Phase, Phase | None] = {step.before: step.after}
    if step.also:
        phases[step.also[0]] = step.also[1]
    authorities = []
    for each in state.authorities:
        phase = phases.get(each.phase, each.phase)
        if phase is not None:
            authorities.append(each if phase is each.phase else replace(each, phase=phase, since=now))
    return _next(state, tuple(authorities))


def renewed(state: CaState, authority: str, chain: tuple[str, ...], key: Sealed) -> CaState:
    """With another signing certificate for `authority`."""

    def change(each: Authority) -> Authority:
        return replace(each, chain=chain, key=key) if each.id == authority else each

    return _changed(state, change)


def _changed(state: CaState, change: Callable[[Authority], Authority]) -> CaState:
    return _next(state, tuple(change(each) for each in state.authorities))


def _next(state: CaState, authorities: tuple[Authority, ...]) -> CaState:
    return replace(state, epoch=state.epoch + 1, authorities=authorities)


def refused(step: str, why: str, next_step: str) -> RotationRefused:
    return RotationRefused(f"cannot {step}", where="rotation of the root", why=why, next_step=next_step)


def _unreadable(why: str) -> CaError:
    return CaError(
        "the certificate authority's state cannot be read",
        where=f"{STATE} in the store",
        why=why,
        next_step="Restore the store from a backup, or start the version that wrote it.",
    )
