"""The JWT filter in tests: a provider, its tokens, and what the filter answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib.model.authentication import (
    AllowMissing,
    AllRequirements,
    AnyRequirement,
    JwtAuthentication,
    JwtProvider,
    Provider,
    Requirement,
)
from meshlib.model.inbound import Inspection, Refusal
from meshlib.policy.jwt import METADATA, Step, compile_jwt
from tests.support.tokens import ec_key, key_set

NOW = 1_800_000_000.0
KEY, OTHER = ec_key(), ec_key(kid="other")
CLAIMS = {"iss": "issuer", "sub": "me", "exp": int(NOW) + 600}
P = JwtProvider("p", "issuer", jwks=key_set(KEY))
FORM = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"


class Clock:
    """Unix seconds, moved by hand."""

    def __init__(self) -> None:
        self.seconds = NOW

    def __call__(self) -> float:
        return self.seconds


def optional(*names: str) -> Requirement:
    """As Istio asks for tokens of one or several providers."""
    each = [AnyRequirement((Provider(name), AllowMissing())) for name in names]
    if len(each) == 1:
        return each[0]
    return AnyRequirement((*map(Provider, names), AllRequirements(tuple(each))))


def step_of(
    *providers: JwtProvider, requirement: Requirement | None = None, keys: Any = None, clock: Callable[[], float] | None = None
) -> Step:
    named = {provider.name: provider for provider in providers}
    wanted = requirement or optional(*named)
    return compile_jwt(JwtAuthentication("jwt", named, wanted, bypass_cors_preflight=True), keys, now=clock or Clock())


def told(refusal: Refusal | None) -> str:
    return "" if refusal is None else f"{refusal.status} {refusal.body.decode()}"


def token(**more: Any) -> str:
    return KEY.token({**CLAIMS, **more})


def payload(inspection: Inspection) -> Any:
    return inspection.metadata.get(METADATA, {}).get("payload")
