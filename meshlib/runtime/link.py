"""The link to the control service: the ADS stream, the snapshots that it brings, and the registration of what is served."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from meshlib.errors import ConfigError, ControlError
from meshlib.model.snapshot import Snapshot
from meshlib.runtime.ads import AdsStream
from meshlib.runtime.announcement import Announcement
from meshlib.runtime.channel import ControlChannel, ControlCredentials
from meshlib.runtime.identity.bootstrap import Anchor
from meshlib.runtime.identity.issuer import ControlIssuer
from meshlib.runtime.identity.source import IdentitySource
from meshlib.runtime.identity.storage import IdentityFolder
from meshlib.runtime.identity.workload import WorkloadIdentity
from meshlib.runtime.registration import Registration
from meshlib.runtime.settings import Settings
from meshlib.runtime.snapshots import ControlState, Reach, SnapshotStore


def open_identity(settings: Settings, inherited: IdentitySource | None = None) -> IdentitySource | None:
    """Where this process's identity comes from; None: it has none, and wants none.  `inherited`: of the parent, before a fork.

    Raises `ConfigError` when it has no way to prove who it is.
    """
    if settings.insecure_dev:
        return None
    if isinstance(inherited, WorkloadIdentity):
        inherited.start()
        return inherited
    if not settings.token_file and not settings.identity_dir:
        raise ConfigError(
            "this process has no way to prove who it is: expected token_file (MESHLIB_TOKEN_FILE) with ca_file or ca_sha256, or"
            " insecure_dev (MESHLIB_INSECURE_DEV=1) for a control service on this machine that was started with --insecure-dev"
        )
    anchor = Anchor(settings.ca_file, settings.ca_sha256) if settings.ca_file or settings.ca_sha256 else None
    targets = tuple(target.strip() for target in settings.control.split(","))
    issuer = ControlIssuer(settings.ca_address, targets, token_file=settings.token_file, anchor=anchor)
    folder = IdentityFolder(settings.identity_dir) if settings.identity_dir else None
    identity = WorkloadIdentity(issuer, folder=folder)
    identity.start()
    return identity


class ControlLink:
    """What `Process` needs of the control service.  One per process; starts its thread on first use."""

    def __init__(self, settings: Settings, identity: IdentitySource | None) -> None:
        self._settings = settings
        self._workload = settings.workload()
        self._store = SnapshotStore()
        channel = ControlChannel(settings.control, None if identity is None else ControlCredentials(identity))
        self._stream = AdsStream(channel, self._workload, self._store, rng=Random(), trust=identity is not None)
        self._announcement: Announcement | None = None
        self._stream.start()

    @property
    def current(self) -> Snapshot:
        return self._store.current

    @property
    def channel(self) -> ControlChannel:
        """The way to the control service, for others who speak with it."""
        return self._stream.channel

    @property
    def node_id(self) -> str:
        """Of this process, as the control service knows it."""
        return self._stream.node_id

    @property
    def state(self) -> str:
        """For people."""
        control = self._store.control_state
        text = f"{control.reach.value} {control.target}".strip()
        return f"{text} ({control.reason})" if control.reason else text

    def request(self, authority: str) -> None:
        self._stream.request(authority)

    def serve_port(self, port: int) -> None:
        """Ask what holds for a port that this process serves: `Snapshot.inbound`."""
        self._stream.serve_port(port)

    def listen(self, listener: Callable[[Snapshot], None]) -> object:
        stop = self._store.listen(listener)
        listener(self._store.current)
        return stop

    # --- waiting

    def wait(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        """Raises errors.ControlError at once when no control service can be reached."""
        answered = self._store.wait(_known_or_hopeless(known), timeout)
        return answered and self._hopeful(known)

    async def await_(self, known: Callable[[Snapshot], bool], timeout: float) -> bool:
        """`wait` without blocking the event loop."""
        answered = await self._store.wait_async(_known_or_hopeless(known), timeout)
        return answered and self._hopeful(known)

    def wait_ready(self, timeout: float) -> bool:
        """Ready: the control service has said what happens to outside hosts, which is the first thing asked."""
        return self._store.wait(_ready, timeout)

    async def await_ready(self, timeout: float) -> bool:
        return await self._store.wait_async(_ready, timeout)

    def _hopeful(self, known: Callable[[Snapshot], bool]) -> bool:
        if known(self._store.current):
            return True
        raise ControlError(f"the control service is {self.state}")

    # --- what is served

    def announce(self, port: int, *, mtls: bool, ready: Callable[[], bool]) -> None:
        if self._announcement is None:
            registration = Registration(self._stream.channel, self._settings, self._workload, port, mtls=mtls)
            self._announcement = Announcement(registration, self._settings.address, port, ready)

    def withdraw(self) -> None:
        announcement, self._announcement = self._announcement, None
        if announcement is not None:
            announcement.close()

    def close(self) -> None:
        self.withdraw()
        self._stream.close()


def _ready(snapshot: Snapshot, control: ControlState) -> bool:
    return snapshot.allow_any is not None


def _known_or_hopeless(known: Callable[[Snapshot], bool]) -> Callable[[Snapshot, ControlState], bool]:
    def settled(snapshot: Snapshot, control: ControlState) -> bool:
        return known(snapshot) or control.reach is Reach.UNREACHABLE

    return settled
