"""What replicas of the authority must agree on, over each store: one root, no serial twice, a token for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from meshlib_control.ca import state
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.errors import AuthorityLost, CallerRefused, RotationRefused
from meshlib_control.ca.keys import KeyEncryptionKey
from meshlib_control.ca.model import CaSettings
from meshlib_control.ca.tokens import JoinTokens, TokenRecord
from meshlib_control.consul.address import parse_consul_url
from meshlib_control.consul.blocking import BlockingRules
from meshlib_control.errors import Conflict
from meshlib_control.store.consul import ConsulStore
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Store
from meshlib_control.store.sqlite import SqliteStore
from tests.support.authority import REVIEWS, TRUST_DOMAIN, new_kek, new_request
from tests.support.polling import eventually

FAST = BlockingRules(interval=0.02, retry_min=0.05, retry_max=0.2, wait=5.0)
REPLICAS = 8
REDEMPTIONS = 50


@dataclass
class Backend:
    """One store, opened as often as there are replicas."""

    open: Callable[[], Store]
    exits: AsyncExitStack

    def store(self) -> Store:
        opened = self.open()
        self.exits.push_async_callback(opened.close)
        return opened

    async def replica(self, kek: KeyEncryptionKey) -> CertificateAuthority:
        authority = CertificateAuthority(self.store(), kek, CaSettings(TRUST_DOMAIN))
        await authority.start()
        self.exits.push_async_callback(authority.close)
        return authority


@pytest.fixture(params=["memory", "sqlite", "consul"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with AsyncExitStack() as exits:
        if request.param == "memory":
            shared = MemoryStore()
            yield Backend(lambda: shared, exits)
        elif request.param == "sqlite":
            yield Backend(lambda: SqliteStore(tmp_path / "mesh.db", poll=0.02), exits)
        else:
            url = request.getfixturevalue("consul_agent").url(uuid4().hex)
            yield Backend(lambda: ConsulStore(parse_consul_url(url), rules=FAST, timeout=60.0), exits)


async def test_replicas_that_start_together_have_one_root(backend: Backend) -> None:
    kek = new_kek()
    replicas = await asyncio.gather(*(backend.replica(kek) for _ in range(REPLICAS)))
    assert len({replica.trust_bundle.pem for replica in replicas}) == 1
    assert [entry.key for entry in await backend.store().scan("ca/trust/")] == [state.STATE, state.MARKER]
    issued = [replica.issue(new_request()[0], REVIEWS, caller="test") for replica in replicas for _ in range(25)]
    assert len({each.serial for each in issued}) == len(issued)
    assert len({each.chain_pem[1] for each in issued}) == 1
    await asyncio.gather(*(replica.log.flush() for replica in replicas))
    logged = [record.serial for record in await replicas[0].log.records()]
    assert sorted(logged) == sorted(f"{each.serial:032x}" for each in issued)


async def test_nobody_makes_a_second_root_while_the_marker_is_there(backend: Backend) -> None:
    kek = new_kek()
    await backend.replica(kek)
    await backend.store().delete(state.STATE)
    started = await asyncio.gather(*(backend.replica(kek) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(each, AuthorityLost) for each in started)


async def test_a_rotation_reaches_every_replica(backend: Backend) -> None:
    kek = new_kek()
    replicas = [await backend.replica(kek) for _ in range(3)]
    for number, step in enumerate(("prepare", "activate", "taint", "revoke")):
        status = await getattr(replicas[number % 3], step)()
        for replica in replicas:
            await eventually(lambda: replica.status().epoch == status.epoch)  # noqa: B023 - waited for at once
        assert len({replica.trust_bundle.pem for replica in replicas}) == 1
        chains = {replica.issue(new_request()[0], REVIEWS, caller="test").chain_pem[1] for replica in replicas}
        assert len(chains) == 1


async def test_of_several_who_take_the_same_step_one_does(backend: Backend) -> None:
    kek = new_kek()
    replicas = [await backend.replica(kek) for _ in range(4)]
    done = await asyncio.gather(*(replica.prepare() for replica in replicas), return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in done) == 1
    assert all(isinstance(each, RotationRefused) for each in done if isinstance(each, BaseException))
    for replica in replicas:
        await eventually(lambda: len(replica.trust_bundle.der) == 2)  # noqa: B023 - waited for at once
    assert len({replica.trust_bundle.pem for replica in replicas}) == 1


async def test_a_ban_reaches_every_replica(backend: Backend) -> None:
    kek = new_kek()
    one, other = await backend.replica(kek), await backend.replica(kek)
    await one.ban(REVIEWS)
    await eventually(lambda: other.is_banned(REVIEWS))


async def test_T02_of_fifty_parallel_redemptions_one_succeeds(backend: Backend) -> None:
    stores = [backend.store() for _ in range(5)]
    token = await JoinTokens(stores[0], TRUST_DOMAIN).create(REVIEWS)
    redeeming = (
        JoinTokens(stores[number % 5], TRUST_DOMAIN).redeem(token.secret, address=f"10.0.0.{number}")
        for number in range(REDEMPTIONS)
    )
    done = await asyncio.gather(*redeeming, return_exceptions=True)
    redeemed = [each for each in done if isinstance(each, TokenRecord)]
    assert len(redeemed) == 1
    assert all(isinstance(each, CallerRefused) for each in done if not isinstance(each, TokenRecord))
    assert redeemed[0].identity == str(REVIEWS)
    assert [record.by for record in await JoinTokens(stores[0], TRUST_DOMAIN).list()] == [redeemed[0].by]


async def test_T02_nothing_brings_a_used_token_back(backend: Backend) -> None:
    """Neither a restart, nor a wipe, nor that it is forgotten."""
    store = backend.store()
    token = await JoinTokens(store, TRUST_DOMAIN).create(REVIEWS)
    await JoinTokens(store, TRUST_DOMAIN).redeem(token.secret)
    with pytest.raises(CallerRefused, match="used already"):
        await JoinTokens(backend.store(), TRUST_DOMAIN).redeem(token.secret)
    for entry in await store.scan("ca/tokens/"):
        await store.delete(entry.key)
    with pytest.raises(CallerRefused, match="no such join token"):
        await JoinTokens(store, TRUST_DOMAIN).redeem(token.secret)


async def test_T02_T10_the_store_holds_no_secret(backend: Backend) -> None:
    store = backend.store()
    await backend.replica(new_kek())
    token = await JoinTokens(store, TRUST_DOMAIN).create(REVIEWS)
    raw = b"".join(entry.key.encode() + entry.value for entry in await store.scan(""))
    assert token.id.encode() in raw  # the control: it is there, as a hash
    assert token.secret.encode() not in raw
    assert b"PRIVATE" not in raw


async def test_a_record_of_the_log_is_never_written_over(backend: Backend) -> None:
    authority = await backend.replica(new_kek())
    authority.issue(new_request()[0], REVIEWS, caller="test")
    await authority.log.flush()
    (entry,) = await backend.store().scan("ca/log/")
    with pytest.raises(Conflict):
        await backend.store().put(entry.key, b"forged", expect=0)
