"""JSON Web Key Sets as the control service looks at them: can they be read, and which keys may be handed out.

Data planes refuse a whole configuration for a set without any key that they can use (Envoy does), and must never be handed
the private half of a key that somebody pasted.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

MAX_DOCUMENT: Final = 1024 * 1024
"""Largest document, in bytes."""

VERIFIES_NOTHING: Final = ""
"""What data planes get instead of keys that are not there: every token fails, and no configuration is refused for it."""

_PUBLIC: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}
"""Members that a key of the type has to have.  What an `oct` key has is secret and needed all the same."""

_DESCRIPTIVE = ("kty", "kid", "use", "key_ops", "alg", "x5c", "x5t", "x5t#S256", "x5u")
_ALGORITHMS: Final[Mapping[str, re.Pattern[str]]] = {
    "RSA": re.compile(r"[RP]S(256|384|512)"),
    "EC": re.compile(r"ES(256|384|512)"),
    "OKP": re.compile(r"EdDSA"),
    "oct": re.compile(r"HS(256|384|512)"),
}
_CURVES: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {  # bytes of a coordinate, algorithm
    "EC": {"P-256": (32, "ES256"), "P-384": (48, "ES384"), "P-521": (66, "ES512")},
    "OKP": {"Ed25519": (32, "EdDSA")},
}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")


class BadKeySet(ValueError):
    """It cannot be read; the message says why, and never what it holds."""


def read_keys(document: str) -> list[dict[str, Any]]:
    """The keys of a set, or of a document that is a single key (RFC 7517).  Raises `BadKeySet`.

    Reads what Istio reads: every key must be complete, whether it can be used or not.
    """
    if len(document) > MAX_DOCUMENT:
        raise BadKeySet(f"the document has {len(document)} characters; at most {MAX_DOCUMENT} are read")
    try:
        value = json.loads(document, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadKeySet("it is not JSON") from error
    if not isinstance(value, dict):
        raise BadKeySet('it is not an object; a key set is {"keys": [...]}')
    keys = value.get("keys", [value])
    if not isinstance(keys, list):
        raise BadKeySet("its keys are not a list")
    for index, key in enumerate(keys):
        if fault := _fault(key):
            raise BadKeySet(f"key {index}: {fault}")
    return keys


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _fault(key: object) -> str | None:
    if not isinstance(key, dict):
        return "it is not an object"
    kind = key.get("kty")
    if not isinstance(kind, str) or kind not in _PUBLIC:
        return f"kty is not one of {', '.join(_PUBLIC)}"
    for name in _PUBLIC[kind]:
        value = key.get(name)
        if not isinstance(value, str) or not value:
            return f"{name} is missing"
        if name != "crv" and _decoded(value) is None:
            return f"{name} is not base64url"
    return None


def _decoded(text: str) -> bytes | None:
    if _BASE64URL.fullmatch(text) is None:
        return None
    text = text.rstrip("=")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return None


def for_data_planes(document: str) -> str:
    """The document with those keys that data planes can verify tokens with, public members only; as it was where nothing
    had to go; `VERIFIES_NOTHING` when no key is left.  Never raises.
    """
    try:
        value = json.loads(document, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return VERIFIES_NOTHING
    if not isinstance(value, dict):
        return VERIFIES_NOTHING
    listed = value.get("keys", [value])
    if not isinstance(listed, list):
        return VERIFIES_NOTHING
    kept = [_published(key) for key in listed if isinstance(key, dict) and is_usable(key)]
    if not kept:
        return VERIFIES_NOTHING
    if kept == value.get("keys"):
        return document
    return json.dumps({"keys": kept}, separators=(",", ":"), sort_keys=True)


def is_usable(key: Mapping[str, Any]) -> bool:
    """Whether Envoy and meshlib can verify a token with it."""
    if _fault(key) is not None:
        return False
    kind, algorithm = key["kty"], key.get("alg", "")
    if not isinstance(algorithm, str) or (algorithm and _ALGORITHMS[kind].fullmatch(algorithm) is None):
        return False
    curves = _CURVES.get(kind)
    if curves is None:
        return True
    curve = curves.get(key["crv"])
    if curve is None or (algorithm and algorithm != curve[1]):
        return False
    return all(len(_decoded(key[name]) or b"") == curve[0] for name in _PUBLIC[kind] if name != "crv")


def _published(key: Mapping[str, Any]) -> dict[str, Any]:
    public = {*_DESCRIPTIVE, *_PUBLIC[key["kty"]]}
    return {name: value for name, value in key.items() if name in public}
