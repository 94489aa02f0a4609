"""From under a lock to callbacks: what is noted while policy state is locked is handed on in a thread, outside of all locks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

from meshlib.runtime.fork import forget_in_child

T = TypeVar("T")

BACKLOG: Final = 4096
"""Items that may wait; more are dropped, since a callback that hangs must not fill the memory."""

CLOSING: Final = 2.0
"""Seconds."""


class Delivery(Generic[T]):
    """Hands items to `deliver`, one after the other, in the order in which they came.

    ``turn``: held while something is delivered, so that the receiver's own state needs no other lock.  ``dropped``: items
    that were too many.  Nothing is delivered before `start`, except by `deliver_all`.
    """

    def __init__(self, name: str, deliver: Callable[[T], object]) -> None:
        """`name`: of the thread.  `deliver` must not raise."""
        self.turn = threading.RLock()
        self.dropped = 0
        self._name = name
        self._deliver = deliver
        self._items: SimpleQueue[T | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        forget_in_child(self)

    def put(self, item: T) -> None:
        """From anywhere, under any lock: it never waits."""
        if self._items.qsize() >= BACKLOG:
            self.dropped += 1
            return
        self._items.put(item)

    def start(self) -> None:
        """Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._items,), name=self._name, daemon=True)
            self._thread.start()

    def deliver_all(self) -> None:
        """What waits now, in the caller's own thread."""
        with self.turn:
            while True:
                try:
                    item = self._items.get_nowait()
                except Empty:
                    return
                if item is not None:
                    self._deliver(item)

    def close(self) -> None:
        """What waits is delivered, then the thread ends.  Idempotent; `start` begins anew.

        A callback that hangs is not waited for longer than `CLOSING`.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            items, self._items = self._items, SimpleQueue()
            items.put(None)
            if thread is not threading.current_thread():
                thread.join(CLOSING)

    def forget(self) -> None:
        """In a forked child: the thread is the parent's, and what waits was the parent's, too."""
        self.turn = threading.RLock()
        self._items = SimpleQueue()
        self._thread = None

    def _run(self, items: SimpleQueue[T | None]) -> None:
        """None in it is the end."""
        while (item := items.get()) is not None:
            with self.turn:
                self._deliver(item)
