"""How a call ends well: its last outcome, and what its response still holds."""

from __future__ import annotations

from meshlib import errors
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Headers
from meshlib.model.outcome import Outcome
from meshlib.policy.balancing import Host


class Lease:
    """The slots that a response holds until its body has been read or given up.  `release` is idempotent."""

    __slots__ = ("_host", "_upstream")

    def __init__(self, upstream: Upstream, host: Host) -> None:
        self._upstream: Upstream | None = upstream
        self._host = host

    def release(self) -> None:
        """Under the same lock as the flow's steps."""
        if self._upstream is not None:
            self._upstream.active -= 1
            self._host.active -= 1
            self._upstream = None


class Served:
    """How a flow ends well: the last outcome, and the lease to release (None when nothing is held).

    ``headers`` are set when they are not those of the outcome: the route has changed them, or the response is its own.

    ``limit`` is set when the attempt had less time than the call: a response that has begun is bounded by the call's deadline
    (None: by none) and its name, and no longer by the timeout of one try, as in Envoy.
    """

    __slots__ = ("body", "headers", "lease", "limit", "outcome")

    def __init__(
        self,
        outcome: Outcome,
        lease: Lease | None,
        body: bytes = b"",
        limit: tuple[float | None, errors.TimeoutName] | None = None,
    ) -> None:
        self.outcome = outcome
        self.lease = lease
        self.body = body
        self.headers: Headers | None = None
        self.limit = limit
