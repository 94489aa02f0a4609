"""The background thread that keeps the snapshot: one ADS stream, driven by messages, owning the session alone.

Everything that happens (a response, the end of a stream, an authority that somebody calls) is put into one inbox and
handled by one thread, so nothing here but the inbox is shared.  A second thread per stream does the blocking read.  Both
are daemons with synchronous gRPC: no event loop of the application is touched, and this arrangement survives forks best.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshlib.errors import ControlError, NotReady
from meshlib.model.workload import Workload
from meshlib.policy.backoff import CONTROL_BACKOFF, Backoff
from meshlib.policy.rng import Rng
from meshlib.runtime.channel import ControlChannel
from meshlib.runtime.clock import SYSTEM, Clock
from meshlib.runtime.fork import forget_in_child, keep_for_ever
from meshlib.runtime.snapshots import ControlState, Reach, SnapshotStore
from meshlib.xds.decode import decode
from meshlib.xds.join import Roots, join
from meshlib.xds.session import ProtocolViolation, Session
from meshlib.xds.types import ADS_DELTA

if TYPE_CHECKING:
    import grpc

logger = logging.getLogger("meshlib")

MAX_AUTHORITIES = 4096
"""Above this, authorities that are not part of the mesh are unsubscribed, the oldest first: a process that calls many
outside hosts must not grow with them.  Called again, they are asked for again."""

_UNREAD = 4  # responses that may wait for the driving thread before the reader pauses
_BENIGN = frozenset(("OK", "UNAVAILABLE", "CANCELLED"))  # how a stream ends when a server restarts
_SOON, _LATER = 0.05, 1.0  # seconds between looks for a certificate: while it is being got, and while it cannot be got


@dataclass(frozen=True, slots=True)
class _Opened:
    call: grpc.Call


@dataclass(frozen=True, slots=True)
class _Received:
    call: grpc.Call
    data: bytes


@dataclass(frozen=True, slots=True)
class _Ended:
    call: grpc.Call
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Wake:
    """Look at the authorities again, or at whether to close."""


_Event = _Opened | _Received | _Ended | _Wake


class AdsStream:
    """Keeps `store` filled with what the control service says about the authorities that were requested.

    Nothing is started before the first `request` or `start`, and after a fork nothing in the child before its first one.
    """

    def __init__(
        self,
        channel: ControlChannel | str,
        workload: Workload,
        store: SnapshotStore,
        *,
        rng: Rng,
        clock: Clock = SYSTEM,
        backoff: Backoff = CONTROL_BACKOFF,
        version: str = "",
        trust: bool = False,
    ) -> None:
        """`channel`: or the addresses, ``host:port[,host:port]``.  `trust`: the process has an identity, so that it wants to
        know whom to believe.  Raises `ConfigError`.
        """
        self.channel = ControlChannel(channel) if isinstance(channel, str) else channel
        self.store = store
        self._workload = workload
        self._rng = rng
        self._clock = clock
        self._backoff = backoff
        self._version = version
        self._origin = os.getpid()
        self._trust = trust
        self._authorities: dict[str, None] = {}  # in order of first use
        self._ports: frozenset[int] = frozenset()
        self._requests = 0  # grows with each new authority or port
        self._lock = threading.Lock()
        self._driver: _Driver | None = None
        self._pid = 0
        self._closed = False
        forget_in_child(self)

    def request(self, authority: str) -> None:
        """Have `authority` ("reviews:80") in the snapshot from now on.  Cheap when it was requested before."""
        if authority in self._authorities and self._pid == os.getpid():
            return
        with self._lock:
            self._authorities[authority] = None
            self._requests += 1
        driver = self._started()
        if driver is not None:
            driver.wake()

    def serve_port(self, port: int) -> None:
        """Have what holds for a port that this process serves in the snapshot from now on."""
        if port in self._ports and self._pid == os.getpid():
            return
        with self._lock:
            if port not in self._ports:
                self._ports |= {port}
                self._requests += 1
        driver = self._started()
        if driver is not None:
            driver.wake()

    def start(self) -> None:
        """Connect now rather than at the first `request`."""
        self._started()

    def close(self, timeout: float = 2.0) -> None:
        """End the stream; waits at most `timeout` seconds for its thread.  The store keeps what it has."""
        with self._lock:
            self._closed = True
            driver, self._driver = self._driver, None
            self._pid = 0
        if driver is not None:
            driver.stop(timeout)
        self.channel.close()

    def forget(self) -> None:
        """In a forked child: the threads are gone, the channel is the parent's."""
        self._lock = threading.Lock()
        keep_for_ever(self._driver)
        self._driver = None
        self._pid = 0
        self.channel.forget()

    @property
    def node_id(self) -> str:
        """Of this process: a forked child is another client of the control service."""
        pid = os.getpid()
        return self._workload.instance if pid == self._origin else f"{self._workload.instance}-{pid}"

    def _started(self) -> _Driver | None:
        with self._lock:
            if self._closed:
                return None
            if self._driver is not None and self._pid != os.getpid():
                # Forked by something that runs no fork handlers.
                keep_for_ever(self._driver)
                self._driver = None
                self.channel.forget()
            if self._driver is None:
                pid = os.getpid()
                if pid != self._origin:
                    logger.info("starting the control stream anew in the forked process %d", pid)
                session = Session(self._workload, decode, instance=self.node_id, version=self._version)
                self._driver = _Driver(self, session)
                self._pid = pid
                self._driver.start()
            return self._driver


