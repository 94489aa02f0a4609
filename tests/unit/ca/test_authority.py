"""The authority over a store in memory: who gets what, for how long, and when nobody gets anything."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca import state
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.errors import (
    CaError,
    CsrRefused,
    IdentityBanned,
    IdentityRefused,
    IssuingStopped,
    KeyUnusable,
    RotationRefused,
)
from meshlib_control.ca.material import Lifetimes
from meshlib_control.ca.model import CaSettings
from meshlib_control.ca.names import control_id
from meshlib_control.store.memory import MemoryStore
from tests.support.authority import (
    RATINGS,
    REVIEWS,
    TRUST_DOMAIN,
    SettableClock,
    certificate,
    new_kek,
    new_request,
    running_authority,
)
from tests.support.polling import eventually

DAY = 86400.0
CSR, _ = new_request()


# Issuing


async def test_a_certificate_is_for_the_identity_and_the_key_of_the_request() -> None:
    clock = SettableClock()
    async with running_authority(clock=clock) as authority:
        issued = authority.issue(CSR, REVIEWS, caller="test")
        leaf, intermediate = map(certificate, issued.chain_pem)
        root = certificate(issued.roots_pem)
        leaf.verify_directly_issued_by(intermediate)
        intermediate.verify_directly_issued_by(root)
        assert leaf.serial_number == issued.serial
        assert (issued.not_before, issued.not_after) == (clock.now - 60, clock.now + DAY)
        assert leaf.not_valid_after_utc.timestamp() == issued.not_after
        assert authority.trust_bundle.pem == issued.roots_pem


@pytest.mark.parametrize(
    ("asked", "policy", "given"),
    [(None, DAY, DAY), (60.0, DAY, 60.0), (90 * DAY, DAY, DAY), (math.inf, DAY, DAY), (None, 3600.0, 3600.0), (1.0, DAY, 1.0)],
)
async def test_the_lifetime_is_the_least_of_what_is_asked_and_what_policy_allows(
    asked: float | None, policy: float, given: float
) -> None:
    clock = SettableClock()
    async with running_authority(settings=CaSettings(TRUST_DOMAIN, max_ttl=policy), clock=clock) as authority:
        assert authority.issue(CSR, REVIEWS, caller="test", ttl=asked).not_after == clock.now + given


async def test_no_certificate_outlives_what_it_leads_to() -> None:
    clock = SettableClock()
    short = CaSettings(TRUST_DOMAIN, lifetimes=Lifetimes(intermediate=3600.0))
    async with running_authority(settings=short, clock=clock) as authority:
        assert authority.issue(CSR, REVIEWS, caller="test").not_after == clock.now + 3600


@pytest.mark.parametrize("ttl", [0.0, -1.0, math.nan, 0.5])
async def test_a_lifetime_that_is_none_is_refused(ttl: float) -> None:
    async with running_authority(clock=SettableClock()) as authority:
        with pytest.raises(CsrRefused, match="validity"):
            authority.issue(CSR, REVIEWS, caller="test", ttl=ttl)


@pytest.mark.parametrize(
    "identity",
    [
        "spiffe://other.test/ns/default/sa/reviews",
        "spiffe://cluster.local",
        "spiffe://cluster.local/reviews",
        "spiffe://cluster.local/ns/default/sa/reviews/x",
        "spiffe://cluster.local/ns/default.more/sa/reviews",
        "spiffe://cluster.local/ns/default/sa/Reviews",
        "spiffe://cluster.local/ns/default/sa/re_views",
        "spiffe://cluster.local/ns/default/sa/-reviews",
        "spiffe://cluster.local/ns/default/sa/" + ".".join(["a" * 60] * 5),
        "spiffe://cluster.local/ns/meshlib-system/sa/meshlib-control",
    ],
)
async def test_for_whom_nobody_gets_a_certificate(identity: str) -> None:
    async with running_authority() as authority:
        assert authority.issue(CSR, SpiffeId.of_workload(TRUST_DOMAIN, "default", "re.views-2"), caller="control")
        with pytest.raises(IdentityRefused):
            authority.issue(CSR, SpiffeId.parse(identity), caller="test")


async def test_every_issue_is_logged_and_stays_until_it_has_expired() -> None:
    clock = SettableClock()
    store = MemoryStore()
    async with running_authority(store, settings=CaSettings(TRUST_DOMAIN, log_retention=DAY), clock=clock) as authority:
        first = authority.issue(CSR, REVIEWS, caller="join token 1")
        await authority.log.flush()
        before = {entry.key: entry for entry in await store.scan("ca/log/")}
        clock.now += DAY
        authority.issue(CSR, RATINGS, caller="JWT")
        await authority.log.flush()
        records = await authority.log.records()
        assert [(record.identity, record.caller) for record in records] == [
            (str(REVIEWS), "join token 1"),
            (str(RATINGS), "JWT"),
        ]
        assert records[0].serial == f"{first.serial:032x}"
        assert records[0].csr == records[1].csr != ""
        after = {entry.key: entry for entry in await store.scan("ca/log/")}
        assert before.items() <= after.items()  # appended, and nothing rewritten
        assert await authority.log.prune() == 0
        clock.now += DAY + 2
        assert await authority.log.prune() == 1
        assert [record.identity for record in await authority.log.records()] == [str(RATINGS)]


async def test_closing_writes_what_the_log_still_holds() -> None:
    store = MemoryStore()
    async with running_authority(store) as authority:
        authority.issue(CSR, REVIEWS, caller="test")
    assert len(await authority.log.records()) == 1
    with pytest.raises(IssuingStopped, match="closed"):
        authority.issue(CSR, REVIEWS, caller="test")


async def test_the_control_service_gets_its_own_identity() -> None:
    names = CaSettings(TRUST_DOMAIN, control_names=("mesh.example.test", "10.0.0.1"))
    async with running_authority(settings=names) as authority:
        identity = authority.control_identity()
        assert identity.identity == control_id(TRUST_DOMAIN)
        leaf = certificate(identity.chain_pem.decode())
        text = str(leaf.extensions)
        for name in ("meshlib-control.meshlib-system.cluster.local", "mesh.example.test", "10.0.0.1"):
            assert name in text
        # The root comes along: who knows only its hash can find it.
        assert identity.chain_pem.decode().endswith(authority.trust_bundle.pem)
        assert identity.key_pem.decode() not in repr(identity)
        assert authority.control_identity().key_pem != identity.key_pem


# Bans


async def test_T04_a_banned_identity_gets_nothing_until_it_is_unbanned() -> None:
    async with running_authority() as authority:
        await authority.ban(REVIEWS, by="alice", reason="stolen")
        assert authority.is_banned(REVIEWS)
        with pytest.raises(IdentityBanned):
            authority.issue(CSR, REVIEWS, caller="test")
        assert authority.issue(CSR, RATINGS, caller="test")
        assert [(ban.identity, ban.by, ban.reason) for ban in authority.status().bans] == [(str(REVIEWS), "alice", "stolen")]
        assert await authority.unban(REVIEWS)
        assert not await authority.unban(REVIEWS)
        assert authority.issue(CSR, REVIEWS, caller="test")


async def test_bans_and_their_changes_reach_other_replicas() -> None:
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek) as one, running_authority(store, kek) as other:
        seen = other.changes.count
        await one.ban(REVIEWS)
        await eventually(lambda: other.is_banned(REVIEWS))
        assert other.changes.count > seen
        await other.unban(REVIEWS)
        await eventually(lambda: not one.is_banned(REVIEWS))


async def test_a_ban_outlives_a_restart() -> None:
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek) as authority:
        await authority.ban(REVIEWS)
    async with running_authority(store, kek) as authority:
        assert authority.is_banned(REVIEWS)


async def test_the_control_service_cannot_be_banned() -> None:
    async with running_authority() as authority:
        with pytest.raises(IdentityRefused, match="cannot be banned"):
            await authority.ban(control_id(TRUST_DOMAIN))


# Opening


async def test_a_restart_finds_the_authority_that_was_there() -> None:
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek) as authority:
        before = authority.status().authorities
    async with running_authority(store, kek) as authority:
        assert authority.status().authorities == before


async def test_F26_the_wrong_key_stops_the_start() -> None:
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek):
        pass
    with pytest.raises(KeyUnusable, match=r"does not open.*Start with that key"):
        await CertificateAuthority(store, new_kek(), CaSettings(TRUST_DOMAIN)).start()
    async with running_authority(store, kek) as authority:
        assert authority.issue(CSR, REVIEWS, caller="control")


async def test_T10_swapped_ciphertexts_do_not_open() -> None:
    """Both were sealed with the right key, and even the whole document is authentic."""
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek) as authority:
        await authority.prepare()
    entry = await store.get(state.STATE)
    assert entry is not None
    current = state.decoded(entry.value, kek)
    one, other = current.authorities
    swapped = (
        replace(one, key=other.key, root_key=other.root_key),
        replace(other, key=one.key, root_key=one.root_key),
    )
    await store.put(state.STATE, state.encoded(replace(current, authorities=swapped), kek))
    with pytest.raises(KeyUnusable, match="changed, moved or cut short"):
        await CertificateAuthority(store, kek, CaSettings(TRUST_DOMAIN)).start()


async def test_T10_nothing_in_the_store_is_a_secret_in_clear() -> None:
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek) as authority:
        await authority.prepare()
        await authority.activate()
        authority.issue(CSR, REVIEWS, caller="test")
        signer = authority._replica.known
        assert signer is not None
        secret = signer.signer.issuer.key.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    raw = b"".join(entry.value for entry in await store.scan(""))
    assert b"BEGIN CERTIFICATE" in raw
    assert b"PRIVATE" not in raw
    assert secret not in raw


async def test_another_trust_domain_is_refused() -> None:
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek):
        pass
    with pytest.raises(CaError, match=r"is that of cluster\.local.*started for the trust domain other\.test"):
        await CertificateAuthority(store, kek, CaSettings("other.test")).start()


# Rotation and renewal


async def test_F25_a_rotation_of_the_root() -> None:
    async with running_authority() as authority:
        old = authority.issue(CSR, REVIEWS, caller="test")
        await authority.prepare()
        assert authority.trust_bundle.pem.startswith(old.roots_pem)
        assert authority.issue(CSR, REVIEWS, caller="test").chain_pem[1] == old.chain_pem[1]
        await authority.activate()
        new = authority.issue(CSR, REVIEWS, caller="test")
        assert new.chain_pem[1] != old.chain_pem[1]
        assert new.roots_pem.startswith(old.roots_pem)
        await authority.taint()
        assert authority.trust_bundle.pem.endswith(old.roots_pem)
        await authority.revoke()
        assert old.roots_pem not in authority.trust_bundle.pem
        assert len(authority.trust_bundle.der) == 1


async def test_replicas_follow_each_step() -> None:
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek) as one, running_authority(store, kek) as other:
        for actor, step in ((one, one.prepare), (other, other.activate), (one, one.taint), (other, other.revoke)):
            status = await step()
            watcher = other if actor is one else one
            await eventually(lambda: watcher.status().epoch == status.epoch)  # noqa: B023 - waited for at once
            assert watcher.trust_bundle == actor.trust_bundle
            issued = [each.issue(CSR, REVIEWS, caller="test").chain_pem[1] for each in (one, other)]
            assert issued[0] == issued[1]


async def test_two_operators_who_prepare_at_once_prepare_one_root() -> None:
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek) as one, running_authority(store, kek) as other:
        await one.prepare()
        with pytest.raises(RotationRefused, match="another rotation is under way"):
            await other.prepare()
        await eventually(lambda: len(other.trust_bundle.der) == 2)


async def test_the_signing_certificate_is_renewed_at_half_its_life() -> None:
    clock = SettableClock()
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek, clock=clock) as one, running_authority(store, kek, clock=clock) as other:
        before = one.issue(CSR, REVIEWS, caller="test").chain_pem[1]
        clock.now += 14.9 * DAY
        await one.maintain()
        assert one.issue(CSR, REVIEWS, caller="test").chain_pem[1] == before
        clock.now += 0.2 * DAY
        await one.maintain()
        after = one.issue(CSR, REVIEWS, caller="test").chain_pem[1]
        assert after != before
        await other.maintain()  # finds that it is done
        assert other.issue(CSR, REVIEWS, caller="test").chain_pem[1] == after
        assert one.status().epoch == other.status().epoch == 2
        certificate(after).verify_directly_issued_by(certificate(one.trust_bundle.pem))


async def test_a_root_that_was_prepared_long_ago_can_still_be_activated() -> None:
    clock = SettableClock()
    async with running_authority(clock=clock) as authority:
        await authority.prepare()
        clock.now += 40 * DAY
        await authority.activate()
        assert authority.issue(CSR, REVIEWS, caller="test").not_after == clock.now + DAY


async def test_what_ends_soon_is_told() -> None:
    clock = SettableClock()
    async with running_authority(clock=clock) as authority:
        assert authority.status().problems == ()
        clock.now += 9.5 * 365 * DAY
        await authority.maintain()
        assert any("root expires in 182 days" in problem for problem in authority.status().problems)
        assert len(authority.status().problems) == 1


async def test_an_expired_signing_certificate_issues_nothing() -> None:
    clock = SettableClock()
    async with running_authority(clock=clock) as authority:
        clock.now += 31 * DAY
        with pytest.raises(IssuingStopped, match="expired"):
            authority.issue(CSR, REVIEWS, caller="test")
        await authority.maintain()
        assert authority.issue(CSR, REVIEWS, caller="test")
