"""What policies did by themselves, for those who want to hear of it: listeners, a log, and the last of it to look at."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from meshlib.runtime.delivery import Delivery
from meshlib.runtime.fork import forget_in_child
from meshlib.telemetry.events import ALARMING, FREQUENT, Emit, Event

logger = logging.getLogger("meshlib.events")

KEPT: Final = 256
"""Events that `Events.recent` has at most."""

Listener = Callable[[Event], object]


class Events:
    """Of one Mesh.  Listeners, and the logger ``meshlib.events``, get one event after the other in a thread of their own,
    outside of all locks of the mesh: a slow one delays only other listeners.
    """

    def __init__(self, forward: Emit | None = None) -> None:
        """`forward` is told, too, at once and under the same rules as `take`."""
        self.counts: Counter[str] = Counter()  # by name, ever
        self._forward = forward
        self._recent: deque[Event] = deque(maxlen=KEPT)
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.Lock()
        self._delivery: Delivery[Event] = Delivery("meshlib-events", self._deliver)
        forget_in_child(self)

    def listen(self, callback: Listener) -> Callable[[], None]:
        """Have `callback` called with every event from now on.  Returns what ends that; a callback that raises is logged."""
        heard = [callback]  # one of its own, so that the same callback may listen twice

        def told(event: Event) -> None:
            for each in heard:
                each(event)

        with self._lock:
            self._listeners = (*self._listeners, told)

        def stop() -> None:
            heard.clear()
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not told)

        return stop

    @property
    def recent(self) -> tuple[Event, ...]:
        """The last ones, the oldest first."""
        return tuple(self._recent.copy())

    @property
    def dropped(self) -> int:
        """Events that listeners did not hear of, because too many were waiting for them."""
        return self._delivery.dropped

    # --- for the mesh

    def take(self, event: Event) -> None:
        """Take note (`telemetry.events.Emit`): under the lock of policy state, so it never waits."""
        self.counts[event.name] += 1
        self._recent.append(event)
        self._delivery.put(event)
        if self._forward is not None:
            self._forward(event)

    def start(self) -> None:
        """Idempotent; may be called again after `close`."""
        self._delivery.start()

    def close(self) -> None:
        """Deliver what waits, and end the thread."""
        self._delivery.close()

    def forget(self) -> None:
        """In a forked child: listeners stay, what happened was the parent's."""
        self._lock = threading.Lock()
        self._recent = deque(maxlen=KEPT)
        self.counts = Counter()

    def _deliver(self, event: Event) -> None:
        if event.name in ALARMING:
            logger.warning("%s", event)
        else:
            logger.log(logging.DEBUG if event.name in FREQUENT else logging.INFO, "%s", event)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener failed at %s", event)
