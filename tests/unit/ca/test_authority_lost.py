"""What the authority does when its store forgets, goes back in time, cannot be written, or was tampered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshlib_control.ca import state
from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.errors import AuthorityLost, IssuingStopped
from meshlib_control.ca.model import CaSettings
from meshlib_control.errors import StoreError
from meshlib_control.store.memory import MemoryStore
from meshlib_control.store.model import Entry
from tests.support.authority import REVIEWS, TRUST_DOMAIN, new_kek, new_request, running_authority
from tests.support.polling import eventually

CSR, _ = new_request()


class UnreliableStore(MemoryStore):
    """Refuses to be written, or to do anything, while told to."""

    def __init__(self) -> None:
        super().__init__()
        self.read_only = False

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        if self.read_only:
            raise StoreError("no leader")
        return await super().put(key, value, expect=expect)


class ForgetfulStore(MemoryStore):
    """Writes, and loses the answer, when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.losing = False

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int:
        revision = await super().put(key, value, expect=expect)
        if self.losing:
            self.losing = False
            raise StoreError("connection reset")
        return revision


async def wipe(store: MemoryStore, *, but: tuple[str, ...] = ()) -> None:
    for entry in await store.scan(""):
        if entry.key not in but:
            await store.delete(entry.key)


async def copied(store: MemoryStore) -> list[Entry]:
    return await store.scan("")


async def put_back(store: MemoryStore, entries: list[Entry]) -> None:
    await wipe(store)
    for entry in entries:
        await store.put(entry.key, entry.value)


@pytest.mark.parametrize("evidence", ["witness", "marker", "log"])
async def test_F11_no_second_root_is_made_while_there_is_evidence_of_a_first(tmp_path: Path, evidence: str) -> None:
    store, kek = MemoryStore(), new_kek()
    settings = CaSettings(TRUST_DOMAIN, witness=tmp_path / "witness" if evidence == "witness" else None)
    async with running_authority(store, kek, settings) as authority:
        authority.issue(CSR, REVIEWS, caller="test")
    kept = [entry.key for entry in await store.scan("ca/log/")] if evidence == "log" else []
    await wipe(store, but=(state.MARKER,) if evidence == "marker" else tuple(kept))
    for _ in range(2):
        with pytest.raises(AuthorityLost, match=r"gone from the store.*Restore the store from a backup"):
            await CertificateAuthority(store, kek, settings).start()
    assert await store.get(state.STATE) is None
    await wipe(store)
    (tmp_path / "witness").unlink(missing_ok=True)
    async with running_authority(store, kek, settings) as authority:  # the control: with no evidence, one is made
        assert authority.status().issuing


async def test_F11_a_wipe_under_a_running_replica_stops_issuing_and_keeps_trust() -> None:
    store = MemoryStore()
    async with running_authority(store) as authority:
        bundle = authority.trust_bundle
        await wipe(store)
        await eventually(lambda: not authority.status().issuing)
        with pytest.raises(IssuingStopped, match="gone from the store"):
            authority.issue(CSR, REVIEWS, caller="test")
        assert authority.trust_bundle == bundle
        assert await store.get(state.STATE) is None
        assert any("gone from the store" in problem for problem in authority.status().problems)
        status = await authority.restore()
        assert status.issuing
        assert not status.problems
        assert authority.issue(CSR, REVIEWS, caller="test").roots_pem == bundle.pem


async def test_F11_the_authority_of_somebody_else_is_not_taken_over() -> None:
    """The store was wiped, and a replica that knew of nothing made a new root."""
    store, kek = MemoryStore(), new_kek()
    async with running_authority(store, kek) as authority:
        ours = authority.trust_bundle
        await wipe(store)
        await eventually(lambda: not authority.status().issuing)
        async with running_authority(store, kek) as stranger:
            await eventually(lambda: any("exchanged" in problem for problem in authority.status().problems))
            assert not authority.status().issuing
            assert authority.trust_bundle == ours != stranger.trust_bundle


