"""The client rules of blocking queries, one by one, on a hand-moved clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.consul import blocking
from meshlib_control.consul.blocking import Answer, BlockingRules, Query, Watching

RULES = BlockingRules()


class Dice:
    """Always the same face."""

    def __init__(self, face: float = 0.0) -> None:
        self.face = face

    def random(self) -> float:
        return self.face


@dataclass
class Session:
    """A watch and its clock; `now` moves by what the rules ask to wait, and by how long answers take."""

    rules: BlockingRules = RULES
    now: float = 100.0
    state: Watching[str] = field(init=False)
    queries: list[Query] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = blocking.start(self.rules, self.now)

    def ask(self) -> float:
        """Wait as long as it says, then ask; returns the wait."""
        delay = blocking.delay(self.state, self.rules, self.now, Dice())
        self.now += delay
        self.state, query = blocking.ask(self.state, self.rules, self.now, Dice())
        self.queries.append(query)
        return delay

    def answer(self, content: str, index: int, *, took: float = 0.0, contact: float = 0.0, leader: bool = True) -> bool:
        self.now += took
        answer = Answer(index, content, contact, leader)
        self.state, news = blocking.answered(self.state, answer, self.rules, self.now)
        return news

    def fail(self) -> None:
        self.state = blocking.failed(self.state)


def test_the_first_query_does_not_block_and_the_next_one_does() -> None:
    session = Session()
    session.ask()
    assert session.answer("a", 7)
    session.ask()
    assert [query.index for query in session.queries] == [0, 7]


@pytest.mark.parametrize(
    ("known", "received", "asked_next"),
    [(0, 7, 7), (7, 7, 7), (7, 8, 8), (7, 6, 0), (7, 0, 0), (0, 0, 1), (1, 0, 0)],
    ids=["first", "same", "forwards", "backwards", "back to zero", "zero counts as one", "zero after one"],
)
def test_index(known: int, received: int, asked_next: int) -> None:
    session = Session()
    if known:
        session.ask()
        session.answer("a", known)
    session.ask()
    session.answer("b", received)
    session.ask()
    assert session.queries[-1].index == asked_next


def test_an_answer_with_the_same_content_is_no_news() -> None:
    session = Session()
    session.ask()
    assert session.answer("a", 7)
    session.ask()
    assert not session.answer("a", 8, took=5)
    session.ask()
    assert session.answer("b", 8, took=5), "a stuck index does not hide a change"


def test_an_index_that_goes_backwards_still_brings_its_content() -> None:
    session = Session()
    session.ask()
    session.answer("a", 700)
    session.ask()
    assert session.answer("b", 3)


def test_two_queries_at_once_then_one_a_second_then_fewer_when_nothing_is_new() -> None:
    session = Session()
    delays = []
    for _ in range(12):
        delays.append(session.ask())
        session.answer("a", 7)
    assert delays[:2] == [0.0, 0.0]
    assert delays[2] == pytest.approx(1.0, abs=1.1)
    assert delays == sorted(delays), "each wait is at least as long as the one before"
    assert delays[-1] == pytest.approx(RULES.interval_max)


def test_news_that_come_at_once_are_taken_once_a_second() -> None:
    session = Session()
    delays = []
    for number in range(8):
        delays.append(session.ask())
        session.answer(str(number), number + 1)
    assert delays == [0.0, 0.0] + [pytest.approx(1.0)] * 6


def test_the_rate_recovers_with_news_and_with_queries_that_really_block() -> None:
    for content, took in (("b", 0.0), ("a", 60.0)):
        session = Session()
        for _ in range(12):
            session.ask()
            session.answer("a", 7)
        session.ask()
        session.answer(content, 8, took=took)
        assert session.state.interval == RULES.interval


def test_a_wait_is_jittered_downwards_and_the_timeout_covers_the_servers_jitter() -> None:
    state: Watching[str] = blocking.start(RULES, 0.0)
    for face in (0.0, 0.5, 0.999):
        _, query = blocking.ask(Watching(content="a", index=5), RULES, 0.0, Dice(face))
        assert 0.9 * RULES.wait <= query.wait <= RULES.wait
        assert query.read_timeout >= query.wait * 17 / 16
    _, first = blocking.ask(state, RULES, 0.0, Dice())
    assert first.read_timeout == 0.0, "a query that does not block needs no more than the usual"


def test_reads_are_stale_unless_the_rules_say_otherwise() -> None:
    session, strict = Session(), Session(rules=BlockingRules(stale=False))
    session.ask()
    strict.ask()
    assert [session.queries[0].consistency, strict.queries[0].consistency] == ["stale", "default"]


@pytest.mark.parametrize(("contact", "leader"), [(RULES.max_staleness + 1, True), (0.0, False)], ids=["lags", "no leader"])
def test_an_answer_that_is_too_stale_is_not_used_and_the_leader_is_asked(contact: float, leader: bool) -> None:
    session = Session()
    session.ask()
    session.answer("a", 7)
    session.ask()
    assert not session.answer("old", 8, contact=contact, leader=leader)
    assert session.state.content == "a"
    session.ask()
    assert (session.queries[-1].consistency, session.queries[-1].index) == ("default", 0)
    assert session.answer("b", 9)
    session.ask()
    assert session.queries[-1].consistency == "stale", "back to the cheap reads once the leader is known"


def test_a_stale_answer_within_the_bound_is_used() -> None:
    session = Session()
    session.ask()
    session.answer("a", 7)
    session.ask()
    assert session.answer("b", 8, contact=RULES.max_staleness)


def test_a_first_answer_is_used_however_stale_it_is() -> None:
    session = Session()
    session.ask()
    assert session.answer("a", 7, leader=False), "something old is better than nothing at all"


def test_a_leader_that_does_not_answer_leads_back_to_any_server() -> None:
    session = Session()
    session.ask()
    session.answer("a", 7)
    session.ask()
    session.answer("old", 8, leader=False)
    session.ask()
    session.fail()
    session.ask()
    assert session.queries[-1].consistency == "stale"
    assert session.state.content == "a"


def test_after_a_failure_the_next_query_does_not_block() -> None:
    session = Session()
    session.ask()
    session.answer("a", 7)
    session.ask()
    session.fail()
    session.ask()
    assert session.queries[-1].index == 0


def test_failures_back_off_up_to_a_limit_and_an_answer_ends_it() -> None:
    session = Session()
    delays = []
    for _ in range(12):
        delays.append(session.ask())
        session.fail()
    assert max(delays) <= RULES.retry_max
    assert delays[-1] >= RULES.retry_max / 2
    session.ask()
    session.answer("a", 7, took=60)
    assert session.ask() == 0.0


@given(
    st.integers(min_value=0, max_value=2**32),
    st.lists(st.tuples(st.sampled_from(["a", "b", "fail"]), st.integers(0, 3), st.floats(0, 90)), max_size=60),
)
def test_never_more_queries_than_the_token_bucket_has(seed: int, script: list[tuple[str, int, float]]) -> None:
    rng = random.Random(seed)
    now, times = 0.0, []
    state: Watching[str] = blocking.start(RULES, now)
    for content, index, took in script:
        delay = blocking.delay(state, RULES, now, rng)
        assert 0.0 <= delay <= RULES.interval_max
        now += delay
        state, query = blocking.ask(state, RULES, now, rng)
        times.append(now)
        assert query.index >= 0
        now += took
        answer = Answer(index, content)
        state = blocking.failed(state) if content == "fail" else blocking.answered(state, answer, RULES, now)[0]
    for start in range(len(times)):
        for end in range(start, len(times)):
            assert end - start + 1 <= RULES.burst + (times[end] - times[start]) / RULES.interval + 1e-6
