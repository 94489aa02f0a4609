"""Circuit breakers as `pybreaker` objects: their state, and listeners for its changes.

Meshlib's own breaker decides (`policy.circuit_breaker`), since pybreaker's holds a lock for the length of a call and knows no
failure rate; its objects show what was decided.  They are moved, never wrapped around a call.

Listeners run in a thread of their own, one change after the other, outside of all locks of the mesh: a slow one delays only
other listeners.  Whoever looks at a breaker first gets all changes up to then delivered, in his own thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from meshlib.flow.guarding import breaker_of
from meshlib.flow.upstream import Upstream
from meshlib.policy.circuit_breaker import FailureRateBreaker, State
from meshlib.runtime.delivery import Delivery
from meshlib.runtime.drive import Lock

if TYPE_CHECKING:
    from pybreaker import CircuitBreaker, CircuitBreakerListener

logger = logging.getLogger("meshlib")


class _Watched(NamedTuple):
    """A cluster whose breaker is followed."""

    upstream: Upstream
    breaker: FailureRateBreaker


class _Change(NamedTuple):
    name: str
    before: State
    after: State


class CircuitBreakers(Mapping[str, "CircuitBreaker"]):
    """By the name of the cluster, as errors and ``response.extensions`` have it; or by the service's host, where that names one
    of them: ``mesh.circuit_breakers["reviews.default.svc.cluster.local"]``, ``mesh.circuit_breakers["reviews"]``.

    A cluster is here from the first call to its host on, if a ResiliencePolicy gives it a breaker.
    """

    def __init__(self, lock: Lock, clock: Callable[[], float]) -> None:
        """`lock`: of policy state; `clock`: that flows are driven with."""
        self._lock = lock
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._shown: dict[str, CircuitBreaker] = {}
        self._listeners: list[CircuitBreakerListener] = []
        self._changes: Delivery[_Change] = Delivery("meshlib-circuit-breakers", self._deliver)

    def add_listener(self, listener: CircuitBreakerListener) -> None:
        """Of all breakers, those that come later too.  Its ``state_change(breaker, old, new)`` is what will be called."""
        with self._changes.turn:
            self._listeners.append(listener)
            for shown in self._shown.values():
                shown.add_listener(listener)

    # --- for the mesh

    def follow(self, upstreams: Iterable[Upstream]) -> None:
        """All clusters that there are now."""
        present = {upstream.name: _Watched(upstream, breaker) for upstream in upstreams if (breaker := breaker_of(upstream))}
        before, self._watched = self._watched, present
        for gone in before.keys() - present.keys():
            self._shown.pop(gone, None)
        for name, watched in present.items():
            known = before.get(name)
            if known is not None and known.breaker is watched.breaker:
                continue
            watched.breaker.followers.append(partial(self._moved, name))
            if known is not None and known.breaker.state is not watched.breaker.state:
                self._changes.put(_Change(name, known.breaker.state, watched.breaker.state))  # another policy begins anew
        if present:
            self._changes.start()

    def close(self) -> None:
        """No more is told."""
        self._changes.close()

    # --- Mapping

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, name: str) -> CircuitBreaker:
        found = name if name in self._watched else self._only_one(name)
        self._changes.deliver_all()
        with self._changes.turn:
            return self._shown.get(found) or self._show(found, self._watched[found].breaker.state)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._watched))

    def __len__(self) -> int:
        return len(self._watched)

    def _only_one(self, host: str) -> str:
        """The cluster of a host; of several the one without a subset.  Raises KeyError."""
        found = [
            name
            for name, (upstream, _) in self._watched.items()
            if host in (upstream.cluster.host, upstream.cluster.host.partition(".")[0])
        ]
        whole = [name for name in found if not self._watched[name].upstream.cluster.subset] or found
        if len(whole) == 1:
            return whole[0]
        if whole:
            raise KeyError(f"{host} has several circuit breakers, name one of them: {', '.join(sorted(whole))}")
        known = ", ".join(sorted(self._watched)) or "none; a call to a host with a ResiliencePolicy makes one"
        raise KeyError(f"{host} has no circuit breaker; known are {known}")

    # --- changes

    def _moved(self, name: str, before: State, after: State, at: float) -> None:
        """Called under the lock of policy state: `put` never waits."""
        self._changes.put(_Change(name, before, after))

    def _deliver(self, change: _Change) -> None:
        shown = self._shown.get(change.name)
        if shown is None:
            if not self._listeners or change.name not in self._watched:
                return  # nobody has looked at it yet
            shown = self._show(change.name, change.before)
        try:
            _MOVES[change.after](shown)
        except Exception:
            logger.exception("a listener of the circuit breaker of %s failed", change.name)

    def _show(self, name: str, state: State) -> CircuitBreaker:
        """A breaker for those who want to look, in the state that it has."""
        policy = self._watched[name].breaker.policy
        shown: CircuitBreaker = _shown_class()(partial(self._command, name), name=name, state=state.value, policy=policy)
        for listener in self._listeners:
            shown.add_listener(listener)
        self._shown[name] = shown
        return shown

    def _command(self, name: str, move: Callable[[FailureRateBreaker, float], None]) -> None:
        """A person opens or closes a breaker."""
        watched = self._watched.get(name)
        if watched is None:
            raise KeyError(f"{name} has no circuit breaker any more")
        with self._lock:
            move(watched.breaker, self._clock())
        self._changes.deliver_all()


def _move(method: str) -> Callable[[Any], None]:
    def move(shown: Any) -> None:
        getattr(super(type(shown), shown), method)()

    return move


_MOVES = {State.OPEN: _move("open"), State.HALF_OPEN: _move("half_open"), State.CLOSED: _move("close")}
"""pybreaker's own methods, which tell the listeners."""


@cache
def _shown_class() -> Any:
    """Made when somebody wants one: pybreaker is not loaded before."""
    import pybreaker

    class DestinationBreaker(pybreaker.CircuitBreaker):
        """The circuit breaker of one destination, as the mesh has it.

        ``open`` and ``close`` move the mesh's own, as if that many calls had failed or all probes succeeded.  Calls through the
        mesh are guarded already; anything else is not its business, so there is no ``call``.
        """

        def __init__(self, command: Any, *, name: str, state: str, policy: Any) -> None:
            super().__init__(
                fail_max=policy.min_requests,
                reset_timeout=policy.open_duration,
                success_threshold=policy.half_open_requests,
                state_storage=pybreaker.CircuitMemoryStorage(state),
                name=name,
            )
            self._command = command

        def open(self) -> bool:
            self._command(FailureRateBreaker.trip)
            return True

        def close(self) -> None:
            self._command(FailureRateBreaker.reset)

        def half_open(self) -> None:
            raise TypeError("a circuit breaker of the mesh becomes half-open by itself, when its time has come")

        def call(self, func: Any, *args: Any, **kwargs: Any) -> Any:
            raise TypeError("calls through the mesh are guarded by this circuit breaker already; make them as they are")

        call_async = call

    return DestinationBreaker
