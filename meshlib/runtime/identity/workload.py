"""The identity of a process: gets it, renews it, keeps it for the other workers, says what is wrong with it.

One daemon thread, nothing of asyncio: an application whose loop is blocked keeps its certificate all the same.  While the CA
is away, the certificate that there is goes on being used, to its end and no further.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Final

from meshlib.model.identity import TrustBundles
from meshlib.policy.backoff import Backoff
from meshlib.policy.rng import Rng
from meshlib.runtime.clock import SYSTEM, Clock
from meshlib.runtime.fork import forget_in_child
from meshlib.runtime.identity.errors import CredentialRefused, IssuingFailed
from meshlib.runtime.identity.issuer import Issued, Issuer
from meshlib.runtime.identity.listeners import Listeners
from meshlib.runtime.identity.material import Material, PrivateKey
from meshlib.runtime.identity.plan import Holding, Pause, Step, due, next_step
from meshlib.runtime.identity.storage import IdentityFolder
from meshlib.runtime.tls.verify import anchored

logger = logging.getLogger("meshlib")

BACKOFF: Final = Backoff(initial=0.5, cap=60.0)
"""Shorter than the stream's: without a certificate a process can do nothing at all."""

TAINT_SPREAD: Final = 2.0
"""Seconds over which the workloads of a mesh renew when all of them have to."""


def _is_outdated(material: Material, trust: TrustBundles, before: TrustBundles | None) -> bool:
    """Whether the root of our certificate was tainted: such a one is listed last, so another comes first that did not before.

    It is trusted until it is revoked, which will be when everybody has renewed.
    """
    domain = material.identity.trust_domain
    roots = trust.roots.get(domain, ())
    known = before.roots.get(domain, ()) if before is not None else ()
    if not roots or roots[:1] == known[:1]:
        return False
    try:
        anchored(material.chain, TrustBundles({domain: roots[:1]}))
    except ValueError:
        return True
    return False


