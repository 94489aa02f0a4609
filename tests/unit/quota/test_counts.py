"""Counts of quotas: never beyond the quota, by calendar in UTC, whoever writes at the same time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from meshlib.xds.quota import Usage
from meshlib_control.errors import StoreError
from meshlib_control.quota.counts import Calendar, Counts, period_left, period_of
from meshlib_control.quota.grants import Grants
from meshlib_control.quota.groups import QuotaGroup
from meshlib_control.store.memory import MemoryStore
from tests.support.configuring import world

QUOTA = """
apiVersion: meshlib.io/v1
kind: RateLimitPolicy
metadata: {name: p, namespace: default}
spec:
  host: reviews
  limits: [{name: day, quota: {requests: 50, period: DAY}}]
"""


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("calendar", "now", "period", "left"),
    [
        ("DAY", "2026-11-23T23:59:59", "2026-11-23", 1),
        ("DAY", "2026-11-24T00:00:00", "2026-11-24", 86400),
        ("MONTH", "2026-11-30T23:00:00", "2026-11", 3600),
        ("MONTH", "2026-12-31T12:00:00", "2026-12", 43200),
        ("MONTH", "2028-02-01T00:00:00", "2028-02", 29 * 86400),
    ],
)
def test_periods_are_those_of_the_calendar_in_utc(calendar: Calendar, now: str, period: str, left: float) -> None:
    assert period_of(calendar, at(now)) == period
    assert period_left(calendar, at(now)) == left


async def test_a_quota_is_charged_until_it_is_used_up() -> None:
    counts = Counts(MemoryStore())
    assert await counts.charge("q/a", "2026-11", 70, 100) == 70
    assert await counts.charge("q/a", "2026-11", 70, 100) == 30
    assert await counts.charge("q/a", "2026-11", 70, 100) == 0
    assert await counts.used("q/a", "2026-11") == 100
    assert await counts.charge("q/a", "2026-12", 70, 100) == 70


async def test_what_was_not_used_is_given_back() -> None:
    counts = Counts(MemoryStore())
    await counts.charge("q/a", "p", 100, 100)
    await counts.add("q/a", "p", -40)
    assert await counts.charge("q/a", "p", 70, 100) == 40


class SlowStore(MemoryStore):
    """Others get a word in between a read and a write."""

    async def get(self, key: str):  # type: ignore[no-untyped-def]
        entry = await super().get(key)
        await asyncio.sleep(0)
        return entry


async def test_replicas_at_the_same_time_never_charge_more_than_the_quota() -> None:
    store = SlowStore()
    charged = await asyncio.gather(*(Counts(store).charge("q/a", "p", 30, 100) for _ in range(10)))
    assert sum(charged) == 100


async def test_a_damaged_count_is_not_begun_anew() -> None:
    store = MemoryStore()
    await store.put("q/a", b"nonsense")
    with pytest.raises(StoreError, match="damaged"):
        await Counts(store).charge("q/a", "p", 1, 100)


# --- grants


def test_a_stream_is_granted_more_before_it_has_used_all() -> None:
    grants = Grants()
    grants.begin("p")
    grants.heard("a", 0, 0, 0.0, known=False)
    grants.grant(grants.wanted(1000), 1000)
    taker = grants.takers["a"]
    assert taker.granted == 10
    grants.heard("a", 4, 0, 1.0, known=True)
    assert grants.wanted(1000) == {"a": 14}  # ten seconds of two a second, on average
    grants.grant({"a": 14}, 3)
    assert (taker.granted, taker.used, taker.left) == (13, 4, 9)


def test_the_end_of_a_quota_is_divided() -> None:
    grants = Grants()
    grants.begin("p")
    for stream in "abc":
        grants.heard(stream, 0, 0, 0.0, known=False)
        grants.heard(stream, 1000, 0, 1.0, known=True)
    wanted = grants.wanted(60)
    assert wanted == {"a": 10, "b": 10, "c": 10}


def test_another_period_begins_anew() -> None:
    grants = Grants()
    grants.begin("one")
    grants.heard("a", 0, 0, 0.0, known=False)
    grants.grant({"a": 10}, 10)
    grants.heard("a", 3, 0, 1.0, known=True)
    grants.begin("two")
    assert grants.takers["a"].left == 0
    assert grants.left("a") == 0


def test_what_passed_before_the_first_grant_is_to_be_charged_unless_it_was_granted_elsewhere() -> None:
    grants = Grants()
    grants.heard("new", 5, 0, 0.1, known=False)
    grants.heard("back", 5, 0, 0.1, known=True)
    assert [taker.uncharged for taker in grants.takers.values()] == [5, 0]


async def test_replicas_whose_clocks_differ_at_midnight_do_not_begin_each_others_day_anew() -> None:
    """One is a second ahead: they write by turns to one day and to the other."""
    counts = Counts(MemoryStore())
    granted = {"2026-11-23": 0, "2026-11-24": 0}
    for turn in range(20):
        period = ("2026-11-23", "2026-11-24")[turn % 2]
        granted[period] += await counts.charge("q/a", period, 30, 100)
    assert granted == {"2026-11-23": 100, "2026-11-24": 100}


async def test_counts_of_long_ago_are_forgotten_and_a_clock_that_runs_ahead_does_not_stay_in_the_way() -> None:
    store = MemoryStore()
    counts = Counts(store)
    await counts.charge("q/a", "2031-01-01", 100, 100)
    for day in range(1, 30):
        assert await counts.charge("q/a", f"2026-11-{day:02}", 100, 100) == 100
    entry = await store.get("q/a")
    assert entry is not None
    assert len(entry.value) < 150


async def test_a_count_of_an_earlier_version_is_read() -> None:
    store = MemoryStore()
    await store.put("q/a", b'{"period":"2026-11","used":70}')
    assert await Counts(store).charge("q/a", "2026-11", 70, 100) == 30


async def test_what_was_granted_of_yesterdays_quota_is_not_given_back_to_todays() -> None:
    """Another replica has charged today's already by then."""
    store, policy = MemoryStore(), world(QUOTA).rate_limits.named("default/p")
    assert policy is not None
    now = at("2026-11-23T23:59:59")
    bucket = (("meshlib.limit", "day"), ("meshlib.policy", "default/p"))
    group = QuotaGroup("default/p", policy.limits[0], store, lambda: now)
    group.heard("a", Usage(bucket, 1.0, 0, 0), 0.0)
    await group.settle(0.0)
    (entry,) = await store.scan("quota/counts/")
    group.left("a", in_order=True, process="a")
    now = at("2026-11-24T00:00:01")
    await Counts(store).charge(entry.key, "2026-11-24", 50, 50)
    await group.settle(1.0)
    assert await Counts(store).used(entry.key, "2026-11-24") == 50
    assert await Counts(store).used(entry.key, "2026-11-23") > 0
