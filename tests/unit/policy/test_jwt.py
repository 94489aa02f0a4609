"""The filter: which requests pass, what refused ones are told, and what the application gets of a token."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.authentication import JwtAuthentication, Provider
from meshlib.policy.jwt import Step, compile_jwt
from tests.support.jwtfilter import CLAIMS, FORM, KEY, NOW, OTHER, Clock, P, optional, payload, step_of, token, told
from tests.support.tokens import bearer, inspected, key_set, rsa_key
from tests.support.tools import ROOT

A = replace(P, name="a", issuer="ia", from_headers=(("x-a", ""),))
B = replace(P, name="b", issuer="ib", from_headers=(("x-b", ""),))


def test_a_good_token_passes_and_is_known() -> None:
    request = inspected(bearer(token()))
    assert step_of(P)(request) is None
    assert request.claims == CLAIMS
    assert request.header_changes == {b"authorization": None}


def test_without_a_token_there_is_no_principal() -> None:
    request = inspected()
    assert step_of(P)(request) is None
    assert request.claims is None
    assert told(step_of(P, requirement=Provider("p"))(request)) == "401 Jwt is missing"


def test_a_refusal_is_envoys() -> None:
    refusal = step_of(P)(inspected(bearer("x"), target="/a/b?access_token=y", tls=True))
    assert refusal is not None
    assert refusal.headers == ((b"www-authenticate", b'Bearer realm="https://h.test/a/b", error="invalid_token"'),)
    assert refusal.reason == f"jwt_authn_access_denied{{{FORM.replace(' ', '_')}}}"
    assert not refusal.close
    missing = step_of(P, requirement=Provider("p"))(inspected())
    assert missing is not None
    assert missing.headers == ((b"www-authenticate", b'Bearer realm="http://h.test/a"'),)


def test_what_is_told_of_the_path_is_short_and_breaks_no_quotes() -> None:
    refusal = step_of(P)(inspected(bearer("x"), target="/" + '"' * 300))
    assert refusal is not None
    value = refusal.headers[0][1]
    assert value.count(b'"') == 4
    assert len(value) < 850


@pytest.mark.parametrize(
    ("claims", "answer"),
    [
        ({}, ""),
        ({"iss": "urn:issuer"}, "401 Jwt issuer is not configured"),
        ({"iss": "issue"}, "401 Jwt issuer is not configured"),
        ({"iss": ""}, "401 Jwt issuer is not configured"),
        ({"iss": "ISSUER"}, "401 Jwt issuer is not configured"),
        ({"iss": ["issuer"]}, "401 Jwt payload [iss] field is not a string"),
    ],
)
def test_J06_issuers_are_equal_or_not(claims: dict[str, Any], answer: str) -> None:
    """No substring, no prefix, no list."""
    assert told(step_of(P)(inspected(bearer(token(**claims))))) == answer


def test_J06_a_token_without_issuer_needs_a_provider_of_any() -> None:
    anonymous = bearer(KEY.token({"sub": "me"}))
    assert told(step_of(P)(inspected(anonymous))) == "401 Jwt issuer is not configured"
    assert told(step_of(replace(P, issuer=""))(inspected(anonymous))) == ""
    assert told(step_of(replace(P, issuer=""))(inspected(bearer(OTHER.token({}))))) != ""


@pytest.mark.parametrize(
    ("audience", "passes"),
    [
        ("https://api.example/", True), ("api.example", True), ("http://api.example", True), (["x", "api.example/"], True),
        (None, False), ([], False), ("", False), ("api", False), ("api.example.evil", False), ("API.example", False),
        ("api.example//", False), ("HTTPS://api.example", False), (["x", "y"], False), ("ftp://api.example", False),
    ],
)  # fmt: skip
def test_J07_audiences(audience: Any, passes: bool) -> None:
    """Compared without scheme and one final slash, and whole; the status is 403."""
    provider = replace(P, audiences=("https://api.example", "other"))
    claims = {} if audience is None else {"aud": audience}
    answer = told(step_of(provider)(inspected(bearer(token(**claims)))))
    assert answer == ("" if passes else "403 Audiences in Jwt are not allowed")
    assert told(step_of(P)(inspected(bearer(token(**claims))))) == ""


@pytest.mark.parametrize(
    ("claims", "answer"),
    [
        ({"exp": NOW - 59}, ""), ({"exp": NOW - 61}, "401 Jwt is expired"), ({"exp": 1}, "401 Jwt is expired"),
        ({"nbf": NOW + 59}, ""), ({"nbf": NOW + 61}, "401 Jwt not yet valid"), ({"iat": NOW + 59}, ""),
        ({"iat": NOW + 61}, "401 Jwt not yet valid"), ({"iat": NOW - 10**9}, ""),
        ({"exp": NOW + 600.5}, "401 Jwt payload [exp] field is not an integer"),
        ({"exp": str(int(NOW) + 600)}, "401 Jwt payload [exp] field is not an integer"),
        ({"exp": 2**64}, "401 Jwt payload [exp] field is not a positive 64 bit integer"),
    ],
)  # fmt: skip
def test_J08_time_with_a_minute_of_leeway(claims: dict[str, Any], answer: str) -> None:
    whole = {name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in claims.items()}
    assert told(step_of(P)(inspected(bearer(token(**whole))))) == answer


def test_J08_a_token_that_never_expires_is_refused_where_that_is_asked_for() -> None:
    """Istio and Envoy take it, and so does this unless `require_expiration` says otherwise."""
    endless = bearer(KEY.token({"iss": "issuer"}))
    assert told(step_of(P)(inspected(endless))) == ""
    assert told(step_of(replace(P, require_expiration=True))(inspected(endless))) == "401 Jwt verification fails"
    assert told(step_of(replace(P, require_expiration=True))(inspected(bearer(token())))) == ""


def test_the_first_failure_in_envoys_order_is_told() -> None:
    """Form, issuer, time, audience, keys, signature."""
    provider = replace(P, audiences=("me",), jwks="")
    wrong = {"iss": "x", "exp": 1, "aud": "you"}
    answers = []
    for fixed in ({}, {"iss": "issuer"}, {"exp": int(NOW)}, {"aud": "me"}):
        wrong.update(fixed)
        answers.append(told(step_of(provider)(inspected(bearer(OTHER.token(wrong))))))
    assert answers == [
        "401 Jwt issuer is not configured",
        "401 Jwt is expired",
        "403 Audiences in Jwt are not allowed",
        "401 Jwks doesn't have any valid public key",
    ]


def test_J11_keys_that_could_not_be_fetched_verify_nothing() -> None:
    """What the control service sends for them is an empty document; no key is built in that would stand in for them."""
    for document in ("", '{"keys":[]}', "nonsense"):
        step = step_of(replace(P, jwks=document))
        assert told(step(inspected(bearer(token()))))[:3] == "401"
        assert step(inspected()) is None
    assert step_of(P)(inspected(bearer(token()))) is None


def test_J11_no_key_is_built_in() -> None:
    """Nothing in the code is long enough to be a key (CVE-2026-31837: a stand-in key that anybody knew)."""
    long_text = re.compile(r"[A-Za-z0-9_-]{120,}")
    for package in ("meshlib", "meshlib_control", "integrations"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if not file.name.endswith("_pb2.py"):
                assert not [text for text in long_text.findall(file.read_text()) if len(set(text)) > 1], file
    assert long_text.search(key_set(rsa_key()))


def test_J14_a_token_of_an_unknown_issuer_is_refused_although_none_is_needed() -> None:
    assert told(step_of(P)(inspected(bearer(token(iss="else"))))) == "401 Jwt issuer is not configured"
    assert step_of(P)(inspected()) is None


# Several tokens


@pytest.mark.parametrize("bad", ["x", "", "a.b.c"])
def test_J15_every_token_must_be_right(bad: str) -> None:
    """The application may use any of them."""
    good = token()
    for headers, target in (
        ([bearer(good)], f"/?access_token={bad}"),
        ([bearer(bad + " ")] if bad else [bearer("x")], f"/?access_token={good}"),
        ([bearer(good), bearer(bad or "x")], "/"),
        ([bearer(bad or "x"), bearer(good)], "/"),
        ([], f"/?access_token={good}&access_token={bad}"),
        ([], f"/?access_token={bad}&access_token={good}"),
        ([], f"/?access_token={good}&access%5ftoken={bad}"),
    ):
        assert told(step_of(P)(inspected(*headers, target=target)))[:3] == "401", (headers, target)
    assert step_of(P)(inspected(bearer(good), bearer(good), target=f"/?access_token={good}")) is None


def test_J15_two_tokens_whose_keys_are_not_there() -> None:
    """The same answer each time."""
    step = step_of(replace(P, jwks="", jwks_uri="https://keys.test/"))
    answers = {told(step(inspected(bearer(token()), target=f"/?access_token={token()}"))) for _ in range(3)}
    assert answers == {"401 Jwks remote fetch is failed"}


def test_of_several_bad_tokens_the_last_place_is_told() -> None:
    request = inspected(bearer("x"), target=f"/?access_token={token(exp=1)}")
    assert told(step_of(P)(request)) == "401 Jwt is expired"


# Where tokens are


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("Bearer {}", True), ("Bearer   {}", True), ("x Bearer {}", True),
        ("bearer {}", False), ("BEARER {}", False), ("Bearer{}", False), ("Basic abc", False), ("Bearer", False), ("{}", False),
    ],
)  # fmt: skip
def test_the_scheme_is_matched_as_envoy_does(value: str, found: bool) -> None:
    request = inspected(("authorization", value.format(token())))
    assert step_of(P)(request) is None
    assert (payload(request) is not None) == found
    assert (b"authorization" in request.header_changes) == found


def test_named_places_replace_the_usual_ones() -> None:
    provider = replace(P, from_headers=(("x-jwt", ""), ("x-more", "JWT ")), from_params=("t",), from_cookies=("c",))
    step, good = step_of(provider), token()
    for headers, target in (
        ([("x-jwt", good)], "/"),
        ([("x-more", f"JWT {good}")], "/"),
        ([], f"/?t={good}"),
        ([("cookie", f"a=b; c={good}")], "/"),
        ([("cookie", "a=b"), ("cookie", f'c="{good}"')], "/"),
    ):
        request = inspected(*headers, target=target)
        assert step(request) is None
        assert payload(request) == CLAIMS
        assert told(
            step(inspected(*[(name, value.replace(good, "x")) for name, value in headers], target=target.replace(good, "x")))
        )
    for headers, target in (([bearer("x")], "/"), ([], "/?access_token=x"), ([("x-more", good)], "/")):
        assert step(inspected(*headers, target=target)) is None


def test_each_cookie_of_the_name_must_be_right() -> None:
    """Frameworks differ in which of them they take."""
    step, good = step_of(replace(P, from_cookies=("c",))), token()
    assert step(inspected(("cookie", f"c={good}; c={good}"))) is None
    for cookie in (f"c={good}; c=x", f"c=x; c={good}"):
        assert told(step(inspected(("cookie", cookie)))) == f"401 {FORM}"


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("/?access_token={}", "/"),
        ("/a?b=2&access_token={}&a=1", "/a?b=2&a=1"),
        ("/a?access_token={}&b=%20x+y&b=", "/a?b=%20x+y&b="),
        ("/a?access%5Ftoken={}&c", "/a?c"),
        ("/a?x=access_token&access_token={}&access_token={}", "/a?x=access_token"),
    ],
)
def test_the_parameter_is_taken_out_and_the_rest_stays_as_it_is(target: str, left: str) -> None:
    sent = target.replace("{}", token())
    request = inspected(target=sent)
    assert step_of(P)(request) is None
    assert (request.target.decode(), request.query) == (left, left.partition("?")[2])
    kept = inspected(target=sent)
    assert step_of(replace(P, forward=True))(kept) is None
    assert (kept.target.decode(), kept.query) == (sent, sent.partition("?")[2])


def test_a_forwarded_token_stays_and_a_cookie_stays_anyway() -> None:
    request = inspected(bearer(token()))
    assert step_of(replace(P, forward=True))(request) is None
    assert request.header_changes == {}
    request = inspected(("cookie", f"c={token()}"))
    assert step_of(replace(P, from_cookies=("c",)))(request) is None
    assert request.header_changes == {}


def test_a_header_without_a_token_stays() -> None:
    request = inspected(("authorization", "Basic abc"), target=f"/?access_token={token()}")
    assert step_of(P)(request) is None
    assert request.header_changes == {}


def test_what_earlier_filters_did_to_a_header_is_seen() -> None:
    """An external authorizer may have exchanged the token."""
    request = inspected(bearer("opaque"))
    request.header_changes[b"authorization"] = f"Bearer {token()}".encode()
    assert step_of(P)(request) is None
    assert payload(request) == CLAIMS
    request = inspected(bearer(token()))
    request.header_changes[b"authorization"] = None
    assert step_of(P)(request) is None
    assert payload(request) is None


# Claims


OUTPUT = replace(P, claim_headers=(("x-claim", "c"), ("x-nested", "a.b")), payload_header="x-payload")


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("text", b"text"), ("ü", "ü".encode()), ("", None), (None, None), (5, b"5"), (-5, b"-5"), (True, b"true"),
        (False, b"false"),
        (1.5, b"1.500000"), (1e3, b"1000"), (["a", "bb"], b"WyJhIiwiYmIiXQ=="), ({"k": 1}, b"eyJrIjoxfQ=="), ([], b"W10="),
        (12345678901234567890, b"12345678901234567890"),
    ],
)  # fmt: skip
def test_J17_claims_become_headers(value: Any, header: bytes | None) -> None:
    request = inspected(bearer(token(c=value)))
    assert step_of(OUTPUT)(request) is None
    assert request.header_changes.get(b"x-claim") == header


def test_J17_nested_claims() -> None:
    request = inspected(bearer(token(a={"b": "deep"}, **{"a.b": "flat"})))
    assert step_of(OUTPUT)(request) is None
    assert request.header_changes[b"x-nested"] == b"deep"
    request = inspected(bearer(token(**{"a.b": "flat"})))
    assert step_of(OUTPUT)(request) is None
    assert b"x-nested" not in request.header_changes


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\rb", "a\0b", "\x7f", "\x1b[31m"])
def test_J17_claims_that_would_break_a_header_are_refused(value: str) -> None:
    """Envoy 1.40 writes them out, and the application gets a header of the attacker's making."""
    assert told(step_of(OUTPUT)(inspected(bearer(token(c=value))))) == "401 Jwt claim cannot be the value of a header"
    assert step_of(P)(inspected(bearer(token(c=value)))) is None