async def test_T12_an_old_backup_is_noticed(tmp_path: Path) -> None:
    """The same root: issuing goes on, with an alarm, and no serial comes twice."""
    store, kek = MemoryStore(), new_kek()
    settings = CaSettings(TRUST_DOMAIN, witness=tmp_path / "witness")
    async with running_authority(store, kek, settings) as authority:
        first = authority.issue(CSR, REVIEWS, caller="test")
        await authority.log.flush()
        old = await copied(store)
        await authority.prepare()
    await put_back(store, old)
    async with running_authority(store, kek, settings) as authority:
        assert any("gone back from epoch 2 to 1" in problem for problem in authority.status().problems)
        assert authority.issue(CSR, REVIEWS, caller="test").serial != first.serial


async def test_T12_a_backup_with_a_revoked_root_is_not_used(tmp_path: Path) -> None:
    store, kek = MemoryStore(), new_kek()
    settings = CaSettings(TRUST_DOMAIN, witness=tmp_path / "witness")
    async with running_authority(store, kek, settings) as authority:
        old = await copied(store)
        await authority.prepare()
        await authority.activate()
        await authority.taint()
        await authority.revoke()
        new = await copied(store)
        await put_back(store, old)
        await eventually(lambda: not authority.status().issuing)
    with pytest.raises(AuthorityLost, match="restored from an old backup"):
        await CertificateAuthority(store, kek, settings).start()
    await put_back(store, new)
    async with running_authority(store, kek, settings) as authority:
        assert authority.status().issuing


async def test_a_witness_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "witness").write_text("{")
    with pytest.raises(AuthorityLost, match="witness"):
        await CertificateAuthority(MemoryStore(), new_kek(), CaSettings(TRUST_DOMAIN, witness=tmp_path / "witness")).start()


async def test_a_witness_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    async with running_authority(settings=CaSettings(TRUST_DOMAIN, witness=tmp_path / "file" / "witness")) as authority:
        assert authority.status().issuing
    assert "cannot be written" in caplog.text


async def test_F10_issuing_goes_on_while_the_store_cannot_be_written() -> None:
    store = UnreliableStore()
    async with running_authority(store, settings=CaSettings(TRUST_DOMAIN, log_limit=5)) as authority:
        store.read_only = True
        for _ in range(5):
            authority.issue(CSR, REVIEWS, caller="test")
        with pytest.raises(StoreError):
            await authority.log.flush()
        assert authority.status().unlogged == 5
        # Beyond what the queue holds nothing is issued: there is no certificate that cannot be accounted for.
        with pytest.raises(IssuingStopped, match="log"):
            authority.issue(CSR, REVIEWS, caller="test")
        assert not authority.status().issuing
        store.read_only = False
        await authority.log.flush()
        assert authority.status().unlogged == 0
        assert authority.issue(CSR, REVIEWS, caller="test")
        assert len(await authority.log.records()) == 5


async def test_a_lost_answer_to_a_step_is_no_failure() -> None:
    store = ForgetfulStore()
    async with running_authority(store) as authority:
        for step in (authority.prepare, authority.activate, authority.taint, authority.revoke):
            store.losing = True
            await step()
        assert [str(each.phase) for each in authority.status().authorities] == ["active"]
        assert authority.status().epoch == 5


async def test_a_lost_answer_to_the_creation_is_no_failure() -> None:
    store = ForgetfulStore()
    store.losing = True
    with pytest.raises(StoreError, match="connection reset"):
        await CertificateAuthority(store, kek := new_kek(), CaSettings(TRUST_DOMAIN)).start()
    async with running_authority(store, kek) as authority:
        assert authority.status().issuing


async def test_a_state_that_was_tampered_with_stops_issuing() -> None:
    store = MemoryStore()
    async with running_authority(store) as authority:
        entry = await store.get(state.STATE)
        assert entry is not None
        content = json.loads(entry.value)
        content["state"]["authorities"][0]["since"] = 1.0
        await store.put(state.STATE, json.dumps(content).encode())
        await eventually(lambda: not authority.status().issuing)
        assert any("is not what was stored" in problem for problem in authority.status().problems)
        await store.put(state.STATE, entry.value)
        await eventually(lambda: authority.status().issuing)
