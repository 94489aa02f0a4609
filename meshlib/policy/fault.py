"""Faults that are injected on purpose (Envoy ``HTTPFault``): whether a call is one of those."""

from __future__ import annotations

from meshlib.model.route import Fault
from meshlib.policy.rng import Rng

ABORTED = b"fault filter abort"
"""The body of an aborted call's response, Envoy's words."""


def drawn_delay(fault: Fault, rng: Rng) -> float:
    """Seconds that this call is to be held up; 0: it is not."""
    return fault.delay if fault.delay and _hits(fault.delay_fraction, rng) else 0.0


def is_aborted(fault: Fault, rng: Rng) -> bool:
    """Drawn after the delay, and independent of it."""
    return bool(fault.http_status or fault.grpc_status is not None) and _hits(fault.abort_fraction, rng)


def _hits(fraction: float, rng: Rng) -> bool:
    return fraction >= 1.0 or rng.random() < fraction
