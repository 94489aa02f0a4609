"""Who wants to hear of new material."""

from __future__ import annotations

import threading
from collections.abc import Callable

from meshlib.runtime.identity.material import Material


class Listeners:
    """Callbacks for new material; what one of them raises is its own fault and reaches the caller of `tell`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: tuple[Callable[[Material], None], ...] = ()

    def add(self, callback: Callable[[Material], None]) -> Callable[[], None]:
        with self._lock:
            self._callbacks = (*self._callbacks, callback)

        def stop() -> None:
            with self._lock:
                self._callbacks = tuple(each for each in self._callbacks if each is not callback)

        return stop

    def tell(self, material: Material) -> None:
        for callback in self._callbacks:
            callback(material)

    def forget(self) -> None:
        """In a forked child: a new lock."""
        self._lock = threading.Lock()
