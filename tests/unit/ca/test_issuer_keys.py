"""Key sets of issuers: what is taken from them, when they are read again, and what happens when they cannot be."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshlib_control.ca.errors import CallerRefused
from meshlib_control.ca.issuer_keys import COOL_DOWN, MAX_AGE, REFRESH, IssuerKeys, KeySetError, parse_key_set
from meshlib_control.ca.issuers import KeySetSource
from tests.support.authority import SettableClock

EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def jwk(key: Any, kid: str, **more: object) -> dict[str, object]:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, **more}


def key_set(*keys: object) -> str:
    return json.dumps({"keys": keys})


class Endpoint:
    """A JWKS endpoint; counts what it is asked."""

    def __init__(self, content: str | Exception) -> None:
        self.content = content
        self.asked = 0

    async def __call__(self, url: str) -> bytes:
        assert url == "https://issuer.test/keys"
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.content, Exception):
            raise self.content
        return self.content.encode()


def keys_of(endpoint: Endpoint, clock: SettableClock) -> IssuerKeys:
    return IssuerKeys(KeySetSource(url="https://issuer.test/keys"), endpoint, name="issuer.test", clock=clock)


def test_keys_know_what_they_may_be_used_with() -> None:
    keys = parse_key_set(key_set(jwk(EC, "a"), jwk(RSA, "b"), jwk(RSA, "c", alg="PS256", use="sig", key_ops=["verify"])))
    assert [(key.id, key.algorithms) for key in keys] == [
        ("a", ("ES256",)),
        ("b", ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        ("c", ("PS256",)),
    ]


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"},
        jwk(EC, "a", use="enc"),
        jwk(EC, "a", key_ops=["sign"]),
        jwk(EC, "a", key_ops="verify"),
        jwk(EC, "a", alg="RS256"),
        jwk(EC, "a", alg="none"),
        jwk(EC, "a", crv="P-521"),
        jwk(EC, "a", x="AAAA"),
        jwk(rsa.generate_private_key(65537, 1024), "a"),
        {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC)), "kid": "private"},
        {"kid": "a"},
        {},
        "a",
        None,
    ],
)  # fmt: skip
def test_keys_that_are_not_for_us_are_passed_over(key: object) -> None:
    with pytest.raises(KeySetError, match="no keys to check signatures with"):
        parse_key_set(key_set(key))
    assert [each.id for each in parse_key_set(key_set(key, jwk(EC, "good")))] == ["good"]


@pytest.mark.parametrize(
    "document", ["", "x", "[]", "null", "{}", '{"keys": {}}', '{"keys": []}', "[" * 100_000, " " * (1 << 20) + "x"]
)
def test_what_is_no_key_set(document: str) -> None:
    with pytest.raises(KeySetError):
        parse_key_set(document)


async def test_keys_are_fetched_once_for_all_who_wait_and_again_after_a_while() -> None:
    clock, endpoint = SettableClock(0.0), Endpoint(key_set(jwk(EC, "a")))
    keys = keys_of(endpoint, clock)
    found = await asyncio.gather(*(keys.candidates("a", "ES256") for _ in range(20)))
    assert all(len(each) == 1 for each in found)
    assert endpoint.asked == 1
    clock.now += REFRESH - 1
    await keys.candidates("a", "ES256")
    assert endpoint.asked == 1
    clock.now += 1
    await keys.candidates("a", "ES256")
    assert endpoint.asked == 2


async def test_J09_an_unknown_key_id_asks_again_but_not_often() -> None:
    clock, endpoint = SettableClock(0.0), Endpoint(key_set(jwk(EC, "a")))
    keys = keys_of(endpoint, clock)
    for _ in range(100):
        assert await keys.candidates("unknown", "ES256") == []
    assert endpoint.asked == 1
    clock.now += COOL_DOWN
    endpoint.content = key_set(jwk(EC, "a"), jwk(EC, "new"))
    assert [key.id for key in await keys.candidates("new", "ES256")] == ["new"]
    assert endpoint.asked == 2


async def test_J11_no_keys_are_no_reason_to_take_a_token() -> None:
    clock, endpoint = SettableClock(0.0), Endpoint(OSError("no route"))
    keys = keys_of(endpoint, clock)
    for _ in range(3):
        with pytest.raises(CallerRefused, match="are not known: OSError: no route"):
            await keys.candidates("a", "ES256")
    assert endpoint.asked == 1
    clock.now += COOL_DOWN
    endpoint.content = key_set(jwk(EC, "a"))
    assert await keys.candidates("a", "ES256")
    assert not keys.problem


@pytest.mark.parametrize("answer", [OSError("down"), "garbage", '{"keys": []}'], ids=["outage", "garbage", "empty"])
async def test_J12_the_last_good_keys_stay_for_a_week(answer: str | Exception) -> None:
    clock, endpoint = SettableClock(0.0), Endpoint(key_set(jwk(EC, "a")))
    keys = keys_of(endpoint, clock)
    assert await keys.candidates("a", "ES256")
    endpoint.content = answer
    clock.now += REFRESH
    assert await keys.candidates("a", "ES256")
    assert keys.problem
    clock.now += MAX_AGE
    with pytest.raises(CallerRefused, match="are not known"):
        await keys.candidates("a", "ES256")


async def test_a_withdrawn_key_is_gone_after_the_next_look() -> None:
    clock, endpoint = SettableClock(0.0), Endpoint(key_set(jwk(EC, "a"), jwk(EC, "b")))
    keys = keys_of(endpoint, clock)
    assert await keys.candidates("a", "ES256")
    endpoint.content = key_set(jwk(EC, "b"))
    clock.now += REFRESH
    assert await keys.candidates("a", "ES256") == []
    assert await keys.candidates("b", "ES256")


async def test_a_file_is_read_again_within_a_minute(tmp_path: Path) -> None:
    clock = SettableClock(0.0)
    path = tmp_path / "keys.json"
    path.write_text(key_set(jwk(EC, "a")))
    keys = IssuerKeys(KeySetSource(file=path), None, name="issuer.test", clock=clock)
    assert await keys.candidates("a", "ES256")
    path.write_text(key_set(jwk(RSA, "b")))
    clock.now += COOL_DOWN
    assert await keys.candidates("b", "RS256")
    assert await keys.candidates("a", "ES256") == []


async def test_a_url_without_anything_to_fetch_it_with() -> None:
    keys = IssuerKeys(KeySetSource(url="https://issuer.test/keys"), None, name="issuer.test", clock=SettableClock(0.0))
    with pytest.raises(CallerRefused, match="nothing was given to fetch URLs with"):
        await keys.candidates(None, "ES256")
