"""Faults that are injected on purpose (Envoy ``HTTPFault``): whether a call is one of those."""

from __future__ import annotations

from typing import NamedTuple

from meshlib.model.route import Fault
from meshlib.policy.rng import Rng

ABORTED = b"fault filter abort"
"""The body of an aborted call's response, Envoy's words."""


class Strike(NamedTuple):
    """What a call is to suffer: a delay in seconds (0: none), then the abort."""

    delay: float
    aborted: bool


def drawn(fault: Fault, rng: Rng) -> Strike | None:
    """The abort is drawn after the delay, and independent of it.  None: the call is spared."""
    delay = fault.delay
    if delay and (fraction := fault.delay_fraction) < 1.0 and rng.random() >= fraction:
        delay = 0.0
    aborted = bool(fault.http_status or fault.grpc_status is not None)
    if aborted and (fraction := fault.abort_fraction) < 1.0:
        aborted = rng.random() < fraction
    return Strike(delay, aborted) if delay or aborted else None
