"""Key sets in the background of the control service, with a source and a clock of the test's own."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from meshlib_control.errors import StoreError
from meshlib_control.guarded_fetch import FetchFailed
from meshlib_control.jwks import EAGER_RETRY, FIRST_RETRY, LAST_RETRY, MAX_AGE, REFRESH, JwksFetcher
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Entry
from tests.support.polling import eventually
from tests.support.tokens import ec_key, key_set, rsa_key

A, B = "https://a.test/keys", "https://b.test/keys"
DISCOVERY = "https://issuer.test/.well-known/openid-configuration"
KEYS, OTHER = key_set(ec_key()), key_set(rsa_key())


class Lab:
    """A fetcher whose world is the test: answers by address, time, and pauses that end when the test says so."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.answers: dict[str, str | Exception] = {}
        self.fetched: list[str] = []
        self.timeouts: list[float] = []
        self.now = 1_000_000.0
        self.pauses: list[float] = []
        self._waiting: list[asyncio.Event] = []
        self.fetcher = JwksFetcher(self.fetch, store, clock=lambda: self.now, pause=self.pause, rng=random.Random(1))

    async def fetch(self, address: str, timeout: float = 5.0) -> bytes:
        self.fetched.append(address)
        self.timeouts.append(timeout)
        answer = self.answers.get(address, FetchFailed(f"{address}: nobody there"))
        if isinstance(answer, Exception):
            raise answer
        return answer.encode()

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        event = asyncio.Event()
        self._waiting.append(event)
        await event.wait()

    async def next_round(self, seconds: float = 0.0) -> None:
        """Time passes, every pause ends, and the attempts that follow are made."""
        self.now += seconds
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()
        await eventually(lambda: len(self._waiting) == len(waiting))

    @asynccontextmanager
    async def running(self, *uris: str) -> AsyncIterator[JwksFetcher]:
        self.fetcher.wanted(dict.fromkeys(uris, 5.0))
        task = asyncio.create_task(self.fetcher.run())
        try:
            await eventually(lambda: len(self._waiting) == len(uris))
            yield self.fetcher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_documents_are_fetched_and_announced() -> None:
    lab, told = Lab(), []
    lab.answers = {A: KEYS, B: OTHER}
    lab.fetcher.changes.subscribe(lambda: told.append(set(lab.fetcher.documents)))
    async with lab.running(A, B) as fetcher:
        assert {uri: json.loads(text) for uri, text in fetcher.documents.items()} == {A: json.loads(KEYS), B: json.loads(OTHER)}
        assert fetcher.problems == {}
        assert told[-1] == {A, B}
        assert await fetcher.tried(1.0)


async def test_only_what_is_wanted_is_kept() -> None:
    lab = Lab()
    lab.answers = {A: KEYS, B: OTHER}
    async with lab.running(A) as fetcher:
        fetcher.wanted({B: 2.0})
        await eventually(lambda: set(fetcher.documents) == {B})
        assert lab.timeouts[-1] == 2.0
        fetcher.wanted({})
        assert fetcher.documents == {}


async def test_the_same_keys_in_another_form_are_no_change() -> None:
    """A change makes every client's resources anew."""
    lab = Lab()
    lab.answers = {A: KEYS}
    async with lab.running(A) as fetcher:
        before = fetcher.documents
        lab.answers[A] = json.dumps({"keys": [dict(reversed(list(ec_key().jwk.items())))]}, indent=2)
        await lab.next_round()
        assert fetcher.documents is before
        lab.answers[A] = OTHER
        await lab.next_round()
        assert fetcher.documents is not before


async def test_refreshed_every_20_minutes_with_jitter() -> None:
    lab = Lab()
    lab.answers = {A: KEYS}
    async with lab.running(A):
        for _ in range(5):
            await lab.next_round(REFRESH)
    assert all(0.9 * REFRESH <= pause <= 1.1 * REFRESH for pause in lab.pauses)
    assert len(set(lab.pauses)) == len(lab.pauses)


@pytest.mark.parametrize(("had_keys", "first"), [(True, FIRST_RETRY), (False, EAGER_RETRY)])
async def test_failures_are_tried_again_later_and_later(had_keys: bool, first: float) -> None:
    lab = Lab()
    if had_keys:
        lab.answers = {A: KEYS}
    async with lab.running(A):
        lab.answers = {}
        lab.pauses.clear()
        for _ in range(14):
            await lab.next_round()
    expected = [min(first * 2.0**n, LAST_RETRY) for n in range(0 if had_keys else 1, 15)]
    assert all(0.9 * due <= pause <= 1.1 * due for pause, due in zip(lab.pauses, expected, strict=False))
    assert lab.pauses[-1] >= 0.9 * LAST_RETRY


