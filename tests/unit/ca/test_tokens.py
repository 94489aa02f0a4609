"""Join tokens over a store in memory; the races are among the integration tests."""

from __future__ import annotations

import re

import pytest

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca.errors import CallerRefused, IdentityRefused
from meshlib_control.ca.tokens import KEPT, JoinTokens, TokenError
from meshlib_control.errors import StoreError
from meshlib_control.store.memory import MemoryStore
from tests.support.authority import RATINGS, REVIEWS, TRUST_DOMAIN, SettableClock, new_kek


class LosingStore(MemoryStore):
    """Loses the answers to writes: before they are made, or after."""

    def __init__(self) -> None:
        super().__init__()
        self.losing = ""

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        if self.losing == "before":
            raise StoreError("connection reset")
        revision = await super().put(key, value, expect=expect)
        if self.losing == "after":
            raise StoreError("connection reset")
        return revision


def tokens_of(store: MemoryStore | None = None, clock: SettableClock | None = None) -> JoinTokens:
    return JoinTokens(store or MemoryStore(), TRUST_DOMAIN, clock=clock or SettableClock())


async def test_a_token_is_redeemed_once_for_its_identity() -> None:
    tokens = tokens_of()
    made = await tokens.create(REVIEWS, author="alice")
    record = await tokens.redeem(made.secret, address="10.0.0.1")
    assert (record.identity, record.by, record.author) == (str(REVIEWS), "10.0.0.1", "alice")
    with pytest.raises(CallerRefused, match="used already"):
        await tokens.redeem(made.secret, address="10.0.0.1")


async def test_a_secret_has_256_bits_and_shows_only_once() -> None:
    tokens = tokens_of()
    made = [await tokens.create(REVIEWS) for _ in range(50)]
    assert len({each.secret for each in made}) == 50
    assert all(re.fullmatch(r"mjt_[A-Za-z0-9_-]{43}", each.secret) for each in made)
    for each in made:
        assert each.secret not in repr(each)
        assert each.secret not in repr(await tokens.list())


@pytest.mark.parametrize("secret", ["", "mjt_", "mjt_" + "A" * 43, "x" * 10_000, "mjt_\x00", "mjt_ä"])
async def test_what_is_no_token_is_refused(secret: str) -> None:
    tokens = tokens_of()
    await tokens.create(REVIEWS)
    with pytest.raises(CallerRefused, match="no such join token"):
        await tokens.redeem(secret)


async def test_a_token_ends_after_ten_minutes() -> None:
    clock = SettableClock()
    tokens = tokens_of(clock=clock)
    early, late = await tokens.create(REVIEWS), await tokens.create(REVIEWS)
    assert early.expires == clock.now + 600
    clock.now += 599
    await tokens.redeem(early.secret)
    clock.now += 1
    with pytest.raises(CallerRefused, match="has expired"):
        await tokens.redeem(late.secret)


async def test_a_clock_that_was_put_back_does_not_bring_a_token_to_life() -> None:
    clock = SettableClock()
    tokens = tokens_of(clock=clock)
    made = await tokens.create(REVIEWS)
    clock.now -= 3600
    with pytest.raises(CallerRefused, match="has expired"):
        await tokens.redeem(made.secret)


@pytest.mark.parametrize("ttl", [0.0, -1.0, 601.0, float("inf"), float("nan")])
async def test_no_other_lifetime_is_possible(ttl: float) -> None:
    with pytest.raises(TokenError, match="at most 600 s"):
        await tokens_of().create(REVIEWS, ttl=ttl)


@pytest.mark.parametrize(
    ("cidr", "address", "allowed"),
    [
        ("10.0.0.0/24", "10.0.0.7", True),
        ("10.0.0.0/24", "10.0.1.7", False),
        ("10.0.0.7/32", "10.0.0.7", True),
        ("10.0.0.0/24", "::ffff:10.0.0.7", True),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "10.0.0.7", False),
        ("10.0.0.0/24", "", False),
        ("10.0.0.0/24", "unix:socket", False),
    ],
)
async def test_a_token_may_be_bound_to_a_network(cidr: str, address: str, allowed: bool) -> None:
    tokens = tokens_of()
    made = await tokens.create(REVIEWS, cidr=cidr)
    if allowed:
        assert await tokens.redeem(made.secret, address=address)
        return
    with pytest.raises(CallerRefused, match="may not be used from"):
        await tokens.redeem(made.secret, address=address)
    # A try from elsewhere does not use it up.
    inside = "fd00::2" if ":" in cidr else "10.0.0.7"
    assert await tokens.redeem(made.secret, address=inside)


