"""Bytes that somebody sent as a token → a token, or why it is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.jwt_token import MAX_DEPTH, MAX_TOKEN, Failure, Token, parse_token
from tests.support.tokens import b64, ec_key, segment

HEADER = {"alg": "ES256"}
CLAIMS = {"iss": "issuer"}
FORM = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"


def text(header: object = HEADER, payload: object = CLAIMS, signature: str = "c2ln") -> bytes:
    return f"{segment(header)}.{segment(payload)}.{signature}".encode()


def why(token: bytes) -> str:
    found = parse_token(token)
    return found.message if isinstance(found, Failure) else ""


def test_a_token_is_read() -> None:
    claims = {"iss": "issuer", "sub": "me", "aud": ["a", "b"], "iat": 1, "nbf": 2, "exp": 3, "jti": "x", "deep": {"a": [1.5]}}
    token = parse_token(text({"alg": "ES256", "kid": "k", "typ": "JWT"}, claims))
    assert isinstance(token, Token)
    assert (token.algorithm, token.key_id, token.issuer, token.audiences) == ("ES256", "k", "issuer", ("a", "b"))
    assert (token.issued, token.not_before, token.expires) == (1, 2, 3)
    assert (token.claims, token.signature) == (claims, b"sig")
    assert token.signed == text({"alg": "ES256", "kid": "k", "typ": "JWT"}, claims).rpartition(b".")[0]


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b".",
        b"..",
        b"a",
        b"a.b",
        b"a.b.",
        b".b.c",
        b"a..c",
        b"a..b.c",
        b"a.b.c.d",
        b"a.b.c.d.e",
        b'{"payload":"a","signatures":[]}',
    ],
)
def test_J05_J16_only_the_compact_form_is_a_token(token: bytes) -> None:
    """Neither JSON serialization nor JWE, nor empty sections, which Envoy skips."""
    assert why(token) == FORM
    assert why(text()) == ""


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (b"a$b.e30.c2ln", "Jwt header is an invalid Base64url encoded"),
        (b"a.e30.c2ln", "Jwt header is an invalid Base64url encoded"),
        (text().replace(b".", b"=.", 1), "Jwt header is an invalid Base64url encoded"),
        (text(b"x"), "Jwt header is an invalid JSON"),
        (text([]), "Jwt header is an invalid JSON"),
        (text(payload=b"x"), "Jwt payload is an invalid JSON"),
        (text(payload=["a"]), "Jwt payload is an invalid JSON"),
        (text(payload='{"iss":"x","iss":"y"}'), "Jwt payload is an invalid JSON"),
        (text(payload='{"iss":"x","a":{"b":1,"b":2}}'), "Jwt payload is an invalid JSON"),
        (text(payload="{'iss':'x'}"), "Jwt payload is an invalid JSON"),
        (text(payload='{"iss":"x","n":NaN}'), "Jwt payload is an invalid JSON"),
        (text(payload='{"iss":"x","n":1e999}'), "Jwt payload is an invalid JSON"),
        (text(payload=b'{"iss":"x"} ' + b"\x00"), "Jwt payload is an invalid JSON"),
        (text(payload=b'\xef\xbb\xbf{"iss":"x"}'), "Jwt payload is an invalid JSON"),
        (text(payload='{"iss":"x"}'.encode("utf-16")), "Jwt payload is an invalid JSON"),
        (text(payload=b'{"iss":"\xff"}'), "Jwt payload is an invalid JSON"),
        (text(payload='{"iss":"x","c":"\\ud800"}'), "Jwt payload is an invalid JSON"),
        (text(payload='{"iss":"x","c":' + "9" * 5000 + "}"), "Jwt payload is an invalid JSON"),
        (text(signature="a$"), "Jwt signature is an invalid Base64url encoded"),
        (text(signature="a"), "Jwt signature is an invalid Base64url encoded"),
        (text(signature="c2ln+/"), "Jwt signature is an invalid Base64url encoded"),
    ],
)
def test_J16_what_is_malformed_is_told_in_envoys_words(token: bytes, message: str) -> None:
    assert why(token) == message


def test_J16_a_token_has_at_most_8_KiB() -> None:
    token = text(payload={"iss": "x" * 6000})
    assert why(token) == ""
    assert why(token + b"A" * (MAX_TOKEN + 4 - len(token) - len(token) % 4)) == f"Jwt is longer than {MAX_TOKEN} bytes"
    assert why(b"A" * 2**20) == f"Jwt is longer than {MAX_TOKEN} bytes"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_J16_json_is_at_most_100_deep(opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return text(payload='{"c":' + opening * depth + "1" + closing * depth + "}")

    assert why(nested(MAX_DEPTH - 1)) == ""
    assert why(nested(MAX_DEPTH)) == "Jwt payload is an invalid JSON"
    assert why(nested(1000 if opening == "{" else 5000)) != ""


def test_brackets_in_strings_are_no_depth() -> None:
    assert why(text(payload={"iss": '[{"\\' * 200})) == ""


@pytest.mark.parametrize("name", ["none", "None", "nOnE", "", "ES256K", "RS1", "HS1", "rs256", "RS256 ", "dir", "A128KW"])
def test_J01_algorithms_that_are_none_are_refused(name: str) -> None:
    assert why(text({"alg": name})) == "Jwt header [alg] is not supported"
    assert why(text({"alg": name}, signature="")) == FORM
    assert why(text({"alg": "RS256"})) == ""


@pytest.mark.parametrize("value", [None, 5, [], ["RS256"], {}])
def test_the_algorithm_is_a_string(value: Any) -> None:
    assert why(text({"alg": value})) == "Jwt header [alg] field is required and must be a string"
    assert why(text({})) == "Jwt header [alg] field is required and must be a string"


@pytest.mark.parametrize("crit", [["bork"], [], ["exp"], ["b64"], None, "bork"])
def test_J04_crit_is_refused_whatever_it_names(crit: Any) -> None:
    """Nothing is understood that could stand there, and an empty or misused one is malformed (RFC 7515, 4.1.11)."""
    assert why(text({**HEADER, "crit": crit})) == "Jwt header [crit] is not supported"
    assert why(text({**HEADER, "exp": 1})) == ""


@pytest.mark.parametrize("value", [False, None, 0, "false"])
def test_J04_an_unencoded_payload_is_refused(value: Any) -> None:
    assert why(text({**HEADER, "b64": value})) == "Jwt header [b64] is not supported"
    assert why(text({**HEADER, "b64": True})) == ""


@pytest.mark.parametrize(
    ("kind", "fine"),
    [
        ("JWT", True), ("jwt", True), ("JOSE", True), ("at+jwt", True), ("application/at+jwt", True), ("custom", True),
        ("", True), ("dpop+jwt", False), ("application/DPoP+JWT", False), ("logout+jwt", False), ("secevent+jwt", False),
        ("JOSE+JSON", False),
    ],
)  # fmt: skip
def test_a_token_made_for_another_purpose_is_none(kind: str, fine: bool) -> None:
    """Signed by the same issuer, and handed to many (RFC 8725, 3.11)."""
    assert why(text({**HEADER, "typ": kind})) == ("" if fine else "Jwt header [typ] is not supported")


def test_the_type_and_the_key_are_strings() -> None:
    assert why(text({**HEADER, "typ": 5})) == "Jwt header [typ] field is not a string"
    assert why(text({**HEADER, "kid": 5})) == "Jwt header [kid] field is not a string"


@pytest.mark.parametrize("value", [["expected"], 5, None, {"a": 1}, True])
def test_J06_the_issuer_is_a_string(value: Any) -> None:
    assert why(text(payload={"iss": value})) == "Jwt payload [iss] field is not a string"
    assert why(text(payload={"iss": "expected"})) == ""


@pytest.mark.parametrize("value", [5, None, True, {"a": 1}, ["a", 5], [["a"]]])
def test_J07_the_audience_is_a_string_or_a_list_of_strings(value: Any) -> None:
    assert why(text(payload={"aud": value})) == "Jwt payload [aud] field is not a string or string list"
    assert [why(text(payload={"aud": fine})) for fine in ("a", "", [], ["a", "b"])] == [""] * 4


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1795407727", "is not an integer"), (1795407727.5, "is not an integer"), (1e300, "is not an integer"),
        (True, "is not an integer"), (None, "is not an integer"), ([1], "is not an integer"),
        (-5, "is not a positive 64 bit integer"), (2**63, "is not a positive 64 bit integer"),
        (10**30, "is not a positive 64 bit integer"),
    ],
)  # fmt: skip
def test_J08_times_are_integers(name: str, value: Any, message: str) -> None:
    """Not strings, not fractions, not booleans, and nothing that overflows."""
    assert why(text(payload={name: value})) == f"Jwt payload [{name}] field {message}"
    assert why(text(payload={name: 1795407727})) == ""


@pytest.mark.parametrize("name", ["sub", "jti"])
def test_subject_and_identifier_are_strings(name: str) -> None:
    assert why(text(payload={name: 5})) == f"Jwt payload [{name}] field is not a string"


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(token: bytes) -> None:
    assert isinstance(parse_token(token), Failure)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["iss", "exp", "alg", "x"]), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON, st.binary(min_size=1, max_size=8))
def test_no_json_makes_it_raise(header: object, payload: object, signature: bytes) -> None:
    found = parse_token(f"{segment(header)}.{segment(payload)}.{b64(signature)}".encode())
    assert isinstance(found, Failure | Token)


@given(st.integers(0, 2**31), st.binary(min_size=1, max_size=1))
def test_one_changed_byte_makes_it_no_other_token(position: int, byte: bytes) -> None:
    """It parses to the same header and claims, or to a failure, or to something that its signature does not cover."""
    token = ec_key().token(CLAIMS).encode()
    at = position % len(token)
    changed = token[:at] + byte + token[at + 1 :]
    found = parse_token(changed)
    if changed != token and isinstance(found, Token):
        original = parse_token(token)
        assert isinstance(original, Token)
        assert found.signed != original.signed or at > len(original.signed)
