"""The guards of a cluster around an attempt: all of them have to let it through, and all learn what it came to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meshlib.model.outcome import Outcome
from meshlib.policy.adaptive_concurrency import ConcurrencyGuard
from meshlib.policy.circuit_breaker import FailureRateBreaker, State
from meshlib.policy.guard import Guard
from meshlib.policy.rng import Rng
from meshlib.telemetry.events import Event

if TYPE_CHECKING:
    from meshlib.flow.upstream import Upstream

_EVENTS = {
    State.OPEN: "circuit_breaker.opened",
    State.HALF_OPEN: "circuit_breaker.half_opened",
    State.CLOSED: "circuit_breaker.closed",
}

_REASONS = {
    (State.CLOSED, State.OPEN): "failure_percent",
    (State.HALF_OPEN, State.OPEN): "probe_failed",
    (State.HALF_OPEN, State.CLOSED): "probes_succeeded",
}


def admit(guards: tuple[Guard, ...], now: float, rng: Rng) -> tuple[Guard, str] | None:
    """None: an attempt may be made at `now`, and is to be settled.  Otherwise who refuses it, and why."""
    for guard in guards:
        reason = guard.admit(now, rng)
        if reason:
            settle(guards[: guards.index(guard)], None, now)
            return guard, reason
    return None


def settle(guards: tuple[Guard, ...], outcome: Outcome | None, began: float) -> None:
    """What an attempt that was admitted at `began` came to; None: it was given up, or never made."""
    for guard in guards:
        guard.settle(outcome, began)


def in_vain(guards: tuple[Guard, ...], at: float) -> bool:
    """Whether an attempt at that time would be in vain, as far as can be known."""
    return any(guard.retry_after(at) > 0.0 for guard in guards)


def guards_of(upstream: Upstream, rng: Rng) -> tuple[Guard, ...]:
    """What the upstream's cluster asks for.  A guard whose policy has not changed stays, with all that it knows."""
    resilience = upstream.cluster.resilience
    if resilience is None:
        return ()
    guards: list[Guard] = []
    breaking, limiting = resilience.circuit_breaker, resilience.adaptive_concurrency
    if breaking is not None:
        breaker = next((known for known in upstream.guards if isinstance(known, FailureRateBreaker)), None)
        if breaker is None or breaker.policy != breaking:
            breaker = FailureRateBreaker(breaking, partial(_tell, upstream))
        guards.append(breaker)
    if limiting is not None:
        limit = next((known for known in upstream.guards if isinstance(known, ConcurrencyGuard)), None)
        if limit is None or limit.controller.policy != limiting:
            limit = ConcurrencyGuard(limiting, rng)
        guards.append(limit)
    return tuple(guards)


def breaker_of(upstream: Upstream) -> FailureRateBreaker | None:
    """The circuit breaker of an upstream, if it has one."""
    return next((guard for guard in upstream.guards if isinstance(guard, FailureRateBreaker)), None)


def concurrency_of(upstream: Upstream) -> ConcurrencyGuard | None:
    """The adaptive limit of an upstream, if it has one."""
    return next((guard for guard in upstream.guards if isinstance(guard, ConcurrencyGuard)), None)


def _tell(upstream: Upstream, before: State, after: State, at: float) -> None:
    if upstream.emit is not None:
        reason = _REASONS.get((before, after), "")
        upstream.emit(Event(_EVENTS[after], at, cluster=upstream.name, reason=reason))