def test_J17_what_clients_claim_by_themselves_is_taken_away() -> None:
    spoofed = [("x-claim", "admin"), ("x-nested", "admin"), ("x-payload", "admin"), ("x-other", "stays")]
    gone = {b"x-claim": None, b"x-nested": None, b"x-payload": None}
    without = inspected(*spoofed)
    assert step_of(OUTPUT)(without) is None
    assert without.header_changes == gone
    preflight = inspected(*spoofed, ("origin", "o"), ("access-control-request-method", "GET"), method="OPTIONS")
    assert step_of(OUTPUT)(preflight) is None
    assert preflight.header_changes == gone
    nothing_asked = inspected(*spoofed)
    assert compile_jwt(JwtAuthentication("jwt", {"p": OUTPUT}), now=Clock())(nothing_asked) is None
    assert nothing_asked.header_changes == gone
    given_by_a_filter = inspected()
    given_by_a_filter.header_changes[b"x-claim"] = b"admin"
    assert step_of(OUTPUT)(given_by_a_filter) is None
    assert given_by_a_filter.header_changes == {b"x-claim": None}
    right = inspected(*spoofed, bearer(token(c="user")))
    assert step_of(OUTPUT)(right) is None
    assert right.header_changes[b"x-claim"] == b"user"
    assert right.header_changes[b"x-nested"] is None


