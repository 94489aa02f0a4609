"""Circuit breakers as pybreaker objects: found, told of, moved by hand."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pybreaker
import pytest

from meshlib.flow.guarding import breaker_of
from meshlib.flow.upstream import Upstream
from meshlib.model.resilience import CircuitBreaker, Resilience
from meshlib.policy.circuit_breaker import FailureRateBreaker
from meshlib.runtime.circuit_breakers import CircuitBreakers
from meshlib.testing import FakeClock, service

RNG = random.Random(1)


def upstream(host: str, *, subset: str = "", policy: CircuitBreaker | None = CircuitBreaker()) -> Upstream:  # noqa: B008  # it is frozen
    (config,) = service("reviews", ["10.0.0.1:80"]).clusters.values()
    assert config.cluster is not None
    made = Upstream(f"outbound|80|{subset}|{host}")
    resilience = Resilience(policy) if policy is not None else None
    cluster = replace(config.cluster, name=made.name, host=host, subset=subset, resilience=resilience)
    made.update(replace(config, cluster=cluster), RNG)
    return made


def policy_of(made: Upstream) -> FailureRateBreaker:
    breaker = breaker_of(made)
    assert breaker is not None
    return breaker


class Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, count: int = 1) -> None:
        self.moves: list[tuple[str | None, str, str]] = []
        self.thread = ""
        self._left = count
        self.done = threading.Event()

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.moves.append((cb.name, old_state.name, new_state.name))
        self.thread = threading.current_thread().name
        self._left -= 1
        if not self._left:
            self.done.set()


@pytest.fixture
def lock() -> threading.Lock:
    return threading.Lock()


@pytest.fixture
def breakers(lock: threading.Lock) -> Iterator[CircuitBreakers]:
    made = CircuitBreakers(lock, FakeClock().__call__)
    yield made
    made.close()


REVIEWS = "reviews.default.svc.cluster.local"


def test_they_are_found_by_cluster_host_and_short_name(breakers: CircuitBreakers) -> None:
    breakers.follow([upstream(REVIEWS), upstream(REVIEWS, subset="v1"), upstream("a.other.svc.cluster.local", policy=None)])
    name = f"outbound|80||{REVIEWS}"
    assert breakers[name] is breakers[REVIEWS] is breakers["reviews"]
    assert isinstance(breakers[name], pybreaker.CircuitBreaker)
    assert set(breakers) == {name, f"outbound|80|v1|{REVIEWS}"}
    assert breakers[f"outbound|80|v1|{REVIEWS}"] is not breakers[name]


def test_an_unclear_name_says_what_there_is(breakers: CircuitBreakers) -> None:
    breakers.follow([upstream(REVIEWS, subset="v1"), upstream(REVIEWS, subset="v2")])
    with pytest.raises(KeyError, match="several circuit breakers, name one of them"):
        breakers["reviews"]
    with pytest.raises(KeyError, match="has no circuit breaker; known are"):
        breakers["ratings"]
    assert breakers.get("ratings") is None


def test_listeners_are_called_in_a_thread_of_their_own_while_the_lock_of_policies_is_held(
    breakers: CircuitBreakers, lock: threading.Lock
) -> None:
    """A listener that needed the lock would wait for ever, if it were called under it."""
    made = upstream(REVIEWS)
    breakers.follow([made])
    listener = Listener()
    breakers.add_listener(listener)
    with lock:
        policy_of(made).trip(10.0)
        assert listener.done.wait(30)
    assert listener.moves == [(made.name, "closed", "open")]
    assert listener.thread == "meshlib-circuit-breakers"


def test_a_listener_that_fails_hurts_nobody_else(breakers: CircuitBreakers, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(pybreaker.CircuitBreakerListener):
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            raise RuntimeError("broken")

    made = upstream(REVIEWS)
    breakers.follow([made])
    listener = Listener(2)
    breakers.add_listener(listener)
    breakers.add_listener(Broken())
    policy_of(made).trip(10.0)
    policy_of(made).reset(11.0)
    assert listener.done.wait(30)
    assert [move[2] for move in listener.moves] == ["open", "closed"]
    assert breakers["reviews"].current_state == "closed"
    assert "a listener of the circuit breaker of" in caplog.text


def test_who_looks_sees_the_latest_state(breakers: CircuitBreakers) -> None:
    made = upstream(REVIEWS)
    breakers.follow([made])
    shown = breakers["reviews"]
    for _ in range(50):
        policy_of(made).trip(10.0)
        assert breakers["reviews"] is shown
        assert breakers["reviews"].current_state == "open"
        policy_of(made).reset(11.0)
        assert breakers["reviews"].current_state == "closed"


def test_by_hand(breakers: CircuitBreakers) -> None:
    made = upstream(REVIEWS)
    breakers.follow([made])
    shown = breakers["reviews"]
    shown.open()
    assert policy_of(made).admit(0.0, RNG)
    assert shown.current_state == "open"
    shown.close()
    assert not policy_of(made).admit(0.0, RNG)
    assert shown.current_state == "closed"
    with pytest.raises(TypeError, match="guarded"):
        shown.call(print)
    with pytest.raises(TypeError, match="by itself"):
        shown.half_open()


def test_another_policy_begins_anew_and_says_so(breakers: CircuitBreakers) -> None:
    made = upstream(REVIEWS)
    breakers.follow([made])
    policy_of(made).trip(10.0)
    assert breakers["reviews"].current_state == "open"
    breakers.follow([upstream(REVIEWS, policy=CircuitBreaker(min_requests=3))])
    assert breakers["reviews"].current_state == "closed"


def test_what_is_followed_twice_is_told_once(breakers: CircuitBreakers) -> None:
    made = upstream(REVIEWS)
    for _ in range(3):
        breakers.follow([made])
    assert len(policy_of(made).followers) == 2


def test_a_cluster_that_goes_is_gone(breakers: CircuitBreakers) -> None:
    breakers.follow([upstream(REVIEWS)])
    shown = breakers["reviews"]
    breakers.follow([])
    assert len(breakers) == 0
    with pytest.raises(KeyError, match="any more"):
        shown.open()


def test_nothing_runs_for_those_who_have_none(breakers: CircuitBreakers) -> None:
    breakers.follow([upstream(REVIEWS, policy=None)])
    assert "meshlib-circuit-breakers" not in [thread.name for thread in threading.enumerate()]


def test_pybreaker_is_loaded_when_somebody_looks() -> None:
    code = "import sys, meshlib, meshlib.runtime.circuit_breakers; sys.exit('pybreaker' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
