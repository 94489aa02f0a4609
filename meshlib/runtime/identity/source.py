"""Where a process's identity comes from, as everything else sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshlib.model.identity import TrustBundles
from meshlib.runtime.identity.material import Material


class IdentitySource(Protocol):
    """The current material, and word of new one.  All of it may be used from any thread."""

    @property
    def current(self) -> Material | None:
        """None: none was given out yet.  It may have ended: whoever uses it looks at `Material.not_after`."""
        ...

    @property
    def state(self) -> str:
        """For people: what it has, or why it has nothing."""
        ...

    @property
    def trust(self) -> TrustBundles:
        """The newest roots that are known: what `learn` brought, else what came with the certificate."""
        ...

    @property
    def pending(self) -> bool:
        """Nothing is there yet, and nothing has failed yet either: it is worth waiting."""
        ...

    def learn(self, trust: TrustBundles) -> None:
        """The roots of the snapshot: the control service is verified with them, too, from now on."""
        ...

    def wait(self, timeout: float) -> bool:
        """Block until there is material; False after `timeout` seconds."""
        ...

    def listen(self, callback: Callable[[Material], None]) -> Callable[[], None]:
        """Have all new material handed over, on the thread that got it, but not what is there already.

        Call the result to stop.
        """
        ...

    def close(self) -> None:
        """Stop what runs in the background."""
        ...
