"""Keeps shares of global limits: one RLQS stream to the control service, for both sides of a process.

One daemon thread reads assignments; gRPC's own sending thread takes reports from a generator, as they become due.  Nothing is
started before there is a limit to share, and nothing that goes wrong here reaches the application: buckets go by what they
were told last, and then by what their policy says (`policy.quota`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from meshlib.errors import ControlError
from meshlib.flow.limiting import Limiting
from meshlib.policy.backoff import Backoff
from meshlib.policy.quota import REPORT_INTERVAL, SharedLimits
from meshlib.policy.rate_limit import Limiters
from meshlib.policy.rng import Rng
from meshlib.runtime.daemon import Daemon
from meshlib.runtime.fork import forget_in_child

if TYPE_CHECKING:
    import grpc

    from meshlib.runtime.channel import Channels

logger = logging.getLogger("meshlib")

BACKOFF = Backoff(initial=0.2, cap=5.0)
"""Short: shares run out while nobody can be asked."""

_LOOK = 0.1  # seconds between looks for a certificate, and for whether to end


class Side(NamedTuple):
    """The shared limits of calls, or of served requests; the lock of `limiting` is around everything about them."""

    shared: SharedLimits
    limiting: Limiting


class QuotaStream:
    """One per process.  All methods may be called from any thread."""

    def __init__(
        self, channel: Channels, sides: Sequence[Limiting], clock: Callable[[], float], *, rng: Rng | None = None
    ) -> None:
        """`sides`: of calls and of served requests, before they have any limits; `clock`: that they go by."""
        self.connected = False
        self.responses = 0  # applied, on all streams
        self._channel = channel
        self._sides = tuple(Side(SharedLimits(), side) for side in sides)
        for each in self._sides:
            each.limiting.limiters = Limiters(each.shared)
            each.shared.emit = each.limiting.emit
        self._clock = clock
        self._rng = rng or Random()
        self._applied = 0  # responses of the present stream
        self._process = b""  # tells the control service whose shares they are, when a stream breaks
        self._daemon = Daemon("meshlib-quotas", self._run)
        for side in self._sides:
            side.shared.wake = self._daemon.wake
        forget_in_child(self)

    def start(self) -> None:
        """Idempotent; does nothing as long as there is nothing to share."""
        if not self._daemon.started and any(side.shared for side in self._sides):
            self._daemon.start()

    def close(self, timeout: float = 2.0) -> None:
        """Report what is left and end the stream, so that this process's shares are free at once."""
        self._daemon.close(timeout)

    def forget(self) -> None:
        """In a forked child: the stream is the parent's."""
        self._daemon.forget()
        self.connected = False

    def _run(self) -> None:
        self._process = os.urandom(16)
        failures = 0
        while not self._daemon.closing:
            self._applied = 0
            try:
                self._converse()
            except Exception as error:
                failures = 1 if self._applied else failures + 1
                if failures == 1:
                    logger.info("the stream of quotas ended, shares are kept as policies say: %s", _reason(error))
            else:
                failures = 0
            self.connected = False
            self._pause(BACKOFF.delay(max(failures, 1), self._rng))

    def _converse(self) -> None:
        """One stream, from its first report to its end.  Raises what ends it."""
        channel = self._ready()
        if channel is None:
            return
        from meshlib.xds.quota import STREAM, decode_response

        for side in self._sides:
            with side.limiting.lock:
                side.shared.began(self._clock())
        ended = threading.Event()
        call = channel.stream_stream(STREAM)(self._reports(ended))
        try:
            for data in call:
                self.connected = True
                actions = decode_response(data)
                for side in self._sides:
                    with side.limiting.lock:
                        side.shared.apply(actions, self._clock())
                self._applied += 1
                self.responses += 1
                self._daemon.wake()  # its sender waits to hear that it is in force
        finally:
            ended.set()
            self._daemon.wake()
            call.cancel()

    def _reports(self, ended: threading.Event) -> Iterator[bytes]:
        """What is due, as it becomes so; at the end of the process all that is left.  Runs in gRPC's sending thread."""
        from meshlib.xds.quota import Reports, encode_reports

        told, process = 0, self._process
        while not ended.is_set():
            closing = self._daemon.closing
            applied = self._applied
            usages = []
            for side in self._sides:
                with side.limiting.lock:
                    usages += side.shared.reports(self._clock(), everything=closing)
            if usages or applied != told or closing:
                told = applied
                yield encode_reports(Reports(usages, applied, closing, process))
                process = b""  # once a stream
            if closing:
                return
            self._daemon.wait(REPORT_INTERVAL / 4)

    def _ready(self) -> grpc.Channel | None:
        """The channel, once there is a bucket to speak of and a certificate to show."""
        while not self._daemon.closing:
            pause = None  # a first bucket wakes us, and so does the end
            if any(side.shared.used for side in self._sides):
                try:
                    return self._channel.get()
                except ControlError:  # no certificate (yet)
                    pause = _LOOK
            self._daemon.wait(pause)
        return None

    def _pause(self, seconds: float) -> None:
        until = self._clock() + seconds
        while not self._daemon.closing and (left := until - self._clock()) > 0:
            time.sleep(min(left, _LOOK))


def _reason(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details()) if callable(details) else f"{type(error).__name__}: {error}"