@pytest.mark.parametrize("cidr", ["10.0.0.1/24", "10.0.0.0/33", "everywhere"])
async def test_a_network_that_is_none_is_refused(cidr: str) -> None:
    with pytest.raises(TokenError, match="is no network"):
        await tokens_of().create(REVIEWS, cidr=cidr)


async def test_tokens_are_for_workloads_of_the_own_trust_domain() -> None:
    for identity in ("spiffe://other.test/ns/default/sa/reviews", "spiffe://cluster.local/admin"):
        with pytest.raises(IdentityRefused):
            await tokens_of().create(SpiffeId.parse(identity))


async def test_a_revoked_token_is_gone() -> None:
    tokens = tokens_of()
    revoked, kept = await tokens.create(REVIEWS), await tokens.create(RATINGS)
    await tokens.revoke(revoked.id)
    assert [record.id for record in await tokens.list()] == [kept.id]
    with pytest.raises(CallerRefused, match="no such"):
        await tokens.redeem(revoked.secret)
    for unknown in (revoked.id, "", "x", "../secrets", kept.id[:-1]):
        with pytest.raises(TokenError, match="there is no join token"):
            await tokens.revoke(unknown)
    assert await tokens.redeem(kept.secret)


async def test_old_tokens_are_forgotten_and_a_replay_is_noticed_until_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = SettableClock()
    tokens = tokens_of(clock=clock)
    used = await tokens.create(REVIEWS)
    await tokens.redeem(used.secret)
    clock.now += 600 + KEPT - 1
    assert await tokens.prune() == 0
    with pytest.raises(CallerRefused):
        await tokens.redeem(used.secret, address="10.6.6.6")
    assert "is presented again, by 10.6.6.6" in caplog.text
    clock.now += 2
    fresh = await tokens.create(RATINGS)
    assert await tokens.prune() == 1
    assert [record.id for record in await tokens.list()] == [fresh.id]


async def test_who_can_write_to_the_store_cannot_make_a_token() -> None:
    store, kek = MemoryStore(), new_kek()
    tokens = JoinTokens(store, TRUST_DOMAIN, kek=kek)
    stranger = JoinTokens(store, TRUST_DOMAIN)
    forged = await stranger.create(REVIEWS)
    with pytest.raises(CallerRefused, match="is forged"):
        await tokens.redeem(forged.secret)
    made = await tokens.create(REVIEWS)
    (entry,) = await store.scan(f"ca/tokens/{made.id}")
    for change in (b'"expires":1', b"/sa/reviews"):
        await store.put(entry.key, entry.value.replace(change, change[:-1] + b"2"))
        with pytest.raises(CallerRefused, match="is forged"):
            await tokens.redeem(made.secret)
    (other,) = await store.scan(f"ca/tokens/{forged.id}")
    await store.put(other.key, entry.value)  # a good record under the hash of another secret
    with pytest.raises(CallerRefused, match="is forged"):
        await tokens.redeem(forged.secret)
    await store.put(entry.key, entry.value)
    assert await tokens.redeem(made.secret)


async def test_a_lost_answer_to_a_redemption_that_was_written_is_no_failure() -> None:
    store = LosingStore()
    tokens = tokens_of(store)
    made = await tokens.create(REVIEWS)
    store.losing = "after"
    assert (await tokens.redeem(made.secret)).identity == str(REVIEWS)
    with pytest.raises(CallerRefused, match="used already"):
        await tokens.redeem(made.secret)


async def test_a_redemption_that_was_not_written_fails_and_can_be_tried_again() -> None:
    store = LosingStore()
    tokens = tokens_of(store)
    made = await tokens.create(REVIEWS)
    store.losing = "before"
    with pytest.raises(StoreError, match="connection reset"):
        await tokens.redeem(made.secret)
    store.losing = ""
    assert await tokens.redeem(made.secret)
