"""The rules for clients of Consul's blocking queries, as a state machine without clock or socket.

Source: Consul, "Blocking queries: implementation details" and "Consistency modes".

1. An index that goes backwards starts again from 0 (the servers were restored or replaced).
2. An index below 1 counts as 1, else the query would never block.
3. An answer is no proof of a change: contents are compared.
4. Queries are rate-limited: two at once, then one a second, and one in 15 seconds while answers keep coming
   early and without news.
5. The wait is jittered, and the read timeout is longer than wait * 17/16, since the server adds up to wait / 16.
6. Reads may come from any server (``stale``), but one that lost its leader or lags too far is asked again with
   the default consistency; if nobody leads, what is known stays.
7. After a failure the next query does not block: the server that answers may know nothing of our index.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, Literal, Protocol, TypeVar

Consistency = Literal["stale", "default", "consistent"]
T = TypeVar("T")


class Rng(Protocol):
    """The one method of random.Random that is needed."""

    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class BlockingRules:
    """Seconds throughout."""

    wait: float = 60.0  # how long the server may hold a query
    burst: int = 2
    interval: float = 1.0  # one query in this time, beyond the burst
    interval_max: float = 15.0
    stale: bool = True
    max_staleness: float = 10.0  # X-Consul-LastContact above this: ask the leader
    retry_min: float = 0.5
    retry_max: float = 15.0
    grace: float = 10.0  # on top of the longest time that the server may hold a query


@dataclass(frozen=True, slots=True)
class Query:
    """What to send.  `index` 0 means: answer at once."""

    index: int
    wait: float
    consistency: Consistency

    @property
    def read_timeout(self) -> float:
        """Without the grace of the rules; the server adds up to a 16th to the wait."""
        return self.wait * 17 / 16 if self.index else 0.0


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """`index` and the staleness headers as received; `content` must be comparable."""

    index: int
    content: T
    last_contact: float = 0.0  # seconds since the answering server heard of its leader
    known_leader: bool = True


@dataclass(frozen=True, slots=True)
class Watching(Generic[T]):
    """Where one watch stands."""

    content: T | None = None  # last accepted; None: nothing yet
    index: int = 0
    tokens: float = 2.0
    counted: float = 0.0  # when tokens were last counted
    interval: float = 1.0  # present price of a token, in seconds
    asked: float = 0.0
    ask_leader: bool = False
    failures: int = 0


def start(rules: BlockingRules, now: float) -> Watching[T]:
    return Watching(tokens=float(rules.burst), counted=now, interval=rules.interval)


def delay(state: Watching[T], rules: BlockingRules, now: float, rng: Rng) -> float:
    """Seconds until the next query may be sent: the longer of rate limit and back-off after failures."""
    missing = 1.0 - _tokens(state, rules, now)
    limited = max(0.0, missing * state.interval)
    if not state.failures:
        return limited
    backoff = min(rules.retry_max, rules.retry_min * (1 << min(state.failures - 1, 10)))
    return max(limited, backoff * (0.5 + rng.random() / 2))


def ask(state: Watching[T], rules: BlockingRules, now: float, rng: Rng) -> tuple[Watching[T], Query]:
    """Take a token and form the query; call it `delay` seconds later, not before."""
    state = replace(state, tokens=max(0.0, _tokens(state, rules, now) - 1.0), counted=now, asked=now)
    consistency: Consistency = "stale" if rules.stale and not state.ask_leader else "default"
    # A tenth less at most: watches that started together drift apart.
    return state, Query(state.index, rules.wait * (1.0 - rng.random() / 10), consistency)


def answered(state: Watching[T], answer: Answer[T], rules: BlockingRules, now: float) -> tuple[Watching[T], bool]:
    """Take an answer; True when its content is news that was accepted."""
    too_stale = rules.stale and (not answer.known_leader or answer.last_contact > rules.max_staleness)
    if too_stale and not state.ask_leader and state.content is not None:
        # Nothing of it is used, not even its index: that belongs to a server which may be cut off.
        return replace(state, ask_leader=True, index=0), False
    news = answer.content != state.content or state.content is None
    state = replace(
        state,
        content=answer.content,
        index=_next_index(state.index, answer.index),
        interval=_price(state, rules, news=news, elapsed=now - state.asked),
        ask_leader=too_stale,
        failures=0,
    )
    return state, news


def failed(state: Watching[T]) -> Watching[T]:
    """The query failed: back off; try any server again if the leader did not answer."""
    return replace(state, index=0, failures=state.failures + 1, ask_leader=False)


def _next_index(known: int, received: int) -> int:
    if received < known:
        return 0
    return max(1, received)


def _price(state: Watching[T], rules: BlockingRules, *, news: bool, elapsed: float) -> float:
    """What a token costs from now on: more while blocking queries come back early with nothing new."""
    if news:
        return rules.interval
    if not state.index:
        return state.interval
    return min(rules.interval_max, state.interval * 2) if elapsed < state.interval else rules.interval


def _tokens(state: Watching[T], rules: BlockingRules, now: float) -> float:
    return min(float(rules.burst), state.tokens + max(0.0, now - state.counted) / state.interval)