def test_the_payload_is_handed_on_as_it_was_sent() -> None:
    text = token(c=1)
    request = inspected(bearer(text))
    assert step_of(OUTPUT)(request) is None
    sent = text.split(".")[1]
    assert request.header_changes[b"x-payload"] == sent.encode()
    request = inspected(bearer(text))
    assert step_of(replace(OUTPUT, pad_payload_header=True))(request) is None
    assert request.header_changes[b"x-payload"] == (sent + "=" * (-len(sent) % 4)).encode()


def test_claims_that_are_words_are_lists_for_policies() -> None:
    request = inspected(bearer(token(scope="r  w", permission="x", roles="a b", other="a b", groups=["a b"])))
    provider = replace(P, space_delimited_claims=("permission", "scope", "roles", "groups", "none"))
    assert step_of(provider)(request) is None
    found = payload(request)
    assert (found["scope"], found["permission"], found["roles"], found["other"], found["groups"]) == (
        ["r", "w"], ["x"], ["a", "b"], "a b", ["a b"],
    )  # fmt: skip


def test_what_one_request_does_with_its_claims_no_other_sees() -> None:
    step, text = step_of(P), token()
    first, second = inspected(bearer(text)), inspected(bearer(text))
    assert step(first) is None
    payload(first)["sub"] = "root"
    assert step(second) is None
    assert payload(second)["sub"] == "me"


