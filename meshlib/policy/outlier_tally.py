"""What outlier detection counts of one endpoint, and what of an attempt's outcome counts (Envoy ``DetectorHostMonitor``)."""

from __future__ import annotations

from enum import Enum
from typing import Final

from meshlib.model.cluster import OutlierDetection
from meshlib.model.outcome import UNREACHED, Outcome, Reset
from meshlib.policy.failures import says_something
from meshlib.policy.grpc import status_in


class Detection(Enum):
    """Why an endpoint stands out; the values are the words of Envoy's statistics."""

    CONSECUTIVE_5XX = "consecutive_5xx"
    CONSECUTIVE_GATEWAY_FAILURE = "consecutive_gateway_failure"
    CONSECUTIVE_LOCAL_ORIGIN_FAILURE = "consecutive_local_origin_failure"
    SUCCESS_RATE = "success_rate"
    FAILURE_PERCENTAGE = "failure_percentage"
    LOCAL_ORIGIN_SUCCESS_RATE = "local_origin_success_rate"
    LOCAL_ORIGIN_FAILURE_PERCENTAGE = "local_origin_failure_percentage"


class Tally:
    """Counts since the last reset of each, and the history of ejections.  Kept with its host."""

    __slots__ = (
        "backoff",
        "cause",
        "consecutive_5xx",
        "consecutive_gateway",
        "consecutive_local",
        "ejected_at",
        "ejections",
        "jitter",
        "local_ok",
        "local_total",
        "ok",
        "total",
        "unejected_at",
    )

    def __init__(self) -> None:
        self.consecutive_5xx = 0
        self.consecutive_gateway = 0
        self.consecutive_local = 0
        self.total = 0  # responses since the last interval tick, and those below 500 among them
        self.ok = 0
        self.local_total = 0  # the same of connections, when their errors are counted apart
        self.local_ok = 0
        self.ejections = 0  # how often it was ejected, ever
        self.ejected_at = 0.0
        self.jitter = 0.0  # seconds, of the ejection that lasts
        self.backoff = 0  # multiplies the base ejection time
        self.unejected_at: float | None = None
        self.cause: Detection | None = None  # of the newest ejection

    def responded(self, code: int, config: OutlierDetection) -> tuple[Detection, ...]:
        """A response with this status, or what stands for one.  Returns what it makes the endpoint an outlier by.

        A threshold is met when it is reached, not beyond it: whoever acts on a detection resets its count (`reset`).
        """
        self.total += 1
        if code < 500:
            self.ok += 1
            self.consecutive_5xx = self.consecutive_gateway = 0
            return ()
        found: tuple[Detection, ...] = ()
        if code in _GATEWAY:
            self.consecutive_gateway += 1
            if self.consecutive_gateway == config.consecutive_gateway_failure:
                found = (Detection.CONSECUTIVE_GATEWAY_FAILURE,)
        else:
            self.consecutive_gateway = 0
        self.consecutive_5xx += 1
        if self.consecutive_5xx == config.consecutive_5xx:
            found = (*found, Detection.CONSECUTIVE_5XX)
        return found

    def connected(self) -> None:
        """A connection was there to send the request on (counted only apart from responses)."""
        self.local_total += 1
        self.local_ok += 1
        self.consecutive_local = 0

    def broke(self, config: OutlierDetection) -> tuple[Detection, ...]:
        """There was no connection, or it ended, or time ran out (counted only apart from responses)."""
        self.local_total += 1
        self.consecutive_local += 1
        if self.consecutive_local == config.consecutive_local_origin_failure:
            return (Detection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE,)
        return ()

    def reset(self, detection: Detection) -> None:
        """Begin to count anew what has led to `detection`."""
        if detection is Detection.CONSECUTIVE_5XX:
            self.consecutive_5xx = 0
        elif detection is Detection.CONSECUTIVE_GATEWAY_FAILURE:
            self.consecutive_gateway = 0
        elif detection is Detection.CONSECUTIVE_LOCAL_ORIGIN_FAILURE:
            self.consecutive_local = 0


_GATEWAY: Final = frozenset({502, 503, 504})

_TIMEOUTS: Final = frozenset({Reset.TIMEOUT, Reset.PER_TRY_TIMEOUT})

_HTTP_STATUS: Final = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)
"""By gRPC status (Envoy ``Grpc::Utility::grpcToHttpStatus``)."""


def count(tally: Tally, outcome: Outcome, config: OutlierDetection) -> tuple[Detection, ...]:
    """Enter an attempt's outcome.  Returns what it makes the endpoint an outlier by, most often nothing."""
    apart = config.split_external_local_origin_errors
    reset = outcome.reset
    if reset is None:
        if apart:
            tally.connected()
        return tally.responded(_code(outcome, config.error_statuses), config)
    if not says_something(outcome):
        return ()
    if not apart:
        return tally.responded(504 if reset in _TIMEOUTS else 503, config)
    if outcome.sent and reset not in UNREACHED:
        tally.connected()
    return tally.broke(config)


def _code(outcome: Outcome, errors: frozenset[int]) -> int:
    """The HTTP status; of a gRPC call that ended with its headers, what Envoy takes its gRPC status for.

    If there are `errors`, they are errors (500 if they are below) and all others are fine, whatever they are.
    """
    if outcome.status == 200:
        status = status_in(outcome)
        if status is not None and status.isdigit():
            code = int(status)
            return _HTTP_STATUS[code] if code < len(_HTTP_STATUS) else 500
    if errors:
        return max(outcome.status, 500) if outcome.status in errors else 200
    return outcome.status
