"""Is this outcome worth another try, and when?  (Envoy ``RetryPolicy.retry_on``.)

An application may put tenacity's `stop` and `wait` strategies in the place of the policy's numbers, for a call or for a Mesh
(`model.call.Overrides`).  They are driven only after a failure, with a RetryCallState of this call alone: a call that succeeds
at once pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.model.call import Headers, Overrides
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.route import RetryPolicy
from meshlib.policy.grpc import status_in
from meshlib.policy.rng import Rng

IDEMPOTENT_RESET = "idempotent-reset"
"""Our own token, part of the mesh's default policy: a request with an idempotent method whose connection ended before any
byte of the response is repeated (RFC 9110 section 9.2.2 allows just that).  Without it, each instance that dies takes the
requests in flight with it; Envoy's nearest token, ``reset``, would repeat a POST as well."""

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

GRPC_STATUS_TOKENS = {
    b"1": "cancelled",
    b"4": "deadline-exceeded",
    b"8": "resource-exhausted",
    b"13": "internal",
    b"14": "unavailable",
}

_CONNECT = frozenset({Reset.CONNECT_FAILURE, Reset.CONNECT_TIMEOUT})
_NEVER = frozenset({Reset.OVERFLOW, Reset.POOL_TIMEOUT, Reset.TIMEOUT, Reset.LOCAL})


class Retry:
    """A compiled retry policy, shared by all calls of a route."""

    __slots__ = ("_connect", "_grpc", "_idempotent", "_limited", "_reset", "_statuses", "_unsent", "_without", "policy")

    def __init__(self, policy: RetryPolicy) -> None:
        on = policy.retry_on
        self.policy = policy
        statuses: set[int] = set()
        if "5xx" in on:
            statuses.update(range(500, 600))
        if "gateway-error" in on:
            statuses.update((502, 503, 504))
        if "retriable-4xx" in on:
            statuses.add(409)
        if "retriable-status-codes" in on:
            statuses.update(policy.status_codes)
        statuses.update(int(token) for token in on if token.isdecimal())  # as Istio's retryOn has them, from Overrides
        self._statuses = frozenset(statuses)
        self._grpc = frozenset(code for code, token in GRPC_STATUS_TOKENS.items() if token in on)
        self._without: Headers = ()  # the last headers that had no grpc-status; connections hand out the same ones for a while
        self._reset = bool(on & {"5xx", "gateway-error", "reset"})
        self._unsent = "reset-before-request" in on
        self._connect = "connect-failure" in on
        self._limited = "envoy-ratelimited" in on
        self._idempotent = IDEMPOTENT_RESET in on

    def wants(self, outcome: Outcome, method: str, *, unsent_only: bool = False) -> bool:
        """True if the policy names what happened.

        `unsent_only`: the call is made for a request that is itself a retry, so only what surely never reached an
        application is tried again; otherwise retries would multiply from hop to hop.
        """
        reset = outcome.reset
        if reset is None:
            if unsent_only:
                return False
            status, headers = outcome.status, outcome.headers
            if status == 200 and self._grpc and headers is not self._without and self._wants_grpc(outcome):
                return not is_retried(headers) and (self._limited or not is_rate_limited(headers))
            if self._limited and is_rate_limited(headers):
                return True
            if status not in self._statuses or is_retried(headers):
                return False
            return self._limited or not is_rate_limited(headers)
        if reset in _NEVER or outcome.responded:
            return False
        if reset in _CONNECT:
            return self._connect or self._unsent or self._reset or self._idempotent
        if not outcome.sent and (self._unsent or self._connect or self._idempotent):
            return True
        if unsent_only:
            return False
        if self._reset:
            return True
        return self._idempotent and reset is Reset.CONNECTION_TERMINATION and method in IDEMPOTENT_METHODS

    def _wants_grpc(self, outcome: Outcome) -> bool:
        """Only a response of trailers alone can be repeated."""
        status = status_in(outcome)
        if status is None and type(outcome.headers) is tuple:  # a list may still change
            self._without = outcome.headers
        return status in self._grpc


def is_rate_limited(headers: Headers) -> bool:
    """A response of a rate limit (``x-envoy-ratelimited``): Envoy tries it again on ``envoy-ratelimited`` and nothing else."""
    return any(len(name) == 19 and name.lower() == b"x-envoy-ratelimited" for name, _ in headers)


RETRIED = b"x-mesh-retried"
"""In the response to a request that failed because of a call behind it, which has been tried as often as it may be: it is the
hop next to a failure that retries, or each hop above would multiply what that one has done already."""


def is_retried(headers: Headers) -> bool:
    """Whether this failure has been retried nearer to where it comes from, `RETRIED`."""
    return any(len(name) == 14 and name.lower() == RETRIED for name, _ in headers)


def backoff(policy: RetryPolicy, retry: int, rng: Rng) -> float:
    """Seconds before the `retry`-th retry (1 is the first): uniform in [0, min(base * 2**(retry-1), max)), as Envoy 1.40."""
    ceiling = min(policy.base_interval * 2.0 ** (retry - 1), policy.max_interval)
    return rng.random() * ceiling


def strategy_state(outcome: Outcome, attempt: int, started: float) -> object:
    """What tenacity's strategies look at: `attempt` tries so far, the last outcome, the seconds since the call began."""
    from tenacity import Future, RetryCallState, Retrying  # 20 ms, and only for applications that use it already

    state = RetryCallState(retry_object=Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    state.start_time = started
    state.outcome_timestamp = outcome.at
    future: Future = Future(attempt)
    if outcome.error is not None:
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome.status)
    state.outcome = future
    return state


def strategy_wait(overrides: Overrides, outcome: Outcome, attempt: int, started: float) -> float | None:
    """Seconds that the application's own strategies wait before the next try; None: they stop.

    Raises nothing of its own; `stop` or `wait` may be absent, then only the other one decides.
    """
    state = strategy_state(outcome, attempt, started)
    if overrides.stop is not None and overrides.stop(state):
        return None
    return float(overrides.wait(state)) if overrides.wait is not None else 0.0


def excludes(tried: Sequence[object], candidate: object) -> bool:
    """Envoy's ``previous_hosts`` predicate."""
    return any(candidate is host for host in tried)
