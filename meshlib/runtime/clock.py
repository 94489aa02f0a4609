"""Time, read here and nowhere below: everything under the runtime gets it as an argument."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds.  `monotonic` for durations and deadlines; `wall` (POSIX time) for certificates and people."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


SYSTEM = SystemClock()
