"""The certificate authority of one trust domain, shared by all replicas over one store.

Issuing reads nothing and waits for nothing: it needs the signing key in memory and room in the queue of the log, so it goes on
while the store is away, until the signing certificate expires.  Everything that changes the authority is one compare-and-set
of its state, which all replicas follow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca import certificates, state
from meshlib_control.ca.bans import Ban, Bans
from meshlib_control.ca.certificates import PublicKey, Validity, Workload, not_after, pem
from meshlib_control.ca.csr import read_csr
from meshlib_control.ca.errors import CsrRefused, IdentityBanned, IdentityRefused, IssuingStopped
from meshlib_control.ca.issue_log import IssueLog, IssueRecord
from meshlib_control.ca.keys import KeyEncryptionKey
from meshlib_control.ca.material import Signer
from meshlib_control.ca.model import AuthorityStatus, CaSettings, CaStatus, ControlIdentity, IssuedCertificate, TrustBundle
from meshlib_control.ca.names import check_workload, control_id, dns_name
from meshlib_control.ca.own import OwnAuthority
from meshlib_control.ca.replica import Known, Replica, certificate_of, half_life
from meshlib_control.ca.state import CaState, Phase, Step
from meshlib_control.errors import ControlServiceError, StoreError
from meshlib_control.store.model import Entry, Store
from meshlib_control.tasks import cancel, spawn

log = logging.getLogger(__name__)

CHECK_INTERVAL = 60.0
"""Seconds between looks at the age of certificates."""
PRUNE_INTERVAL = 3600.0


class CertificateAuthority:
    """`start` opens or makes it.  `changes` tells of another trust bundle, of bans, and of steps of a rotation.

    `issue`, `control_identity`, `trust_bundle` and `is_banned` may be used from any thread.
    """

    def __init__(
        self, store: Store, kek: KeyEncryptionKey, settings: CaSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self.trust_domain = settings.trust_domain
        self.log = IssueLog(store, retention=settings.log_retention, limit=settings.log_limit, clock=clock)
        self._store = store
        self._clock = clock
        self._bans = Bans(store)
        self._replica = Replica(store, kek, settings, self.log, clock)
        self.changes = self._replica.changes
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the authority of the store, or make it; then follow it.  Raises `CaError` and `StoreError`."""
        await self._replica.open()
        self._bans.follow(await self._store.scan(state.BANS))
        self._tasks = [
            spawn(self._follow(), "certificate authority: following"),
            spawn(self._maintain(), "certificate authority: maintenance"),
            spawn(self.log.run(), "certificate authority: log"),
        ]

    async def close(self) -> None:
        """Idempotent.  Writes what the log still holds, if the store can be reached."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        await cancel(tasks)
        self._replica.stopped = "the certificate authority is closed"
        try:
            await self.log.flush()
        except StoreError as error:
            log.warning("%d records of issued certificates were not written: %s", self.log.waiting, error)

    def issue(
        self,
        csr_pem: str | bytes,
        identity: SpiffeId,
        *,
        caller: str,
        ttl: float | None = None,
        attested_at: float | None = None,
    ) -> IssuedCertificate:
        """A certificate for `identity` and the key of the CSR, of which nothing else is used.

        `caller`: how the workload proved who it is, for the log; `ttl`: seconds asked for, capped by policy and by the chain;
        `attested_at`: when it did, if it was not now.  Raises `RequestRefused`.
        """
        request = read_csr(csr_pem)
        self.check_identity(identity)
        return self._issued(request.key, identity, caller=caller, csr=request.digest, ttl=ttl, attested_at=attested_at)

    def check_identity(self, identity: SpiffeId) -> None:
        """Raises `IdentityRefused` for whom nobody can get a certificate, and `IdentityBanned`."""
        check_workload(identity, self.trust_domain)
        if identity == control_id(self.trust_domain):
            raise IdentityRefused(f"{identity} is the control service itself; nobody else gets this identity")
        if self.is_banned(identity):
            raise IdentityBanned(f"{identity} is banned")

    def check_issuing(self) -> None:
        """Raises `IssuingStopped`, saying why, when nobody would get a certificate now."""
        self._ready()

    def control_identity(self) -> ControlIdentity:
        """A fresh key and SVID for the control service itself.  Raises `IssuingStopped`."""
        known = self._ready()
        key = certificates.new_key()
        issued = self._issued(
            key.public_key(), control_id(self.trust_domain), names=self.settings.control_names, caller="control"
        )
        root = next(each.root for each in known.state.authorities if each.id == known.signer.authority)
        return ControlIdentity(
            identity=control_id(self.trust_domain),
            chain_pem="".join((*issued.chain_pem, root)).encode("ascii"),
            key_pem=certificates.key_pem(key),
            roots_pem=known.bundle.pem.encode("ascii"),
            not_before=issued.not_before,
            not_after=issued.not_after,
        )

    @property
    def trust_bundle(self) -> TrustBundle:
        """Raises `IssuingStopped` before `start`."""
        if self._replica.known is None:
            raise IssuingStopped(self._replica.stopped)
        return self._replica.known.bundle

    def is_banned(self, identity: SpiffeId) -> bool:
        return self._bans.contains(identity)

    async def ban(self, identity: SpiffeId, *, by: str = "", reason: str = "") -> None:
        """Nothing is issued for it any more, by any replica within a moment.  Raises `IdentityRefused` and `StoreError`."""
        check_workload(identity, self.trust_domain)
        if identity == control_id(self.trust_domain):
            raise IdentityRefused("the control service itself cannot be banned")
        await self._bans.add(Ban(str(identity), self._clock(), by, reason))
        log.warning("%s is banned by %s: %s", identity, by or "an operator", reason or "no reason given")
        self.changes.notify()

    async def unban(self, identity: SpiffeId) -> bool:
        """False when it was not banned.  Raises `StoreError`."""
        removed = await self._bans.remove(identity)
        self.changes.notify()
        return removed

    def status(self) -> CaStatus:
        replica = self._replica
        problems = (replica.stopped, self.log.problem, *replica.warnings)
        return CaStatus(
            trust_domain=self.trust_domain,
            epoch=replica.known.state.epoch if replica.known else 0,
            issuing=not replica.stopped and not self.log.full,
            authorities=tuple(map(_status, replica.known.state.authorities)) if replica.known else (),
            bans=self._bans.all,
            unlogged=self.log.waiting,
            problems=tuple(problem for problem in problems if problem),
        )

    async def prepare(self, own: OwnAuthority | None = None) -> CaStatus:
        """Step 1 of a rotation: trust a second root, made here or brought along.  Raises `CaError` and `StoreError`."""
        now = self._clock()
        workshop = self._replica.workshop

        def next_state(current: CaState) -> CaState:
            epoch = current.epoch + 1
            if own is not None:
                return state.prepared(current, workshop.adopt(own, Phase.PREPARED, now, epoch=epoch))
            return state.prepared(current, workshop.make(Phase.PREPARED, now, epoch=epoch))

        await self._replica.change(next_state)
        return self._told("prepared")

    async def activate(self) -> CaStatus:
        """Step 2: the prepared root issues from now on.  Not before every workload trusts it."""
        await self._step(state.ACTIVATE)
        await self.maintain()  # its signing certificate may have waited long for this
        return self.status()

    async def taint(self) -> CaStatus:
        """Step 3: workloads with certificates of the old root renew at once."""
        return await self._step(state.TAINT)

    async def revoke(self) -> CaStatus:
        """Step 4: the old root is trusted no more.  Not before every workload has renewed."""
        return await self._step(state.REVOKE)

    async def restore(self) -> CaStatus:
        """Give an emptied store back the authority that this replica still has.  Raises `CaError` when it has none."""
        await self._replica.restore()
        return self._told("restored")

    async def maintain(self) -> None:
        """Renew the signing certificate once half of its life is over.  Raises `CaError` and `StoreError`."""
        try:
            await self._renew_signer()
        finally:
            self._replica.check_ages()

    async def _renew_signer(self) -> None:
        known = self._replica.known
        now = self._clock()
        if known is None or self._replica.stopped or not known.signer.renewable or now < half_life(known.signer):
            return
        workshop = self._replica.workshop

        def next_state(current: CaState) -> CaState:
            active = current.active
            if now < half_life(workshop.signer(active)):
                return current  # another replica has done it
            chain, key = workshop.intermediate(active, now, epoch=current.epoch + 1)
            return state.renewed(current, active.id, chain, key)

        await self._replica.change(next_state)
        log.info("the signing certificate of the authority was renewed")

    async def _step(self, step: Step) -> CaStatus:
        await self._replica.change(lambda current: state.stepped(current, step, self._clock()))
        return self._told(step.name)

    def _told(self, what: str) -> CaStatus:
        status = self.status()
        roots = ", ".join(f"{each.id[:16]} {each.phase}" for each in status.authorities)
        log.warning("certificate authority: %s (epoch %d); roots: %s", what, status.epoch, roots)
        return status

    def _issued(
        self,
        key: PublicKey,
        identity: SpiffeId,
        *,
        caller: str,
        names: tuple[str, ...] = (),
        csr: str = "",
        ttl: float | None = None,
        attested_at: float | None = None,
    ) -> IssuedCertificate:
        known = self._ready()
        now = self._clock()
        validity = self._validity(known.signer, now, ttl)
        proved = now if attested_at is None else attested_at
        workload = Workload(identity, (dns_name(identity), *names), validity, certificates.new_serial(), proved)
        leaf = certificates.workload_certificate(key, known.signer.issuer, workload)
        record = IssueRecord(
            serial=f"{workload.serial:032x}",
            identity=str(identity),
            caller=caller,
            csr=csr,
            issued=now,
            not_before=validity.not_before,
            not_after=validity.not_after,
            authority=known.signer.authority,
        )
        self.log.append(record)
        chain = (pem(leaf), *known.signer.chain)
        return IssuedCertificate(chain, known.bundle.pem, workload.serial, validity.not_before, validity.not_after)

    def _validity(self, signer: Signer, now: float, ttl: float | None) -> Validity:
        if ttl is not None and not ttl > 0:
            raise CsrRefused(f"a validity of {ttl} s was asked for; expected more than 0")
        lasting = self.settings.max_ttl if ttl is None else min(ttl, self.settings.max_ttl)
        end = float(int(min(now + lasting, signer.not_after)))
        if end <= now:
            if signer.not_after <= now:
                raise IssuingStopped("no certificates are issued: the signing certificate of the authority has expired")
            raise CsrRefused(f"a validity of {ttl} s was asked for; expected a second at least")
        return Validity(float(int(now - self.settings.lifetimes.backdate)), end)

    def _ready(self) -> Known:
        known = self._replica.known
        if self._replica.stopped or known is None:
            raise IssuingStopped(f"no certificates are issued: {self._replica.stopped}")
        if self.log.full:
            raise IssuingStopped(f"no certificates are issued: {self.log.problem or 'the log of issued certificates is full'}")
        return known

    async def _follow(self) -> None:
        """All that changes in the store."""
        lists = cast(AsyncGenerator[list[Entry], None], self._store.watch(state.WATCHED))
        async with aclosing(lists):
            async for entries in lists:
                if self._bans.follow([entry for entry in entries if entry.key.startswith(state.BANS)]):
                    self.changes.notify()
                # Watches may be late: what this replica wrote since then must not be undone by an older list.
                try:
                    await self._replica.refresh()
                except StoreError as error:
                    log.warning("certificate authority: %s; going by what is known", error)

    async def _maintain(self) -> None:
        pruned = self._clock()
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            try:
                await self.maintain()
                if abs(self._clock() - pruned) > PRUNE_INTERVAL:
                    pruned = self._clock()
                    await self.log.prune()
            except ControlServiceError as error:
                log.warning("certificate authority: %s; trying again", error)


def _status(authority: state.Authority) -> AuthorityStatus:
    chain = [certificate_of(each) for each in (*authority.chain, authority.root)]
    return AuthorityStatus(
        id=authority.id,
        phase=authority.phase,
        since=authority.since,
        root_not_after=not_after(chain[-1]),
        signing_not_after=min(not_after(each) for each in chain),
        root_key_here=authority.root_key is not None,
    )
