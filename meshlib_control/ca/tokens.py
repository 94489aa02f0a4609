"""Join tokens: how a workload that has nothing yet proves, once, that it may have an identity.

256 random bits, shown when they are made and stored as a hash only; bound to one identity, and to a network if wished; good for
ten minutes at most; used up by one compare-and-set, so that of many that redeem the same token exactly one gets through.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca.errors import CallerRefused, KeyUnusable
from meshlib_control.ca.keys import KeyEncryptionKey
from meshlib_control.ca.names import check_workload
from meshlib_control.errors import Conflict, ControlServiceError, StoreError
from meshlib_control.store.model import Store

log = logging.getLogger(__name__)

PREFIX = "ca/tokens/"
MARK = "mjt_"
"""What a token begins with: tells it from a JWT, and lets scanners for leaked secrets know it."""
SECRET_BYTES = 32
MAX_TTL = 600.0  # seconds
KEPT = 3600.0
"""Seconds after its end for which a token is remembered, so that a replay is told from a typing error."""
ID_LENGTH = 16

_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")


class TokenError(ControlServiceError):
    """A token cannot be made or found as asked."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A new token.  `secret` is what the workload presents; nobody can show it again.  `expires`: Unix seconds."""

    id: str
    secret: str = field(repr=False)
    identity: SpiffeId
    expires: float
    cidr: str = ""


class TokenRecord(msgspec.Struct, frozen=True):
    """What is stored.  `used`: Unix seconds, 0 for not yet; `by`: from which address."""

    id: str
    identity: str
    created: float
    expires: float
    author: str = ""
    cidr: str = ""
    used: float = 0.0
    by: str = ""
    redemption: str = ""  # random: tells whose compare-and-set it was when the answer got lost
    tag: bytes = b""  # authenticates all of the above


class JoinTokens:
    """Those of one trust domain, over a store.

    `kek`: authenticates records, so that who can write to the store, but does not have the key, cannot make a token.  None
    leaves that to the access rules of the store.
    """

    def __init__(
        self,
        store: Store,
        trust_domain: str,
        *,
        kek: KeyEncryptionKey | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._trust_domain = trust_domain
        self._kek = kek
        self._clock = clock

    async def create(self, identity: SpiffeId, *, ttl: float = MAX_TTL, cidr: str = "", author: str = "") -> JoinToken:
        """`ttl`: seconds, at most ten minutes; `cidr`: where it may be redeemed from.

        Raises `TokenError`, `IdentityRefused` and `StoreError`.
        """
        check_workload(identity, self._trust_domain)
        if not 0 < ttl <= MAX_TTL:
            raise TokenError(f"a join token cannot be good for {ttl:g} s; at most {MAX_TTL:g} s are possible")
        network = _network(cidr)
        secret = MARK + secrets.token_urlsafe(SECRET_BYTES)
        now = self._clock()
        name = _hash(secret)
        record = TokenRecord(name[:ID_LENGTH], str(identity), now, now + ttl, author, network)
        await self._store.put(PREFIX + name, self._written(PREFIX + name, record), expect=0)
        log.info("join token %s made for %s by %s", record.id, identity, author or "an operator")
        return JoinToken(record.id, secret, identity, record.expires, network)

    async def redeem(self, secret: str, *, address: str = "") -> TokenRecord:
        """Use the token up.  Of all that try, one succeeds.  Raises `CallerRefused` and `StoreError`."""
        key = PREFIX + _hash(secret)
        entry = await self._store.get(key)
        if entry is None:
            raise CallerRefused("no such join token")
        record = _read(key, entry.value)
        self._check_authentic(key, record)
        now = self._clock()
        self._check(record, address, now)
        used = replace(record, used=now, by=address, redemption=secrets.token_hex(16))
        try:
            await self._store.put(key, self._written(key, used), expect=entry.revision)
        except StoreError as error:
            # The answer may have been lost on the way, or the request repeated below us: the record tells who won.
            found = await self._store.get(key)
            if found is None or _read(key, found.value).redemption != used.redemption:
                if isinstance(error, Conflict):
                    raise CallerRefused(f"join token {record.id} was used by somebody else at the same time") from error
                raise
        return used

    async def list(self) -> list[TokenRecord]:
        """Those that are remembered, the newest last.  Raises `StoreError`."""
        records = [_read(entry.key, entry.value) for entry in await self._store.scan(PREFIX)]
        return sorted(records, key=lambda record: record.created)

    async def revoke(self, token_id: str) -> None:
        """By the id that `list` shows.  Raises `TokenError` when there is none, and `StoreError`."""
        entries = await self._store.scan(PREFIX + token_id) if _ID.fullmatch(token_id) else []
        if not entries:
            raise TokenError(f"there is no join token {token_id}")
        for entry in entries:
            await self._store.delete(entry.key)
        log.info("join token %s revoked", token_id)

    async def prune(self) -> int:
        """Forget what ended an hour ago; returns how many.  Raises `StoreError`."""
        limit = self._clock() - KEPT
        pruned = 0
        for entry in await self._store.scan(PREFIX):
            if _read(entry.key, entry.value).expires < limit:
                try:
                    await self._store.delete(entry.key, expect=entry.revision)
                except Conflict:
                    continue
                pruned += 1
        return pruned

    def _written(self, key: str, record: TokenRecord) -> bytes:
        if self._kek is not None:
            record = replace(record, tag=self._kek.authenticate(key, _content(record)))
        return msgspec.json.encode(record)

    def _check_authentic(self, key: str, record: TokenRecord) -> None:
        if self._kek is None:
            return
        try:
            self._kek.verify(key, _content(record), record.tag)
        except KeyUnusable as error:
            log.error("join token %s was not made by this mesh: somebody writes to the store (%s)", record.id, error)
            raise CallerRefused(f"join token {record.id} is forged") from error

    def _check(self, record: TokenRecord, address: str, now: float) -> None:
        if record.used:
            # Not a mistake that workloads make: somebody else has the token.
            log.warning("join token %s (%s) is presented again, by %s", record.id, record.identity, address)
            raise CallerRefused(f"join token {record.id} was used already")
        # A token from the future is one of a store that was put back, or of a clock that was.
        if not record.created - MAX_TTL <= now < record.expires:
            raise CallerRefused(f"join token {record.id} has expired")
        if record.cidr and not _within(address, record.cidr):
            raise CallerRefused(f"join token {record.id} may not be used from {address or 'an unknown address'}")


def _hash(secret: str) -> str:
    # Not a password: 256 random bits need no salt and no stretching, and are found by their hash.
    return hashlib.sha256(secret.encode()).hexdigest()


def _content(record: TokenRecord) -> bytes:
    return msgspec.json.encode(replace(record, tag=b""))


def _read(key: str, value: bytes) -> TokenRecord:
    try:
        return msgspec.json.decode(value, type=TokenRecord)
    except msgspec.DecodeError as error:
        raise StoreError(f"{key} is damaged: {error}") from error


def _network(cidr: str) -> str:
    if not cidr:
        return ""
    try:
        return str(ipaddress.ip_network(cidr))
    except ValueError as error:
        raise TokenError(f"{cidr!r} is no network: {error}") from error


def _within(address: str, cidr: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found) in ipaddress.ip_network(cidr)
