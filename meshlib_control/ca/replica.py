"""One replica's view of the authority that all replicas share: opened or made, followed, changed by compare-and-set."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cryptography import x509

from meshlib_control.ca import certificates, state
from meshlib_control.ca.certificates import der, not_after
from meshlib_control.ca.errors import CaError
from meshlib_control.ca.issue_log import IssueLog
from meshlib_control.ca.keys import KeyEncryptionKey
from meshlib_control.ca.material import Signer, Workshop
from meshlib_control.ca.model import CaSettings, TrustBundle
from meshlib_control.ca.own import OwnAuthority
from meshlib_control.ca.state import MARKER, STATE, CaState, Phase
from meshlib_control.ca.witness import Witness, lost
from meshlib_control.changes import Changes
from meshlib_control.errors import Conflict, StoreError
from meshlib_control.store.model import Entry, Store

log = logging.getLogger(__name__)

ATTEMPTS = 10
"""Of a change that others are faster with."""
ROOT_WARNING = 365 * 86400.0
"""Seconds before its end at which a root should be rotated; a tenth of its life if that is less."""


@dataclass(frozen=True, slots=True)
class Known:
    """What this replica goes by: swapped as one, so that issuing from any thread sees one state."""

    state: CaState
    signer: Signer
    bundle: TrustBundle


class Replica:
    """`known` is None before `open`.  `stopped`: why nothing may be issued; empty when it may.  `changes` tells of both."""

    def __init__(
        self, store: Store, kek: KeyEncryptionKey, settings: CaSettings, issue_log: IssueLog, clock: Callable[[], float]
    ) -> None:
        self.known: Known | None = None
        self.stopped = "the certificate authority has not been started"
        self.changes = Changes()
        self.workshop = Workshop(kek, settings.trust_domain, settings.lifetimes)
        self._store = store
        self._kek = kek
        self._settings = settings
        self._log = issue_log
        self._clock = clock
        self._witness = Witness(settings.witness)
        self._warnings: dict[str, str] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should look after before it stops the authority."""
        return tuple(self._warnings.values())

    async def open(self) -> None:
        """Take the authority of the store, or make one if there never was any.  Raises `CaError` and `StoreError`."""
        # The evidence is read before the state, and written after it: who sees it must find the state as well.
        evidence = await self._evidence()
        entry = await self._store.get(STATE)
        if entry is None:
            if evidence:
                raise lost(evidence, self._witness.origin)
            entry = await self._create()
        current = self._checked(entry)
        self._adopt(current)
        await self._mark()
        await self._admit_own(current)

    async def refresh(self) -> None:
        """Go by what the store has now.  When that cannot be used, nothing is issued and trust stays.  Raises `StoreError`."""
        entry = await self._store.get(STATE)
        try:
            if entry is None:
                raise lost("this replica had it", self._witness.origin)
            self._adopt(self._checked(entry))
        except CaError as error:
            self.stop(str(error))

    async def change(self, next_state: Callable[[CaState], CaState]) -> None:
        """Compute the next state over the newest, and store it if that still is the newest.  Raises `CaError`, `StoreError`."""
        for attempt in range(1, ATTEMPTS + 1):
            entry = await self._store.get(STATE)
            if entry is None:
                raise lost("this replica had it", self._witness.origin)
            current = self._checked(entry)
            proposed = next_state(current)
            if proposed is current:
                break
            try:
                await self._store.put(STATE, state.encoded(proposed, self._kek), expect=entry.revision)
                break
            except StoreError as error:
                # The answer may have been lost, or the request repeated below us: the state itself tells.
                if await self._stored(proposed):
                    break
                if not isinstance(error, Conflict) or attempt == ATTEMPTS:
                    raise
        self._adopt(proposed)

    async def restore(self) -> None:
        """Give an emptied store back what this replica still has.  Raises `CaError` when it has nothing."""
        if self.known is None:
            raise CaError("there is nothing to restore", where="this replica", why=self.stopped, next_step="Ask another one.")
        with suppress(Conflict):
            await self._store.put(STATE, state.encoded(self.known.state, self._kek), expect=0)
        await self._mark()
        await self.refresh()

    def stop(self, why: str) -> None:
        """Nothing is issued any more, until the store has a usable state again."""
        if why == self.stopped:
            return
        log.error("no certificates are issued any more: %s", why)
        self.stopped = why
        self.changes.notify()

    def check_ages(self) -> None:
        """Warn of certificates that end soon."""
        known = self.known
        if known is None:
            return
        now = self._clock()
        left = not_after(certificate_of(known.state.active.root)) - now
        soon = left < min(ROOT_WARNING, self._settings.lifetimes.root / 10)
        self._warn("root", f"the root expires in {left / 86400:.0f} days: rotate it (`meshctl ca prepare`)" if soon else "")
        signer = known.signer
        late = now > half_life(signer) + (signer.not_after - half_life(signer)) / 2
        what = "see the log for why it was not renewed" if signer.renewable else "renew it, and start again with it"
        hours = max(0.0, signer.not_after - now) / 3600
        self._warn("signing", f"the signing certificate has {hours:.0f} hours left: {what}" if late else "")

    async def _stored(self, proposed: CaState) -> bool:
        entry = await self._store.get(STATE)
        return entry is not None and self._checked(entry) == proposed

    async def _evidence(self) -> str:
        if seen := self._witness.recall():
            return f"{self._witness.origin} remembers it (epoch {seen.epoch})"
        if await self._store.get(MARKER):
            return f"{MARKER} in the store says that there was one"
        if await self._log.exists():
            return "the store has a log of certificates that it issued"
        return ""

    async def _create(self) -> Entry:
        """The entry of a new authority, made by this replica or by whichever was faster."""
        now = self._clock()
        own = self._settings.own
        first = self.workshop.adopt(own, Phase.ACTIVE, now) if own else self.workshop.make(Phase.ACTIVE, now)
        made = CaState(uuid.uuid4().hex, self._settings.trust_domain, 1, (first,))
        with suppress(Conflict):
            await self._store.put(STATE, state.encoded(made, self._kek), expect=0)
            log.info("made the certificate authority of %s, root sha256:%s", made.trust_domain, first.id)
        entry = await self._store.get(STATE)
        if entry is None:
            raise lost("it was made a moment ago", self._witness.origin)
        return entry

    async def _mark(self) -> None:
        with suppress(Conflict):
            await self._store.put(MARKER, b"1", expect=0)

    async def _admit_own(self, current: CaState) -> None:
        """Settle what the operator brought with what the store has.  Raises `CaError`."""
        own = self._settings.own
        if own is None:
            return
        root = state.root_id(der(own.root))
        holder = next((each for each in current.authorities if each.id == root), None)
        if holder is None:
            raise state.refused(
                "start with this certificate authority",
                f"the store's is another one (root sha256:{current.active.id})",
                "Bring the new root in with a rotation: `meshctl ca prepare`.",
            )
        if own.is_root or _newest(own, holder.chain):
            return
        proposed = self.workshop.adopt(own, holder.phase, self._clock(), epoch=current.epoch + 1)
        await self.change(lambda newest: state.renewed(newest, root, proposed.chain, proposed.key))
        log.info("the signing certificate that was brought along replaces the one in the store")

    def _checked(self, entry: Entry) -> CaState:
        """Raises `CaError`."""
        current = state.decoded(entry.value, self._kek)
        if current.trust_domain != self._settings.trust_domain:
            raise CaError(
                f"the certificate authority in the store is that of {current.trust_domain}",
                where=STATE,
                why=f"this service was started for the trust domain {self._settings.trust_domain}",
                next_step="Start it with the store's trust domain, or with another store.",
            )
        return current

    def _adopt(self, current: CaState) -> None:
        """Go by this state from now on.  Raises `CaError` when it cannot be used."""
        if self.known is not None and not self.stopped and current == self.known.state:
            return
        self._warn("rollback", self._witness.check(current))
        self.known = Known(current, self.workshop.signer(current.active), _bundle(current))
        self.stopped = ""
        self._witness.remember(current)
        self.check_ages()
        self.changes.notify()

    def _warn(self, subject: str, problem: str) -> None:
        if not problem:
            self._warnings.pop(subject, None)
            return
        if subject not in self._warnings:
            log.warning("certificate authority: %s", problem)
        self._warnings[subject] = problem


def certificate_of(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode("ascii"))


def half_life(signer: Signer) -> float:
    return (signer.not_before + signer.not_after) / 2


def _bundle(current: CaState) -> TrustBundle:
    roots = [each.root for each in current.trusted]
    return TrustBundle(current.trust_domain, "".join(roots), tuple(der(certificate_of(root)) for root in roots))


def _newest(own: OwnAuthority, chain: Sequence[str]) -> bool:
    """Whether the store's signing certificate is at least as new as the one that was brought along."""
    stored = certificate_of(chain[0])
    return stored == own.chain[0] or certificates.not_before(stored) >= certificates.not_before(own.chain[0])
