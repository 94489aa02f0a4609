"""Connections that outlive the trust in their root: a root that is taken away takes its peers' connections with it.

A handshake is verified once and a connection lasts for an hour; without this, whoever a revoked authority has vouched for would
stay (CVE-2022-21654 is of this family).  What other roots vouch for goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

from meshlib.model.identity import TrustBundles
from meshlib.runtime.tls.objects import Checked, verified_chain

End = Callable[[], None]
"""Ends one connection, in whatever way its server does; called on the thread that brought the news, and does not block."""


class Vouched:
    """Open connections, with the root that vouches for each.  Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: WeakKeyDictionary[Checked, tuple[str, bytes, End]] = WeakKeyDictionary()

    def add(self, tls: Checked, end: End) -> None:
        """Call `end` when the root of this peer is trusted no more.  `end` must not keep `tls` alive."""
        if tls.peer is None:
            return
        chain = verified_chain(tls)
        with self._lock:
            self._open[tls] = tls.peer.id.trust_domain, chain[-1] if chain else b"", end

    def recheck(self, trust: TrustBundles) -> None:
        """End the connections that `trust` does not cover."""
        with self._lock:
            known = list(self._open.items())
        for tls, (domain, root, end) in known:
            if root not in trust.roots.get(domain, ()):
                with self._lock:
                    self._open.pop(tls, None)
                end()

    def forget(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._lock = threading.Lock()
        self._open = WeakKeyDictionary()
