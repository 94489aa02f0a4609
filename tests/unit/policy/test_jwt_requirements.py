"""What is asked of requests, where keys come from, and what is remembered of verified tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshlib.model.authentication import (
    AllowMissing,
    AllowMissingOrFailed,
    AllRequirements,
    AnyRequirement,
    JwtProvider,
    Provider,
    Requirement,
)
from meshlib.policy.jwt_cache import CAPACITY, LIFETIME, Recent
from meshlib.policy.jwt_keys import KeySet, parse_key_set
from tests.support.jwtfilter import CLAIMS, FORM, KEY, NOW, OTHER, Clock, P, payload, step_of, token, told
from tests.support.tokens import bearer, inspected, key_set

A = replace(P, name="a", issuer="ia", from_headers=(("x-a", ""),))
B = replace(P, name="b", issuer="ib", from_headers=(("x-b", ""),))
GOOD_A, GOOD_B, BAD = token(iss="ia"), token(iss="ib"), "x"


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        ("", "", ""),
        (GOOD_A, "", ""),
        ("", GOOD_B, ""),
        (GOOD_A, GOOD_B, ""),
        (GOOD_A, BAD, ""),
        (BAD, GOOD_B, ""),
        (BAD, BAD, f"401 {FORM}"),
        (BAD, "", f"401 {FORM}"),
        (GOOD_B, "", "401 Jwt issuer is not configured"),
        (token(iss="ia", exp=1), BAD, "401 Jwt is expired"),
        (BAD, token(iss="ib", exp=1), f"401 {FORM}"),
    ],
)
def test_several_providers_as_istio_asks_for_them(a: str, b: str, answer: str) -> None:
    """The first whose token is right is enough; no token at all is fine, a bad one is not."""
    headers = [(name, value) for name, value in (("x-a", a), ("x-b", b)) if value]
    assert told(step_of(A, B)(inspected(*headers))) == answer


def test_several_issuers_in_the_same_place() -> None:
    step = step_of(replace(P, name="a", issuer="ia"), replace(P, name="b", issuer="ib"))
    for _ in range(2):  # the second time from memory
        for text in (GOOD_A, GOOD_B):
            request = inspected(bearer(text))
            assert step(request) is None
            assert payload(request)["iss"] in ("ia", "ib")
        assert told(step(inspected(bearer(token())))) == "401 Jwt issuer is not configured"
        assert told(step(inspected(bearer(OTHER.token({"iss": "ib"})))))[:3] == "401"


@pytest.mark.parametrize(
    ("requirement", "none", "good", "bad"),
    [
        (Provider("a"), "401 Jwt is missing", "", f"401 {FORM}"),
        (AnyRequirement((Provider("a"), Provider("b"))), "401 Jwt is missing", "", f"401 {FORM}"),
        (AllRequirements((Provider("a"), Provider("b"))), "401 Jwt is missing", "401 Jwt is missing", f"401 {FORM}"),
        (AllowMissing(), "", "", f"401 {FORM}"),
        (AllowMissingOrFailed(), "", "", ""),
        (AnyRequirement((AllowMissing(), Provider("a"))), "", "", f"401 {FORM}"),
        (AnyRequirement((AllowMissing(), AllowMissingOrFailed(), Provider("a"))), "", "", ""),
        (AnyRequirement((AllRequirements((Provider("a"), Provider("b"))), AllowMissing())), "", "", f"401 {FORM}"),
        (Provider("a", audiences=("else",)), "401 Jwt is missing", "403 Audiences in Jwt are not allowed", f"401 {FORM}"),
        (Provider("a", audiences=()), "401 Jwt is missing", "", f"401 {FORM}"),
    ],
)  # fmt: skip
def test_requirements(requirement: Requirement, none: str, good: str, bad: str) -> None:
    step = step_of(A, B, requirement=requirement)
    answers = [told(step(inspected(*headers))) for headers in ([], [("x-a", GOOD_A)], [("x-a", BAD)])]
    assert answers == [none, good, bad]


def test_a_token_that_is_only_allowed_still_says_who_sent_the_request() -> None:
    for requirement in (AllowMissing(), AllowMissingOrFailed()):
        request = inspected(("x-b", GOOD_B))
        assert step_of(A, B, requirement=requirement)(request) is None
        assert payload(request)["iss"] == "ib"
    request = inspected(("x-b", BAD))
    assert step_of(A, B, requirement=AllowMissingOrFailed())(request) is None
    assert payload(request) is None


def test_a_failed_provider_leaves_no_trace() -> None:
    """One good and one bad token of A: what follows is B's doing alone."""
    twice = replace(A, from_headers=(("x-a", ""), ("x-c", "")), claim_headers=(("x-claim", "sub"),))
    request = inspected(("x-a", BAD), ("x-c", GOOD_A), ("x-b", GOOD_B))
    assert step_of(twice, B)(request) is None
    assert payload(request)["iss"] == "ib"
    assert b"x-claim" not in request.header_changes


