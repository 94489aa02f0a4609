"""Leaving without anybody noticing: deregister first, let callers learn of it, only then stop accepting.

A server that closes its port at once breaks the calls of everybody who has not heard of it yet.  So on SIGTERM the handler of
the server is made to wait: meanwhile requests are still served, with ``connection: close``.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from meshlib.runtime.fork import forget_in_child
from meshlib.runtime.process import Processes
from meshlib.runtime.serving import Inbound


class Drain:
    """One per Mesh."""

    def __init__(self, inbound: Inbound, processes: Processes, pause: float) -> None:
        self._inbound = inbound
        self._processes = processes
        self._pause = pause
        self._lock = threading.Lock()
        self._withdrawn = False
        forget_in_child(self)

    def drain(self, timeout: float) -> None:
        """Blocking: withdraw (once), wait for it to spread, then up to `timeout` seconds for requests in flight."""
        self.withdraw()
        self._inbound.wait_idle(timeout)

    def withdraw(self) -> None:
        """Deregister and wait `pause` seconds, once; a second caller waits for the first."""
        self._inbound.draining = True
        with self._lock:
            if self._withdrawn:
                return
            self._withdrawn = True
            process = self._processes.current
            if process is not None and process.settings.service:
                process.link.withdraw()
                time.sleep(self._pause)

    def install_on_sigterm(self) -> bool:
        """Put `withdraw` before the handler that is installed now.  False outside of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return False
        before = signal.getsignal(signal.SIGTERM)
        if getattr(before, "__self__", None) is self:
            return True
        self._before = before
        signal.signal(signal.SIGTERM, self._on_sigterm)
        return True

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        # Not in the handler itself: the main thread may be in the middle of anything, and it has requests to serve.
        signal.signal(signal.SIGTERM, self._before)
        threading.Thread(target=self._leave, args=(number,), name="meshlib-drain", daemon=True).start()

    def _leave(self, number: int) -> None:
        try:
            self.withdraw()
        finally:
            os.kill(os.getpid(), number)

    def forget(self) -> None:
        """In a forked child."""
        self._lock = threading.Lock()
        self._withdrawn = False
