"""Consul's key-value store: the one to share between replicas of the control service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from meshlib_control.consul.address import ConsulAddress
from meshlib_control.consul.blocking import BlockingRules
from meshlib_control.consul.client import TRANSACTION_VALUE_LIMIT, ConsulClient, Pair, cas, delete_if, set_key
from meshlib_control.consul.errors import ConsulError
from meshlib_control.consul.watch import watch
from meshlib_control.errors import Conflict, StoreError
from meshlib_control.store.keys import check_key, check_prefix, check_value
from meshlib_control.store.model import Entry

T = TypeVar("T")

WATCH_RULES = BlockingRules(stale=False)


class ConsulStore:
    """Revisions are Consul's ModifyIndex.  Reads are ``consistent``: a leader that was replaced cannot answer them."""

    def __init__(self, address: ConsulAddress, *, timeout: float = 10.0, rules: BlockingRules = WATCH_RULES) -> None:
        self.address = address
        self._client = ConsulClient(address, timeout=timeout)
        self._rules = replace(rules, stale=False)
        self._prefix = address.prefix

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        pair = await self._call(self._client.get(self._prefix + key))
        return self._entry(pair) if pair else None

    async def scan(self, prefix: str) -> list[Entry]:
        check_prefix(prefix)
        answer = await self._call(self._client.scan(self._prefix + prefix))
        return [self._entry(pair) for pair in answer.content]

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        check_key(key)
        check_value(key, value)
        path = self._prefix + key
        if len(value) > TRANSACTION_VALUE_LIMIT:
            return await self._put_large(key, value, expect)
        operation = set_key(path, value) if expect is None else cas(path, value, expect)
        written = await self._call(self._client.transact(operation))
        if written is None:
            raise await self._conflict(key, expect or 0)
        return written[0].index

    async def delete(self, key: str, *, expect: int | None = None) -> None:
        check_key(key)
        path = self._prefix + key
        if expect is None:
            await self._call(self._client.delete(path))
        elif await self._call(self._client.transact(*delete_if(path, expect))) is None:
            raise await self._conflict(key, expect)

    async def watch(self, prefix: str) -> AsyncIterator[list[Entry]]:
        check_prefix(prefix)
        path = self._prefix + prefix
        what = f"{self.address}, keys {path}"
        changes = watch(lambda query: self._client.scan(path, query), self._rules, what=what)
        async with aclosing(changes):
            async for pairs in changes:
                yield [self._entry(pair) for pair in pairs]

    async def close(self) -> None:
        await self._client.close()

    async def _put_large(self, key: str, value: bytes, expect: int | None) -> int:
        """A plain PUT, which does not tell the revision that it made; so the key is read again.

        When somebody else wrote in between, the revision before his is returned: not ours to the digit, but newer than
        what was there before and not the current one, so a compare-and-set with it fails as it must.
        """
        path = self._prefix + key
        if expect is None:
            await self._call(self._client.put(path, value))
        elif not await self._call(self._client.put_if(path, value, expect)):
            raise await self._conflict(key, expect)
        pair = await self._call(self._client.get(path))
        if pair is None:
            return max(1, (expect or 0) + 1)
        return pair.index if pair.value == value else pair.index - 1

    async def _conflict(self, key: str, expect: int) -> Conflict:
        pair = await self._call(self._client.get(self._prefix + key))
        return Conflict(key, expect, pair.index if pair else 0)

    def _entry(self, pair: Pair) -> Entry:
        return Entry(pair.key.removeprefix(self._prefix), pair.value, pair.index)

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except ConsulError as error:
            raise StoreError(str(error)) from error