# Keys that are fetched, and the memory of verified tokens


class Keys:
    """A source of keys that counts how often it is asked for better ones."""

    def __init__(self, document: str = "") -> None:
        self.missed = 0
        self.set(document)

    def set(self, document: str) -> None:
        self.current = parse_key_set(document) if document else "Jwks remote fetch is failed"

    def keys(self, provider: JwtProvider) -> KeySet | str:
        assert provider.jwks_uri
        return self.current

    def key_missed(self, provider: JwtProvider) -> None:
        self.missed += 1


REMOTE = replace(P, jwks="", jwks_uri="https://keys.test/")


def test_remote_keys_are_asked_each_time() -> None:
    keys = Keys()
    step, text = step_of(REMOTE, keys=keys), token()
    assert told(step(inspected(bearer(text)))) == "401 Jwks remote fetch is failed"
    keys.set(key_set(KEY))
    assert step(inspected(bearer(text))) is None
    keys.set(key_set(OTHER))
    assert told(step(inspected(bearer(text)))) == "401 Jwks doesn't have key to match kid or alg from Jwt"
    keys.set("")
    assert told(step(inspected(bearer(text)))) == "401 Jwks remote fetch is failed"


def test_J09_only_an_unknown_key_of_an_otherwise_good_token_asks_for_newer_keys() -> None:
    keys = Keys(key_set(KEY))
    step = step_of(REMOTE, keys=keys)
    forged = token()[:-8] + "AAAAAAAA"
    for text in ("x", token(iss="else"), OTHER.token({**CLAIMS, "exp": 1}), forged, token()):
        step(inspected(bearer(text)))
    assert keys.missed == 0
    step(inspected(bearer(OTHER.token(CLAIMS))))
    assert keys.missed == 1


class CountedVerify:
    """Counts signatures that were verified."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        verify = KeySet.verify

        def counted(keys: KeySet, token: Any) -> Any:
            self.count += 1
            return verify(keys, token)

        monkeypatch.setattr(KeySet, "verify", counted)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> CountedVerify:
    return CountedVerify(monkeypatch)


def test_a_token_is_verified_once_a_minute(verified: CountedVerify) -> None:
    clock = Clock()
    step, text = step_of(P, clock=clock), token()
    for _ in range(5):
        assert step(inspected(bearer(text))) is None
    assert verified.count == 1
    clock.seconds += LIFETIME + 1
    assert step(inspected(bearer(text))) is None
    assert verified.count == 2


def test_what_is_remembered_ends_with_the_token() -> None:
    clock = Clock()
    step, text = step_of(P, clock=clock), token(exp=int(NOW) - 50)
    assert step(inspected(bearer(text))) is None
    clock.seconds += 11
    assert told(step(inspected(bearer(text)))) == "401 Jwt is expired"


def test_a_clock_that_is_set_back_lengthens_nothing(verified: CountedVerify) -> None:
    clock = Clock()
    step, text = step_of(P, clock=clock), token()
    assert step(inspected(bearer(text))) is None
    clock.seconds -= 10
    assert step(inspected(bearer(text))) is None
    assert verified.count == 2


def test_new_keys_end_what_is_remembered(verified: CountedVerify) -> None:
    keys = Keys(key_set(KEY))
    step, text = step_of(REMOTE, keys=keys), token()
    assert step(inspected(bearer(text))) is None
    keys.set(key_set(KEY, OTHER))
    assert step(inspected(bearer(text))) is None
    assert verified.count == 2


def test_bad_tokens_are_not_remembered(verified: CountedVerify) -> None:
    step = step_of(P)
    forged = token()[:-8] + "AAAAAAAA"
    for _ in range(3):
        assert told(step(inspected(bearer(forged)))) == "401 Jwt verification fails"
    assert verified.count == 3


def test_providers_do_not_share_what_they_believe() -> None:
    """The same issuer twice, for different audiences."""
    narrow = replace(P, name="narrow", audiences=("me",), from_headers=(("x-a", ""),))
    wide = replace(P, name="wide", from_headers=(("x-b", ""),))
    step = step_of(narrow, wide, requirement=AllRequirements((Provider("wide"), Provider("narrow"))))
    request = [("x-a", token()), ("x-b", token())]
    assert {told(step(inspected(*request))) for _ in range(3)} == {"403 Audiences in Jwt are not allowed"}


def test_the_memory_is_bounded_and_keeps_what_is_used() -> None:
    recent: Recent[int] = Recent(4)
    for number in range(100):
        recent.put(b"%d" % number, number)
        assert recent.get(b"0") == 0
        assert len(recent) <= 8
    assert recent.get(b"1") is None
    recent.discard(b"0")
    assert recent.get(b"0") is None
    assert CAPACITY >= 1024