class _Driver:
    """The life of one thread.  Everything but `inbox` and `closing` belongs to that thread."""

    def __init__(self, stream: AdsStream, session: Session) -> None:
        self.inbox: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self.closing = False
        self._stream = stream
        self._store = stream.store
        self._channel = stream.channel
        self._clock = stream._clock
        self._session = session
        self._joined = -1  # the session's revision that the snapshot shows
        self._requests = -1  # the stream's count of requests that it shows
        self._call: grpc.Call | None = None
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unread = threading.Semaphore(_UNREAD)
        self._failures = 0  # attempts in a row that came to nothing
        self._reasons: dict[str, str] = {}  # why the newest attempts failed, by address
        self._retry_at = 0.0
        self._thread = threading.Thread(target=self._run, name="meshlib-ads", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self.inbox.put(_Wake())

    def stop(self, timeout: float) -> None:
        self.closing = True
        self.wake()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self.closing:
            try:
                self._turn()
            except Exception as error:
                # Whatever it is, calls go on with the last snapshot; and an application must not lose its mesh to it.
                logger.exception("the control stream failed")
                self._lost(f"{type(error).__name__}: {error}", backs_off=True)
        self._drop_call()

    def _turn(self) -> None:
        """Wait for something to happen, take in all that did, then look once at what it means."""
        self._advance()
        if self._call is None and self._clock.monotonic() >= self._retry_at:
            self._open()
        try:
            self._take(self.inbox.get(timeout=self._patience()))
            while not self.closing:
                self._take(self.inbox.get_nowait())
        except queue.Empty:
            pass
        self._session.tick(self._clock.monotonic())

    def _patience(self) -> float | None:
        timer = self._session.next_timer()
        if self._call is None:
            timer = self._retry_at if timer is None else min(timer, self._retry_at)
        return None if timer is None else max(timer - self._clock.monotonic(), 0.0)

    def _advance(self) -> None:
        """Join what is known into the snapshot, and subscribe to what that turns out to need."""
        requests = self._stream._requests
        if self._session.revision == self._joined and requests == self._requests:
            return
        # Noted first: what cannot be joined is not tried again before something else has changed.
        self._joined, self._requests = self._session.revision, requests
        roots = Roots(self._authorities(), self._stream._ports, self._stream._trust)
        joined = join(self._session.states, roots, self._store.current)
        self._send(self._session.want(joined.wanted, self._clock.monotonic()))
        self._joined = self._session.revision
        if joined.snapshot is not self._store.current:
            self._store.publish(joined.snapshot)

    def _authorities(self) -> Collection[str]:
        roots = self._stream._authorities
        if len(roots) > MAX_AUTHORITIES:
            surplus = len(roots) - MAX_AUTHORITIES
            for authority in [name for name in tuple(roots) if name in self._store.current.absent][:surplus]:
                del roots[authority]
        return tuple(roots)

    def _open(self) -> None:
        """Begin a stream.  Whether there is a connection shows later, by an answer or by the end of the call."""
        now = self._clock.monotonic()
        try:
            channel = self._channel.get()
        except ControlError as error:  # no certificate (yet): nothing was sent, so nobody needs a pause from us
            waits = isinstance(error, NotReady)
            self._report(Reach.CONNECTING if waits else Reach.UNREACHABLE, str(error))
            self._retry_at = now + (_SOON if waits else _LATER)
            return
        if self._store.control_state.reach is not Reach.UNREACHABLE:
            self._report(Reach.CONNECTING, self._session.ambient_error)
        self._outgoing = queue.SimpleQueue()
        self._unread = threading.Semaphore(_UNREAD)
        # Timers of new subscriptions start here, not when the connection is made: one that is not made within 5 s
        # ends the call, and the timers with it, long before they could be due.
        self._send(self._session.connected(now), opening=True)
        method = channel.stream_stream(ADS_DELTA)
        call = method(iter(self._outgoing.get, None))
        self._call = call
        threading.Thread(target=_read, args=(call, self.inbox, self._unread), name="meshlib-ads-read", daemon=True).start()

    def _take(self, event: _Event) -> None:
        if isinstance(event, _Wake) or event.call is not self._call:
            return
        match event:
            case _Opened():
                self._is_there()
            case _Received(_, data):
                self._is_there()
                self._receive(data)
            case _Ended(_, code, reason):
                # gRFC A57: the end of a stream that brought something is no reason to wait.
                self._lost(f"{code}: {reason}", backs_off=not (self._session.answered and code in _BENIGN))

    def _receive(self, data: bytes) -> None:
        try:
            requests = self._session.receive(data, self._clock.monotonic())
        except ProtocolViolation as error:
            self._lost(str(error), backs_off=True)
            return
        self._failures = 0
        self._unread.release()
        self._send(requests)
        for problem in self._session.problems:
            logger.error("refused, the last good version stays: %s", problem)

    def _is_there(self) -> None:
        if self._store.control_state.reach is not Reach.CONNECTED:
            self._reasons = {}
            logger.info("connected to the control service at %s", self._channel.target)
            self._report(Reach.CONNECTED, "")

    def _lost(self, reason: str, *, backs_off: bool) -> None:
        """The stream is gone.  Try again: at once, at the next address, or after a pause when all were tried."""
        now = self._clock.monotonic()
        target = self._channel.target
        self._drop_call()
        self._session.disconnected(now, reason)
        self._retry_at = now
        if not backs_off:
            self._failures = 0
            self._report(Reach.CONNECTING, reason)
            return
        self._failures += 1
        self._reasons[target] = reason
        self._channel.rotate()
        rounds, within_round = divmod(self._failures, len(self._channel.targets))
        if within_round:
            return
        self._retry_at = now + self._stream._backoff.delay(rounds, self._stream._rng)
        if self._store.control_state.reach is not Reach.UNREACHABLE:
            logger.warning("no control service can be reached, what is known stays in use: %s", self._why())
        self._report(Reach.UNREACHABLE, self._why())

    def _why(self) -> str:
        return "; ".join(f"{target}: {reason}" for target, reason in self._reasons.items())

    def _report(self, reach: Reach, reason: str) -> None:
        self._store.set_control(ControlState(reach, reason, self._channel.target, self._clock.monotonic()))

    def _send(self, requests: list[bytes], *, opening: bool = False) -> None:
        if self._call is not None or opening:
            for request in requests:
                self._outgoing.put(request)

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            self._outgoing.put(None)  # lets gRPC's own sending thread end
            self._unread.release()
            call.cancel()


def _read(call: grpc.Call, inbox: queue.SimpleQueue[_Event], unread: threading.Semaphore) -> None:
    """Moves what arrives into the inbox, at most some messages ahead of who handles them."""
    import grpc

    try:
        # A call that cannot connect ends up with empty metadata too; ours always says something.
        if call.initial_metadata():
            inbox.put(_Opened(call))
        for data in call:
            inbox.put(_Received(call, data))
            unread.acquire()
    except grpc.RpcError:
        pass
    code = call.code()
    inbox.put(_Ended(call, code.name if code is not None else "UNKNOWN", call.details() or "no reason given"))
