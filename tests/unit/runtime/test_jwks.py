"""Keys that a workload fetches by itself, in threads of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from meshlib.model.authentication import JwtAuthentication, JwtProvider, Provider
from meshlib.policy.jwt import compile_jwt
from meshlib.policy.jwt_keys import NO_KEYS, NOT_FETCHED, KeySet
from meshlib.policy.jwt_refresh import COOL_DOWN, MAX_AGE
from meshlib.runtime.jwks import NotFetched, RemoteKeys
from tests.support.tokens import bearer, ec_key, inspected, key_set, rsa_key

P = JwtProvider("p", "issuer", jwks_uri="https://keys.test/", jwks_timeout=3.0)
KEYS, OTHER = key_set(ec_key()).encode(), key_set(rsa_key()).encode()


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Source:
    """Answers by address; what is not there is an error."""

    def __init__(self, **answers: bytes) -> None:
        self.answers: dict[str, bytes] = {P.jwks_uri: answers["keys"]} if answers else {}
        self.fetched: list[tuple[str, float]] = []
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, uri: str, timeout: float) -> bytes:
        self.fetched.append((uri, timeout))
        assert self.hold.wait(60)
        answer = self.answers.get(uri)
        if answer is None:
            raise NotFetched("nobody there")
        return answer


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Lab:
    def __init__(self) -> None:
        self.clock = Clock()
        self.source = Source()
        self.remote = RemoteKeys(fetch=self.source, clock=self.clock)

    def pass_time(self, seconds: float) -> None:
        """And wait for the attempt that is due by then."""
        before = len(self.source.fetched)
        self.clock.now += seconds
        self.remote._wake.set()
        eventually(lambda: len(self.source.fetched) > before)
        self.settled()

    def settled(self) -> None:
        eventually(lambda: not any(entry.fetching for entry in self.remote._entries.values()))


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.source.hold.set()
    lab.remote.close()
    lab.settled()


def test_the_first_question_starts_fetching_and_does_not_wait(lab: Lab) -> None:
    lab.source.answers[P.jwks_uri] = KEYS
    lab.source.hold.clear()
    assert lab.remote.keys(P) == NOT_FETCHED
    assert not lab.remote.ready(0.01)
    lab.source.hold.set()
    assert lab.remote.ready(60)
    found = lab.remote.keys(P)
    assert isinstance(found, KeySet)
    assert lab.remote.keys(P) is found
    assert lab.source.fetched == [(P.jwks_uri, 3.0)]


def test_nothing_runs_before_there_is_something_to_fetch(lab: Lab) -> None:
    assert lab.remote.ready(0)
    assert lab.remote._thread is None


def test_F37_tokens_are_refused_until_keys_are_there(lab: Lab) -> None:
    step = compile_jwt(JwtAuthentication("jwt", {"p": P}, Provider("p")), lab.remote, now=time.time)
    assert lab.remote.ready(60)  # compiling has asked for the keys
    request = bearer(ec_key().token({"iss": "issuer"}))
    refusal = step(inspected(request))
    assert refusal is not None
    assert (refusal.status, refusal.body.decode()) == (401, NOT_FETCHED)
    lab.source.answers[P.jwks_uri] = KEYS
    lab.pass_time(2.0)
    assert step(inspected(request)) is None


@pytest.mark.parametrize("answer", [b"", b"<html>", b'{"keys":[]}', b"{}", b"\xff", None])
def test_J12_a_bad_answer_takes_nothing_away(lab: Lab, answer: bytes | None) -> None:
    lab.source.answers[P.jwks_uri] = KEYS
    lab.remote.keys(P)
    assert lab.remote.ready(60)
    good = lab.remote.keys(P)
    lab.source.answers = {} if answer is None else {P.jwks_uri: answer}
    lab.pass_time(400.0)
    assert lab.remote.keys(P) is good
    assert list(lab.remote.problems) == [P.jwks_uri]
    lab.source.answers[P.jwks_uri] = OTHER
    lab.pass_time(100.0)
    assert lab.remote.keys(P) is not good
    assert lab.remote.problems == {}


def test_J12_an_empty_set_at_the_start_is_none(lab: Lab) -> None:
    lab.source.answers[P.jwks_uri] = b'{"keys":[]}'
    lab.remote.keys(P)
    assert lab.remote.ready(60)
    assert lab.remote.keys(P) == NOT_FETCHED
    assert lab.remote.problems == {P.jwks_uri: NO_KEYS}


def test_J12_after_a_week_of_failures_nothing_is_believed(lab: Lab) -> None:
    lab.source.answers[P.jwks_uri] = KEYS
    lab.remote.keys(P)
    assert lab.remote.ready(60)
    lab.source.answers = {}
    lab.pass_time(MAX_AGE - 10)
    assert isinstance(lab.remote.keys(P), KeySet)
    lab.pass_time(100.0)
    assert lab.remote.keys(P) == NOT_FETCHED


def test_the_same_document_is_the_same_set(lab: Lab) -> None:
    """What was verified with it stays remembered."""
    lab.source.answers[P.jwks_uri] = KEYS
    lab.remote.keys(P)
    assert lab.remote.ready(60)
    found = lab.remote.keys(P)
    lab.pass_time(400.0)
    assert lab.remote.keys(P) is found


def test_J09_an_unknown_key_is_looked_for_at_most_once_a_minute(lab: Lab) -> None:
    lab.source.answers[P.jwks_uri] = KEYS
    lab.remote.keys(P)
    assert lab.remote.ready(60)
    lab.settled()
    for _ in range(5):
        lab.remote.key_missed(P)
    assert len(lab.source.fetched) == 1
    lab.clock.now += COOL_DOWN
    lab.source.answers[P.jwks_uri] = OTHER
    lab.remote.key_missed(P)
    eventually(lambda: len(lab.source.fetched) == 2)
    lab.settled()
    for _ in range(5):
        lab.remote.key_missed(P)
    assert len(lab.source.fetched) == 2
    lab.remote.key_missed(replace(P, jwks_uri="https://unknown.test/"))


def test_a_slow_issuer_delays_no_other() -> None:
    started, release = threading.Event(), threading.Event()

    def fetch(uri: str, timeout: float) -> bytes:
        if "slow" in uri:
            started.set()
            release.wait(60)
        return KEYS

    remote = RemoteKeys(fetch=fetch)
    try:
        remote.keys(replace(P, jwks_uri="https://slow.test/"))
        assert started.wait(60)
        remote.keys(P)
        eventually(lambda: isinstance(remote.keys(P), KeySet))
        assert not remote.ready(0)
    finally:
        release.set()
        remote.close()


def test_a_defect_in_fetching_is_a_failed_attempt() -> None:
    def fetch(uri: str, timeout: float) -> bytes:
        raise RuntimeError("oops")

    remote = RemoteKeys(fetch=fetch)
    remote.keys(P)
    assert remote.ready(60)
    assert remote.problems == {P.jwks_uri: "RuntimeError"}
    remote.close()


def test_what_no_provider_needs_any_more_is_forgotten(lab: Lab) -> None:
    lab.remote.keys(P)
    assert lab.remote.ready(60)
    lab.remote.retain(())
    assert lab.remote.problems == {}


def test_after_closing_nothing_is_started() -> None:
    remote = RemoteKeys(fetch=Source())
    remote.close()
    assert remote.keys(P) == NOT_FETCHED
    assert remote._thread is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_F31_a_forked_child_has_the_keys_and_fetches_by_itself(lab: Lab) -> None:
    lab.source.answers[P.jwks_uri] = KEYS
    lab.remote.keys(P)
    assert lab.remote.ready(60)
    lab.settled()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            had = isinstance(lab.remote.keys(P), KeySet)
            lab.clock.now += 400
            lab.remote._wake.set()
            eventually(lambda: len(lab.source.fetched) == 2)
            os.write(write, b"ok" if had else b"no")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"ok"
    os.waitpid(child, 0)
    assert len(lab.source.fetched) == 1
