"""Registers a served port once it accepts connections and knows what to let in, not before: callers would be refused."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from meshlib.runtime.fork import forget_in_child
from meshlib.runtime.registration import Registration

logger = logging.getLogger("meshlib")

PATIENCE = 60.0
"""Seconds that a server may take to open its port; after that the port is registered all the same, with a warning."""

_INTERVAL = 0.05


class Announcement:
    """Watches a port from a daemon thread, then starts the registration."""

    def __init__(self, registration: Registration, address: str, port: int, ready: Callable[[], bool] = lambda: True) -> None:
        """`ready`: whether requests would be served and not refused."""
        self._registration = registration
        # A server may listen on one address only, or on all of them.
        self._addresses = tuple(dict.fromkeys((address or "127.0.0.1", "127.0.0.1", "::1")))
        self._port = port
        self._ready = ready
        self._stop = threading.Event()
        forget_in_child(self)
        threading.Thread(target=self._watch, name="meshlib-announce", daemon=True).start()

    def _watch(self) -> None:
        waited = 0.0
        while not (self._ready() and self._accepts()):
            if self._stop.wait(_INTERVAL):
                return
            waited += _INTERVAL
            if waited >= PATIENCE:
                if self._ready():
                    logger.warning("port %d accepts no connections after %.0f s, registering it anyway", self._port, PATIENCE)
                    break
                logger.warning("the control service has not said for %.0f s what holds for port %d", PATIENCE, self._port)
                waited = 0.0
        if not self._stop.is_set():
            self._registration.start()

    def _accepts(self) -> bool:
        for address in self._addresses:
            try:
                socket.create_connection((address, self._port), timeout=1.0).close()
            except OSError:
                continue
            return True
        return False

    def close(self) -> None:
        """Stop watching, and deregister what was registered."""
        self._stop.set()
        self._registration.close()

    def forget(self) -> None:
        """In a forked child: the parent watches, not we."""
        self._stop = threading.Event()
        self._stop.set()
