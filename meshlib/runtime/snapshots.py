"""The newest snapshot, and waiting for one.

Publishing is one attribute assignment: readers take ``store.current`` and never lock.  Waiting is for the few calls that
need something not there yet; threads and event loops wait alike, and no event loop is ever blocked.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from meshlib.model.snapshot import Snapshot
from meshlib.runtime.fork import forget_in_child

logger = logging.getLogger("meshlib")


class Reach(Enum):
    """The way to the control service."""

    IDLE = "idle"  # nothing was asked yet, so nobody tried
    CONNECTING = "connecting"  # the first attempts are under way
    CONNECTED = "connected"
    UNREACHABLE = "unreachable"  # every address failed at least once; attempts go on


@dataclass(frozen=True, slots=True)
class ControlState:
    """`reason` is why it is unreachable, for people; `since` is the clock (monotonic seconds) when it became so."""

    reach: Reach = Reach.IDLE
    reason: str = ""
    target: str = ""  # the address in use, or tried last
    since: float = 0.0


Predicate = Callable[[Snapshot, ControlState], bool]
"""What a caller waits for.  Called from the publishing thread: quick, and without locks of its own."""

Listener = Callable[[Snapshot], None]


class SnapshotStore:
    """Holds one snapshot.  `publish` and `set_control` are for one thread, everything else is for all."""

    def __init__(self) -> None:
        self.current = Snapshot()
        self.control_state = ControlState()
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._waiters: dict[object, tuple[Predicate, Callable[[], None]]] = {}
        forget_in_child(self)

    def publish(self, snapshot: Snapshot) -> None:
        """Tell the listeners, make `snapshot` the current one, wake those whose wait is over.

        In this order: whoever finds something in `current` may rely on what listeners have compiled from it.
        """
        for listener in tuple(self._listeners):
            try:
                listener(snapshot)
            except Exception:  # one listener's fault must not keep configuration from the others
                logger.exception("a snapshot listener failed: %r", listener)
        self.current = snapshot
        self._wake()

    def set_control(self, state: ControlState) -> None:
        """Say how the control service can be reached now."""
        self.control_state = state
        self._wake()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with every snapshot from now on, before it is the current one.  Returns what ends that."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def wait(self, predicate: Predicate, timeout: float | None) -> bool:
        """Block this thread until `predicate` holds or `timeout` seconds passed; says which.  Not for event loops."""
        if predicate(self.current, self.control_state):
            return True
        woken = threading.Event()
        key = self._add_waiter(predicate, woken.set)
        try:
            # Once more: what was published between the look above and the entry on the list woke nobody.
            return predicate(self.current, self.control_state) or woken.wait(timeout)
        finally:
            self._remove_waiter(key)

    async def wait_async(self, predicate: Predicate, timeout: float | None) -> bool:
        """The same for a coroutine, on any event loop."""
        if predicate(self.current, self.control_state):
            return True
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(woken.set)
            except RuntimeError:
                pass  # the loop was closed while its coroutine waited; nobody is there to be woken

        key = self._add_waiter(predicate, wake)
        try:
            if predicate(self.current, self.control_state):
                return True
            async with asyncio.timeout(timeout):
                await woken.wait()
        except TimeoutError:
            return False
        finally:
            self._remove_waiter(key)
        return True

    def forget(self) -> None:
        """In a forked child: the snapshot is as true as it was, the waiters and the connection were the parent's."""
        self._lock = threading.Lock()
        self._waiters = {}
        self.control_state = ControlState()

    def _add_waiter(self, predicate: Predicate, wake: Callable[[], None]) -> object:
        key = object()
        with self._lock:
            self._waiters[key] = (predicate, wake)
        return key

    def _remove_waiter(self, key: object) -> None:
        with self._lock:
            self._waiters.pop(key, None)

    def _wake(self) -> None:
        with self._lock:
            waiters = list(self._waiters.values())
        snapshot, control = self.current, self.control_state
        for predicate, wake in waiters:
            if predicate(snapshot, control):
                wake()
