"""Faults that are injected on purpose (Envoy ``HTTPFault``): whether a call is one of those."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from meshlib.model.route import Fault
from meshlib.policy.rng import Rng

ABORTED = b"fault filter abort"
"""The body of an aborted call's response, Envoy's words."""


class Strike(NamedTuple):
    """What a call is to suffer: a delay in seconds (0: none), then the abort."""

    delay: float
    aborted: bool


Draw = Callable[[Rng], "Strike | None"]
"""None: the call is spared."""


def compile_fault(fault: Fault) -> Draw:
    """The abort is drawn after the delay, and independent of it."""
    delay, delayed = fault.delay, fault.delay_fraction
    aborts, abortive = bool(fault.http_status or fault.grpc_status is not None), fault.abort_fraction

    def draw(rng: Rng) -> Strike | None:
        pause = delay if delay and (delayed >= 1.0 or rng.random() < delayed) else 0.0
        aborted = aborts and (abortive >= 1.0 or rng.random() < abortive)
        return Strike(pause, aborted) if pause or aborted else None

    return draw