def test_preflights_pass_without_a_look_at_their_token() -> None:
    headers = [bearer("x"), ("origin", "https://o"), ("access-control-request-method", "GET")]
    assert step_of(P)(inspected(*headers, method="OPTIONS")) is None
    assert told(step_of(P)(inspected(*headers))) == f"401 {FORM}"
    assert told(step_of(P)(inspected(*headers[:2], method="OPTIONS"))) == f"401 {FORM}"
    strict = compile_jwt(JwtAuthentication("jwt", {"p": P}, optional("p")), now=Clock())
    assert told(strict(inspected(*headers, method="OPTIONS"))) == f"401 {FORM}"


@pytest.fixture(scope="module")
def strict() -> Step:
    return step_of(replace(OUTPUT, from_headers=(("x-t", "T "),), from_params=("t",), from_cookies=("t",)), A, B)


@given(
    st.lists(
        st.tuples(st.sampled_from(["x-t", "cookie", "x-a", "authorization", "x-claim"]), st.binary(max_size=40)), max_size=4
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
)
def test_no_request_makes_it_raise(strict: Step, headers: list[tuple[str, bytes]], query: str) -> None:
    request = inspected(*[(name, value.decode("latin-1")) for name, value in headers], target=f"/?{query}")
    assert strict(request) is None or payload(request) is None


def test_an_rsa_key_works_like_any_other() -> None:
    step = step_of(replace(P, jwks=key_set(rsa_key())))
    assert step(inspected(bearer(rsa_key().token(CLAIMS)))) is None
    assert told(step(inspected(bearer(token()))))[:3] == "401"
