"""An identity that is given: from files that somebody else renews, or from a test."""

from __future__ import annotations

import threading
from collections.abc import Callable

from meshlib.model.identity import TrustBundles
from meshlib.runtime.identity.listeners import Listeners
from meshlib.runtime.identity.material import Material


class StaticIdentity:
    """An `IdentitySource` whose material is set by its owner."""

    def __init__(self, material: Material | None = None, *, absent: str = "no identity was set") -> None:
        """`absent`: what to say as long as there is none."""
        self._current = material
        self._absent = absent
        self._trust: TrustBundles | None = None
        self._listeners = Listeners()
        self._there = threading.Condition()

    @property
    def current(self) -> Material | None:
        return self._current

    @property
    def state(self) -> str:
        return f"has {self._current.identity}" if self._current is not None else self._absent

    @property
    def trust(self) -> TrustBundles:
        if self._trust is not None:
            return self._trust
        return self._current.roots if self._current is not None else TrustBundles()

    @property
    def pending(self) -> bool:
        return False

    def learn(self, trust: TrustBundles) -> None:
        self._trust = trust

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
