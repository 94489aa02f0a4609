"""The public keys of JWT issuers (JWKS, RFC 7517): read, refreshed, and kept when their source fails.

A key is used with the algorithms of its own kind only, whatever a token's header says.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from meshlib_control.ca.errors import CallerRefused
from meshlib_control.ca.issuers import KeySetSource

log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]
"""Gets a URL's content, or raises.  Guarding against server-side request forgery is its business."""

MAX_KEY_SET = 1 << 20
MAX_KEYS = 100
REFRESH = 1200.0  # seconds; Istio refreshes every 20 minutes
FETCH_TIMEOUT = 10.0
COOL_DOWN = 60.0
"""Seconds between two looks for a key that nobody has heard of, and between two attempts after a failure."""
MAX_AGE = 7 * 86400.0
"""How long keys are kept whose source fails; Istio's limit too."""

RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """`algorithms`: those that may be used with it."""

    id: str
    algorithms: tuple[str, ...]
    key: PublicKey = field(repr=False)


class KeySetError(Exception):
    """A document is no usable key set."""


def parse_key_set(document: bytes | str) -> tuple[IssuerKey, ...]:
    """The keys that signatures can be checked with.  Raises `KeySetError` when there is none."""
    if len(document) > MAX_KEY_SET:
        raise KeySetError(f"larger than {MAX_KEY_SET} bytes")
    try:
        content = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise KeySetError("it is no JSON") from error
    found = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise KeySetError('expected {"keys": [...]}')
    keys = [key for each in found[:MAX_KEYS] if isinstance(each, dict) and (key := _key(each)) is not None]
    if not keys:
        raise KeySetError("it has no keys to check signatures with")
    return tuple(keys)


class IssuerKeys:
    """The keys of one issuer.  For one event loop."""

    def __init__(
        self, source: KeySetSource, fetch: Fetch | None, *, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._name = name
        self._clock = clock
        self._keys: tuple[IssuerKey, ...] = ()
        self._read = float("-inf")  # when they were last read
        self._tried = float("-inf")
        self._reading = asyncio.Lock()
        self.problem = ""

    async def candidates(self, key_id: str | None, algorithm: str) -> list[IssuerKey]:
        """Keys that a token with this header may be signed with.  Raises `CallerRefused` when no keys are known."""
        await self._refresh(REFRESH if self._source.url else COOL_DOWN)
        found = self._matching(key_id, algorithm)
        if not found:
            await self._refresh(COOL_DOWN)
            found = self._matching(key_id, algorithm)
        if not self._keys:
            raise CallerRefused(f"the keys of {self._name} are not known: {self.problem}")
        return found

    def _matching(self, key_id: str | None, algorithm: str) -> list[IssuerKey]:
        return [key for key in self._keys if algorithm in key.algorithms and (key_id is None or key.id in ("", key_id))]

    async def _refresh(self, age: float) -> None:
        """Read them again when they are older than `age`, once for all who wait."""
        async with self._reading:
            now = self._clock()
            if now - self._read < age or now - self._tried < COOL_DOWN:
                return
            self._tried = now
            try:
                self._keys = parse_key_set(await self._document())
                self._read = now
                self.problem = ""
            except Exception as error:
                # Whatever the source does wrong, the keys that are known stay good for a while.
                self.problem = f"{type(error).__name__}: {error}"
                log.warning("the keys of the JWT issuer %s cannot be read: %s", self._name, self.problem)
                if now - self._read > MAX_AGE:
                    self._keys = ()

    async def _document(self) -> bytes | str:
        source = self._source
        if source.inline:
            return source.inline
        if source.file is not None:
            return await asyncio.to_thread(source.file.read_bytes)
        if self._fetch is None:
            raise KeySetError("nothing was given to fetch URLs with")
        async with asyncio.timeout(FETCH_TIMEOUT):
            return await self._fetch(source.url)


def _key(content: Mapping[str, object]) -> IssuerKey | None:
    """None for keys that are no signature keys, or are of kinds that we do not take."""
    operations = content.get("key_ops", ["verify"])
    if content.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    if content.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        key = jwt.PyJWK(dict(content)).key
    except Exception:
        # The document is somebody else's: whatever is wrong with one of its keys, the others are still good.
        return None
    algorithms = _algorithms(key)
    named = content.get("alg")
    if named is not None:
        algorithms = tuple(each for each in algorithms if each == named)
    key_id = content.get("kid", "")
    if not algorithms or not isinstance(key_id, str):
        return None
    return IssuerKey(key_id, algorithms, key)


def _algorithms(key: object) -> tuple[str, ...]:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return RSA
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return (CURVES[key.curve.name],)
    return ("EdDSA",) if isinstance(key, ed25519.Ed25519PublicKey) else ()