BAD_ANSWERS = {
    "an error": FetchFailed("status 500"),
    "garbage": "<html>",
    "nothing": "",
    "another document": "{}",
    "no keys": '{"keys": []}',
    "no usable key": key_set(ec_key().without("x")),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_J12_a_bad_answer_takes_nothing_away(answer: str | Exception, caplog: pytest.LogCaptureFixture) -> None:
    """An empty set from a 200 is an error, too; what was there stays, and people are told once."""
    lab = Lab()
    lab.answers = {A: KEYS}
    async with lab.running(A) as fetcher:
        good = fetcher.documents
        lab.answers[A] = answer
        with caplog.at_level(logging.INFO, "meshlib_control.jwks"):
            await lab.next_round()
            await lab.next_round()
        assert fetcher.documents is good
        assert list(fetcher.problems) == [A]
        assert len(caplog.records) == 1
        assert "<html>" not in caplog.text
        lab.answers[A] = OTHER
        await lab.next_round()
        assert fetcher.problems == {}
        assert fetcher.documents is not good


async def test_J11_without_a_first_answer_there_is_no_document() -> None:
    lab = Lab()
    async with lab.running(A) as fetcher:
        assert fetcher.documents == {}
        assert "nobody there" in fetcher.problems[A]
        assert await fetcher.tried(1.0)
        lab.answers[A] = KEYS
        await lab.next_round()
        assert set(fetcher.documents) == {A}


async def test_J12_after_a_week_of_failures_nothing_is_believed() -> None:
    lab = Lab()
    lab.answers = {A: KEYS}
    async with lab.running(A) as fetcher:
        lab.answers = {}
        await lab.next_round(MAX_AGE - 10)
        assert set(fetcher.documents) == {A}
        await lab.next_round(20)
        assert fetcher.documents == {}


async def test_keys_are_discovered_where_only_the_issuer_is_known() -> None:
    lab = Lab()
    lab.answers = {DISCOVERY: json.dumps({"issuer": "https://issuer.test", "jwks_uri": A}), A: KEYS}
    async with lab.running(DISCOVERY) as fetcher:
        assert set(fetcher.documents) == {DISCOVERY}
        assert lab.fetched == [DISCOVERY, A]


@pytest.mark.parametrize(
    "answer",
    [
        "x", "[]", "{}", json.dumps({"jwks_uri": A}), json.dumps({"issuer": "https://other.test", "jwks_uri": A}),
        json.dumps({"issuer": "https://issuer.test", "jwks_uri": 5}),
        json.dumps({"issuer": "https://issuer.test", "jwks_uri": "http://169.254.169.254/"}),
    ],
)  # fmt: skip
async def test_J13_a_discovery_document_leads_nowhere_else(answer: str) -> None:
    """It is the issuer's own, and the address in it is fetched through the same guard."""
    lab = Lab()
    lab.answers = {DISCOVERY: answer, A: KEYS}
    async with lab.running(DISCOVERY) as fetcher:
        assert fetcher.documents == {}
        assert list(fetcher.problems) == [DISCOVERY]


async def test_a_restart_remembers_what_was_good() -> None:
    store = MemoryStore()
    first = Lab(store)
    first.answers = {A: KEYS, B: OTHER}
    async with first.running(A, B) as fetcher:
        good = dict(fetcher.documents)
    second = Lab(store)
    async with second.running(A, B) as fetcher:
        assert dict(fetcher.documents) == good
        assert set(fetcher.problems) == {A, B}
    late = Lab(store)
    late.now += MAX_AGE + 1
    async with late.running(A, B) as fetcher:
        assert fetcher.documents == {}


class BrokenStore(MemoryStore):
    """Cannot be reached."""

    async def scan(self, prefix: str) -> list[Entry]:
        raise StoreError("the store is gone")

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        raise StoreError("the store is gone")


@pytest.mark.parametrize("spoil", [lambda value: b"x", lambda value: b"{}", lambda value: value.replace(b"keys", b"kyes")])
async def test_a_memory_that_cannot_be_read_is_none(spoil: Callable[[bytes], bytes]) -> None:
    store = MemoryStore()
    lab = Lab(store)
    lab.answers = {A: KEYS}
    async with lab.running(A):
        pass
    (entry,) = await store.scan("jwks/")
    await store.put(entry.key, spoil(entry.value))
    async with Lab(store).running(A) as fetcher:
        assert fetcher.documents == {}
    lab = Lab(BrokenStore())
    lab.answers = {A: KEYS}
    async with lab.running(A) as fetcher:
        assert set(fetcher.documents) == {A}


async def test_waiting_for_the_first_attempts_is_bounded() -> None:
    lab = Lab()
    lab.fetcher.wanted({A: 5.0})
    assert not await lab.fetcher.tried(0.01)
    lab.fetcher.wanted({})
    assert await lab.fetcher.tried(0.01)
