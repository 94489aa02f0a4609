"""What a token costs: `python -m benchmarks.jwt [--json FILE]`.

One provider as Istio asks for it (a token may be missing), a token of usual size.  Goals are scaled by the yardstick of
`benchmarks.flow`.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from benchmarks.flow import INBOUND, Yard, microseconds
from benchmarks.harness import Ratio, report
from meshlib.model.authentication import AllowMissing, AnyRequirement, JwtAuthentication, JwtProvider, Provider
from meshlib.model.inbound import Inspection, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.policy.canonical import canonicalize
from meshlib.policy.jwt import Step, compile_jwt

KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
CLAIMS = {
    "iss": "https://issuer.example",
    "sub": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "aud": ["shop", "account"],
    "iat": int(time.time()),
    "exp": int(time.time()) + 3600,
    "scope": "openid profile email",
    "realm_access": {"roles": ["buyer", "reviewer", "offline_access"]},
    "name": "Jason Example",
    "email": "jason@example.com",
}
MANY = 1000
"""Different tokens: all fit into the memory of verified ones."""


def token(algorithm: str, number: int = 0) -> str:
    return jwt.encode({**CLAIMS, "jti": str(number)}, KEYS[algorithm], algorithm, headers={"kid": algorithm})


def authentication(algorithm: str) -> JwtAuthentication:
    jwk = get_default_algorithms()[algorithm].to_jwk(KEYS[algorithm].public_key(), as_dict=True)
    keys = json.dumps({"keys": [{**jwk, "kid": algorithm}]})
    provider = JwtProvider("origins-0", CLAIMS["iss"], ("shop",), jwks=keys)  # type: ignore[arg-type]
    requirement = AnyRequirement((Provider("origins-0"), AllowMissing()))
    return JwtAuthentication("jwt", {"origins-0": provider}, requirement, True)


def step(algorithm: str) -> Step:
    return compile_jwt(authentication(algorithm), now=time.time)


def request(text: str = "") -> Inspection:
    headers = [*INBOUND, *([(b"authorization", f"Bearer {text}".encode())] if text else [])]
    found = canonicalize(ServerRequest("GET", b"/api/items?x=1", headers), PathNormalization.BASE)
    assert isinstance(found, Inspection)
    return found


def asked(verify: Step, inspections: list[Inspection], *, number: int) -> float:
    """Microseconds of one request."""
    following = cycle(inspections)

    def one() -> None:
        inspection = next(following)
        inspection.header_changes.clear()
        inspection.metadata.clear()
        assert verify(inspection) is None

    return microseconds(one, number)


def first_time(algorithm: str) -> float:
    """Microseconds of a request whose token was not seen before."""
    fresh = iter([request(token(algorithm, number)) for number in range(2000)])
    verify = step(algorithm)

    def one() -> None:
        assert verify(next(fresh)) is None

    return microseconds(one, 250)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    scale = max(microseconds(lambda: Yard(1, 2, 3), 100_000) / 0.126, 1.0)
    print(f"tokens: this machine is {scale:.1f} times slower than the one that goals were set on")
    cached = {
        "no token": asked(step("ES256"), [request()], number=20_000),
        "one token, again and again": asked(step("ES256"), [request(token("ES256"))], number=20_000),
        f"{MANY} tokens by turns": asked(step("ES256"), [request(token("ES256", n)) for n in range(MANY)], number=3 * MANY),
    }
    first = {f"first time, {name}": first_time(name) for name in KEYS}
    ratios = [Ratio(name, value, 3 * scale, at_least=False, unit=" µs") for name, value in cached.items()]
    for name, value in first.items():
        print(f"  {name}: {value:.0f} µs")
    report("tokens", ratios, {"scale": scale, **cached, **first}, options.json)


if __name__ == "__main__":
    main()
