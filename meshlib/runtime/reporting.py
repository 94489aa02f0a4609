"""Tells the control service what this process has found out about those that it calls: for `meshctl endpoints`.

One daemon thread.  It looks every two seconds, which costs a handful of comparisons for each cluster, and sends only while
there is something worth noting: a change at once, the rest every ten seconds, and one last empty report when all is well again.
Nothing that goes wrong here reaches the application, and nothing is made up for: what was not told now is told with the next
report, or is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from meshlib.flow.limiting import Limiting
from meshlib.flow.reporting import Noteworthy, outline
from meshlib.model.report import Report
from meshlib.policy.rng import Rng
from meshlib.runtime.client import Client
from meshlib.runtime.daemon import Daemon
from meshlib.runtime.fork import forget_in_child

if TYPE_CHECKING:
    from meshlib.runtime.channel import Channels

logger = logging.getLogger("meshlib")

LOOK: Final = 2.0
"""Seconds between looks, and so between reports at least."""

REPEAT: Final = 10.0
"""Seconds after which what has not changed is told again; the control service forgets it after three times that."""

CALL_TIMEOUT: Final = 5.0


class Reporting:
    """One per process.  All methods may be called from any thread."""

    def __init__(
        self, channel: Channels, instance_id: Callable[[], str], client: Client, serving: Limiting, *, rng: Rng | None = None
    ) -> None:
        """`instance_id`: of this process, as its xDS node has it; `serving`: the limits of served requests."""
        self.sent = 0  # reports that have arrived
        self._channel = channel
        self._instance_id = instance_id
        self._client = client
        self._serving = serving
        self._rng = rng or Random()
        self._noteworthy = Noteworthy()
        self._daemon = Daemon("meshlib-reporting", self._run)
        self._told: object = None  # the outline of the last report that was sent; None: nothing is known there
        self._told_at = 0.0
        forget_in_child(self)

    def start(self) -> None:
        """Idempotent."""
        self._daemon.start()

    def close(self, timeout: float = 2.0) -> None:
        """Take back what was told, and end."""
        self._daemon.close(timeout)

    def forget(self) -> None:
        """In a forked child: what was told, the parent has told."""
        self._daemon.forget()
        self._told = None

    def look(self) -> Report:
        """What is worth noting now."""
        client, noteworthy = self._client, self._noteworthy
        upstreams = list(client.destinations.upstreams.values())
        for upstream in upstreams:
            with client.lock:
                noteworthy.look_at(upstream, self._rng, client.clock())
        noteworthy.keep(frozenset(upstream.name for upstream in upstreams))
        for limiting, side in ((client.limiting, "client"), (self._serving, "server")):
            with limiting.lock:
                noteworthy.look_at_limits(limiting, side, limiting.clock())
        return noteworthy.report()

    def _run(self) -> None:
        failed = ""  # why the last report did not arrive
        while not self._daemon.closing:
            # A fleet that was started at once must not report at once.
            self._daemon.wait((REPEAT if failed else LOOK) * (1.0 + 0.2 * self._rng.random()))
            try:
                self.tell(Report() if self._daemon.closing else self.look())
                failed = ""
            except Exception as error:  # no certificate (yet), no control service, an older one
                reason = type(error).__name__
                if reason != failed:  # said once, not at every attempt
                    logger.debug("the control service was not told what this process knows of endpoints: %s", error)
                failed = reason

    def tell(self, report: Report) -> None:
        """Send it if there is anything new in it, or if it is time to say it again.  Raises what the call raises."""
        now, now_told = self._client.clock(), outline(report) if report else None
        if now_told == self._told and (not report or now - self._told_at < REPEAT):
            return
        self._send(report)
        self.sent += 1
        self._told, self._told_at = now_told, now

    def _send(self, report: Report) -> None:
        from meshlib.xds.reports import REPORT, encode_report

        call = self._channel.get().unary_unary(REPORT)
        call(encode_report(report, self._instance_id()), timeout=1.0 if self._daemon.closing else CALL_TIMEOUT)
