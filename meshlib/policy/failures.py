"""Whether an attempt says something bad about the destination: what counts as a failure, as for outlier detection.

A failure is a status from 500 (for gRPC: the code that stands for one), a connection that could not be made or broke, and a
timeout, whoever set it: a destination that hangs shows in nothing else.  What is the caller's own doing is none: statuses
below 500, limits of this process, requests that could not be written, calls that were given up.
"""

from __future__ import annotations

from meshlib.model.outcome import Outcome, Reset
from meshlib.policy.grpc import status_in

_OWN = frozenset({Reset.LOCAL, Reset.OVERFLOW, Reset.POOL_TIMEOUT})
"""Ends of attempts that say nothing about the destination: limits and failures of this process."""

_GRPC_FAILURES = frozenset({b"2", b"4", b"12", b"13", b"14", b"15"})
"""UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: 5xx in Envoy's ``grpcToHttpStatus``."""


def says_something(outcome: Outcome) -> bool:
    """False: the attempt ended by this process's own doing, and nothing is learned about the destination."""
    if outcome.reset is Reset.TIMEOUT:
        return outcome.sent  # else time passed in line for a connection, or in making it: the connect timeout's to judge
    return outcome.reset not in _OWN


def is_failure(outcome: Outcome) -> bool:
    """Of an attempt that says something."""
    if outcome.reset is not None:
        return True
    status = outcome.status
    return status >= 500 or (status == 200 and status_in(outcome) in _GRPC_FAILURES)
