"""What a Mesh runs in one process: the link to the control service, the client, the announcement of what is served.

Built on first use; after a fork the child forgets its parent's and builds its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, cast

from meshlib.model.snapshot import Snapshot
from meshlib.runtime.client import Client, Control
from meshlib.runtime.fork import forget_in_child, keep_for_ever
from meshlib.runtime.settings import Settings


class Link(Control, Protocol):
    """A Control with a life of its own."""

    @property
    def state(self) -> str:
        """For people: connected to whom, or why not."""
        ...

    def listen(self, listener: Callable[[Snapshot], None]) -> object:
        """Have every new snapshot handed over, the current one at once."""
        ...

    def wait_ready(self, timeout: float) -> bool: ...

    async def await_ready(self, timeout: float) -> bool: ...

    def announce(self, port: int) -> None:
        """Register what this process serves, once `port` accepts connections."""
        ...

    def withdraw(self) -> None:
        """Deregister; returns when the control service knows, or after a few seconds."""
        ...

    def close(self) -> None: ...


class Process:
    """The running parts."""

    def __init__(self, settings: Settings, link: Link) -> None:
        self.settings = settings
        self.link = link
        self.client = Client(link)
        link.listen(self.client.destinations.publish)

    def announce(self, port: int | None) -> None:
        """Register the served port.  Does nothing for a process that only calls."""
        served = port or self.settings.port
        if self.settings.service and served:
            self.link.announce(served)

    def close(self) -> None:
        self.link.close()
        self.client.close()


class Processes:
    """At most one running `Process`, in the process that asks."""

    def __init__(self, settings: Settings, control: object | None) -> None:
        self.current: Process | None = None
        self._settings = settings
        self._control = control
        self._lock = threading.Lock()
        forget_in_child(self)

    def start(self) -> Process:
        """The running process; started if need be."""
        with self._lock:
            if self.current is None:
                self.current = Process(self._settings, self._open())
            return self.current

    def _open(self) -> Link:
        if self._control is not None:
            return cast("Link", self._control)  # the caller's own, checked by its use
        from meshlib.runtime.link import ControlLink  # grpc and the protos cost 100 ms: not before they are needed

        return ControlLink(self._settings)

    def close(self) -> None:
        with self._lock:
            process, self.current = self.current, None
        if process is not None:
            process.close()

    def forget(self) -> None:
        """In a forked child."""
        self._lock = threading.Lock()
        keep_for_ever(self.current)
        self.current = None
