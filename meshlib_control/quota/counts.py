"""How much of a quota is used up: durable counts by day or month, charged before anything is granted.

A grant that was charged and not used is lost when its process vanishes, and given back when it ends in good order: so a quota
is never exceeded by grants, and may end a little early.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from meshlib_control.errors import Conflict, StoreError
from meshlib_control.store.model import Entry, Store

ATTEMPTS = 20
"""Of a charge that others are faster with."""

Calendar = Literal["DAY", "MONTH"]


REMEMBERED = 3
"""Other periods whose counts are kept beside the one that was written last."""


class Count(msgspec.Struct, frozen=True, omit_defaults=True):
    """`period`: ``2026-11-23`` or ``2026-11``.

    `others`: the counts of other periods.  Around midnight replicas whose clocks differ write by turns to one day and to the
    other; were there only one count, each of them would begin it anew.
    """

    period: str
    used: int
    others: dict[str, int] = {}  # msgspec copies it

    def of(self, period: str) -> int:
        return self.used if period == self.period else self.others.get(period, 0)

    def changed(self, period: str, used: int) -> Count:
        """With another count for `period`; the oldest ones are forgotten."""
        others = {name: number for name, number in {**self.others, self.period: self.used}.items() if number and name != period}
        return Count(period, used, {name: others[name] for name in sorted(others)[-REMEMBERED:]})


def period_of(calendar: Calendar, now: float) -> str:
    """The calendar day or month (UTC) of `now`, Unix seconds."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d" if calendar == "DAY" else "%Y-%m")


def period_left(calendar: Calendar, now: float) -> float:
    """Seconds until the next period begins."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    end = today + timedelta(days=1) if calendar == "DAY" else next_month
    return end.timestamp() - now


class Counts:
    """Over one store, which any number of replicas share."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def used(self, key: str, period: str) -> int:
        entry = await self._store.get(key)
        return _decoded(entry).of(period) if entry else 0

    async def charge(self, key: str, period: str, wanted: int, quota: int) -> int:
        """Charge as many as there are left of `wanted`; says how many.  Raises `StoreError`."""
        charged = 0

        def change(used: int) -> int:
            nonlocal charged
            charged = max(min(wanted, quota - used), 0)
            return used + charged

        await self._change(key, period, change)
        return charged

    async def add(self, key: str, period: str, number: int) -> None:
        """Charge what has passed already, or (negative) give back what was granted and not used."""
        await self._change(key, period, lambda used: max(used + number, 0))

    async def _change(self, key: str, period: str, change: Callable[[int], int]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            entry = await self._store.get(key)
            count = _decoded(entry) if entry else Count(period, 0)
            before = count.of(period)
            after = change(before)
            if after == before and entry is not None:
                return
            value = msgspec.json.encode(count.changed(period, after))
            try:
                await self._store.put(key, value, expect=entry.revision if entry else 0)
                return
            except Conflict:
                if attempt == ATTEMPTS:
                    raise


def _decoded(entry: Entry) -> Count:
    """Raises `StoreError` for what is none of ours: a quota is not begun anew for that."""
    try:
        return msgspec.json.decode(entry.value, type=Count)
    except msgspec.DecodeError as error:
        raise StoreError(
            f"{entry.key}, the count of a quota, is damaged: {error}; nothing is granted until it is put right or deleted"
        ) from error