class WorkloadIdentity:
    """An `IdentitySource`.  Nothing runs before `start`; in a forked child, not before it is started there.

    A child inherits the certificate and gets one of its own with it, so that a credential is needed once for all of them.
    """

    def __init__(
        self,
        issuer: Issuer,
        *,
        folder: IdentityFolder | None = None,
        clock: Clock = SYSTEM,
        rng: Rng | None = None,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self._issuer = issuer
        self._folder = folder
        self._clock = clock
        self._rng = rng or Random()
        self._backoff = backoff
        self._current: Material | None = None
        self._trust: TrustBundles | None = None
        self._holding: Holding | None = None
        self._pause = Pause()
        self._failures = 0
        self._error = ""
        self._settled = False  # the first attempt of this process has ended, one way or the other
        self._expired = False  # and everybody was told
        self._listeners = Listeners()
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._unsaved = False  # roots that the folder does not have yet
        forget_in_child(self)

    # --- IdentitySource

    @property
    def current(self) -> Material | None:
        return self._current

    @property
    def trust(self) -> TrustBundles:
        if self._trust is not None:
            return self._trust
        return self._current.roots if self._current is not None else TrustBundles()

    @property
    def pending(self) -> bool:
        return not self._settled

    @property
    def state(self) -> str:
        material, error = self._current, self._error
        why = f": {error}" if error else ""
        if material is None:
            return f"no certificate yet{why}"
        if material.not_after <= self._clock.wall():
            return f"the certificate of {material.identity} ended at {_time(material.not_after)}{why or ': it was not renewed'}"
        return f"{material.identity} until {_time(material.not_after)}{f' (not renewed{why})' if error else ''}"

    def wait(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._current is not None, timeout)

    def wait_settled(self, timeout: float) -> bool:
        """Until the first attempt has ended, well or not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._settled, timeout)

    def listen(self, callback: Callable[[Material], None]) -> Callable[[], None]:
        return self._listeners.add(callback)

    def learn(self, trust: TrustBundles) -> None:
        before = self._trust
        if trust == before:
            return
        self._trust = trust
        self._unsaved = True
        material = self._current
        if material is not None and _is_outdated(material, trust, before):
            logger.info("%s: another root comes first now, renewing", material.identity)
            self._renew_within(TAINT_SPREAD)
        self._wake.set()

    def close(self, timeout: float = 2.0) -> None:
        """Stop the thread; waits at most `timeout` seconds for it.  What there is stays usable."""
        with self._lock:
            self._closing = True
            thread, self._thread = self._thread, None
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # ---

    def start(self) -> None:
        """Begin to work.  Idempotent."""
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="meshlib-identity", daemon=True)
                self._thread.start()

    def renew_now(self) -> None:
        """Get another certificate at once: the root or the key of this one is not to be trusted any more."""
        self._renew_within(0.0)
        self._wake.set()

    def _renew_within(self, seconds: float) -> None:
        holding = self._holding
        if holding is not None:
            soon = self._clock.wall() + self._rng.random() * seconds if seconds else float("-inf")
            self._holding = replace(holding, due=min(holding.due, soon))
            self._pause = Pause(refused=self._pause.refused)

    def forget(self) -> None:
        """In a forked child: no thread, new locks; what the parent has proves who the child is until it has its own."""
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._thread = None
        self._closing = False
        if isinstance(self._rng, Random):
            self._rng.seed()  # all children of a parent would throw the same
        self._listeners.forget()
        self._issuer.forget()
        if self._folder is not None:
            self._folder.forget()
        self._settled = False
        self._pause = Pause()
        self._failures = 0
        if self._holding is not None:
            self._holding = replace(self._holding, due=float("-inf"))

    # --- the thread

    def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            pause = self.advance()
            if not self._closing:
                self._wake.wait(pause)

    def advance(self) -> float:
        """One step.  How long to wait before the next one, in seconds; what is not due yet takes none.

        The thread's own; also for tests that have no thread.
        """
        self._notice_end()
        if self._unsaved:
            self._save_trust()
        step, pause = next_step(self._holding, self._pause, wall=self._clock.wall(), monotonic=self._clock.monotonic())
        if step is Step.WAIT:
            return pause
        try:
            self._take(self._enrol() if step is Step.ENROL else self._renew())
        except Exception as error:
            # Foreign errors too (a full disk, say): nothing may end this thread but its owner.
            self._failed(error, step)
        finally:
            self._settle()
        return 0.0

    def _enrol(self) -> Material:
        if self._folder is None:
            return self._by_credential()
        with self._folder.locked(give_up=lambda: self._closing):
            kept = self._folder.read()
            if kept is None or kept.not_after <= self._clock.wall() or self._pause.refused:
                material = self._by_credential()
                self._folder.write(material)
                return material
        try:
            return self._renewed(kept)
        except IssuingFailed as error:
            # The CA is away.  What another worker has got is this one's as well; it is renewed when the CA is back.
            self._take(kept)
            self._holding = Holding(kept.not_after, due=float("-inf"))
            raise IssuingFailed(f"using the certificate kept in identity_dir, as it cannot be renewed: {error}") from error

    def _renew(self) -> Material:
        assert self._current is not None
        material = self._renewed(self._current)
        if self._folder is not None:
            self._keep(self._folder, material)
        return material

    def _by_credential(self) -> Material:
        key = PrivateKey.generate()
        return self._material(self._issuer.enrol(key.request(None)), key)

    def _renewed(self, current: Material) -> Material:
        key = PrivateKey.generate()
        issued = self._issuer.renew(key.request(current.identity), current, self._trust or current.roots)
        material = self._material(issued, key)
        if material.identity != current.identity:
            raise IssuingFailed(f"the CA answered {current.identity} with a certificate of {material.identity}")
        return material

    def _material(self, issued: Issued, key: PrivateKey) -> Material:
        """What the CA gave out, checked as peers will check it."""
        try:
            material = Material.of(issued.chain, key, TrustBundles())
            roots = TrustBundles({material.identity.trust_domain: issued.roots})
            anchored(issued.chain, roots)
        except ValueError as error:
            raise IssuingFailed(f"the CA gave out what is no certificate for this process: {error}") from error
        if material.not_after <= self._clock.wall():
            raise IssuingFailed(f"the CA gave out a certificate that ended at {_time(material.not_after)}: is our clock right?")
        return replace(material, roots=roots)

    # --- what came of it

    def _take(self, material: Material) -> None:
        first = self._current is None
        self._holding = Holding(
            material.not_after, due(material.not_before, material.not_after, self._rng, now=self._clock.wall())
        )
        self._failures, self._pause, self._error, self._expired = 0, Pause(), "", False
        with self._changed:
            self._current = material
            self._changed.notify_all()
        logger.info("%s %s", "this process is" if first else "renewed the certificate of", self.state)
        self._tell(material)

    def _failed(self, error: Exception, step: Step) -> None:
        self._failures += 1
        # One way and the other in turn: a credential where our certificate is no proof any more, and the reverse.
        refused = step is Step.RENEW and isinstance(error, CredentialRefused)
        self._pause = Pause(self._clock.monotonic() + self._backoff.delay(self._failures, self._rng), refused)
        reason = str(error) if isinstance(error, IssuingFailed) else f"{type(error).__name__}: {error}"
        if reason != self._error:  # said once, not at every attempt
            logger.warning("no new certificate: %s", reason)
        self._error = reason

    def _settle(self) -> None:
        if not self._settled:
            with self._changed:
                self._settled = True
                self._changed.notify_all()

    def _notice_end(self) -> None:
        """Connections made with a certificate that has ended meanwhile (or the clock was set) are to be retired."""
        material = self._current
        if material is not None and not self._expired and material.not_after <= self._clock.wall():
            self._expired = True
            logger.error("%s", self.state)
            self._tell(material)

    def _tell(self, material: Material) -> None:
        try:
            self._listeners.tell(material)
        except Exception:
            logger.exception("a listener to new certificates failed")

    # --- the folder

    def _keep(self, folder: IdentityFolder, material: Material) -> None:
        """For the next start and the other workers.  A folder that cannot be written is no reason to give up a certificate."""
        try:
            with folder.locked(give_up=lambda: self._closing):
                kept = folder.read()
                if kept is None or kept.not_after <= material.not_after or kept.roots != material.roots:
                    folder.write(material)
        except IssuingFailed as error:
            logger.warning("the new certificate is not kept: %s", error)

    def _save_trust(self) -> None:
        """A root that has come while we run must be known to the next start."""
        self._unsaved = False
        trust, folder = self._trust, self._folder
        if trust is None or folder is None:
            return
        try:
            with folder.locked(give_up=lambda: self._closing):
                kept = folder.read()
                if kept is not None and kept.roots != trust:
                    folder.write(replace(kept, roots=trust))
        except IssuingFailed as error:
            logger.warning("the new roots are not kept: %s", error)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
