"""An identity that is given: from files that somebody else renews, or from a test."""

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


class StaticIdentity:
    """An `IdentitySource` whose material is set by its owner."""

    def __init__(self, material: Material | None = None, *, absent: str = "no identity was set") -> None:
        """`absent`: what to say as long as there is none."""
        self._current = material
        self._absent = absent
        self._listeners = Listeners()
        self._there = threading.Condition()

    @property
    def current(self) -> Material | None:
        return self._current

    @property
    def state(self) -> str:
        return f"has {self._current.identity}" if self._current is not None else self._absent

    def set(self, material: Material) -> None:
        """Replace it, and tell everybody."""
        with self._there:
            self._current = material
            self._there.notify_all()
        self._listeners.tell(material)

    def wait(self, timeout: float) -> bool:
        with self._there:
            return self._there.wait_for(lambda: self._current is not None, timeout)

    def listen(self, callback: Callable[[Material], None]) -> Callable[[], None]:
        return self._listeners.add(callback)

    def close(self) -> None:
        """Nothing runs here."""
