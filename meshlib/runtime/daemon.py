"""A thread of this process that serves the mesh in the background until it is told to end: started late, gone after a fork."""

from __future__ import annotations

import threading
from collections.abc import Callable

from meshlib.runtime.fork import keep_for_ever


class Daemon:
    """Runs `work` in a daemon thread.  All methods may be called from any thread.

    `work` returns soon once `closing` is set; `wait` is how it waits for something to do.  Who owns it forgets it after a fork.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        """`name`: of the thread."""
        self.closing = False
        self._name = name
        self._work = work
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """In this process."""
        return self._thread is not None

    def start(self) -> None:
        """Idempotent; does nothing once it was closed."""
        with self._lock:
            if self._thread is None and not self.closing:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def wait(self, seconds: float | None) -> None:
        """For `wake`, or for so long (None: however long it takes)."""
        self._wake.wait(seconds)
        self._wake.clear()

    def close(self, timeout: float) -> None:
        """Tell it to end, and wait so many seconds for that."""
        with self._lock:
            self.closing = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def forget(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        keep_for_ever(self._thread)
        self._thread = None
        self.closing = False
