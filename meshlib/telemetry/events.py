"""What changed by itself while calls went on: an endpoint ejected, a breaker opened, a limit reached, a quota assigned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """`name` in dotted words: ``outlier_detection.ejected``, ``circuit_breaker.opened``, ``health_check.failed`` ...

    `at`: seconds on the clock that flows are driven with.  `reason`: Envoy's word for it where there is one
    (``consecutive_5xx``), else a few words for people.
    """

    name: str
    at: float
    cluster: str = ""
    endpoint: str = ""
    reason: str = ""


Emit = Callable[[Event], None]
"""Called under the lock of the mesh's policy state: it only takes note, and never waits."""
