"""The life of a process's certificate: first proof, renewal, outages, other workers, forks.  No network, and no real time."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from random import Random

import pytest

from meshlib.model.identity import TrustBundles
from meshlib.policy.backoff import Backoff
from meshlib.runtime.identity.material import Material
from meshlib.runtime.identity.storage import IdentityFolder
from meshlib.runtime.identity.workload import WorkloadIdentity
from tests.support.certificates import TrustDomain
from tests.support.issuing import Clock, FakeIssuer


class Rig:
    """One process after the other."""

    def __init__(self, folder: Path | None = None, *, life: float = 1000.0) -> None:
        self.clock = Clock()
        self.domain = TrustDomain()
        self.issuer = FakeIssuer(self.clock, self.domain, life=life)
        self.folder = folder

    def identity(self) -> WorkloadIdentity:
        folder = IdentityFolder(self.folder) if self.folder is not None else None
        backoff = Backoff(initial=1.0, cap=60.0, jitter=0.0)
        return WorkloadIdentity(self.issuer, folder=folder, clock=self.clock, rng=Random(1), backoff=backoff)

    def run(self, identity: WorkloadIdentity, seconds: float) -> None:
        """What its thread would do in that time."""
        until = self.clock.now + seconds
        for _ in range(10_000):
            pause = identity.advance()
            if self.clock.now + pause > until:
                self.clock.now = until
                return
            self.clock.advance(pause)
        raise AssertionError("it does not come to rest")


def current(identity: WorkloadIdentity) -> Material:
    assert identity.current is not None
    return identity.current


def test_a_credential_gives_the_first_certificate_and_that_one_the_next() -> None:
    rig = Rig()
    identity = rig.identity()
    assert (identity.current, identity.pending, identity.state) == (None, True, "no certificate yet")
    rig.run(identity, 0)
    first = current(identity)
    assert str(first.identity) == rig.domain.id("reviews")
    assert not identity.pending
    rig.run(identity, 440)
    assert current(identity) is first
    rig.run(identity, 120)
    assert rig.issuer.calls == ["enrol", "renew"]
    assert rig.issuer.renewed_by == [first]
    assert current(identity).key.public_der() != first.key.public_der()


def test_renewal_is_at_half_life_give_or_take_a_tenth_of_it() -> None:
    from meshlib.runtime.identity.plan import due

    moments = [due(0, 1000, Random(seed), now=0) for seed in range(500)]
    assert 450 <= min(moments) < 455
    assert 545 < max(moments) <= 550


def test_a_clock_that_is_wrong_causes_no_storm() -> None:
    """F27: ours is ahead by more than half of the life of what the CA gives out: one renewal after a tenth of a life."""
    rig = Rig()
    identity = rig.identity()
    rig.run(identity, 0)
    rig.clock.offset += 600
    rig.run(identity, 0)
    assert rig.issuer.calls == ["enrol", "renew"]
    rig.run(identity, 2000)
    assert len(rig.issuer.calls) <= 8


@pytest.mark.parametrize("jump", [25 * 3600, -25 * 3600, 600])
def test_F27_jumps_of_the_clock_are_noticed_within_a_minute(jump: float) -> None:
    rig = Rig(life=86_400)
    identity = rig.identity()
    rig.run(identity, 0)
    told: list[Material] = []
    identity.listen(told.append)
    rig.issuer.token = True
    rig.clock.offset += jump
    rig.run(identity, 60)
    assert len(rig.issuer.calls) == (2 if jump > 86_400 else 1)
    assert current(identity).not_after > rig.clock.wall()


def test_without_the_CA_the_certificate_is_used_to_its_end_and_no_further() -> None:
    """F23: and then the reason is named."""
    rig = Rig()
    identity = rig.identity()
    rig.run(identity, 0)
    first = current(identity)
    told: list[Material] = []
    identity.listen(told.append)
    rig.issuer.up = False
    rig.run(identity, 990)
    assert current(identity) is first
    assert "UNAVAILABLE" in identity.state
    assert told == []
    rig.run(identity, 20)
    assert "ended at" in identity.state
    assert "UNAVAILABLE" in identity.state
    assert told == [first]  # for connections that were made with it
    rig.issuer.up, rig.issuer.token = True, True
    rig.run(identity, 61)
    assert current(identity).not_after > rig.clock.wall()
    assert "UNAVAILABLE" not in identity.state


def test_attempts_grow_apart_and_come_to_rest_at_the_cap() -> None:
    rig = Rig()
    rig.issuer.up = False
    identity = rig.identity()
    rig.run(identity, 600)
    assert 12 <= len(rig.issuer.calls) <= 20
    assert "UNAVAILABLE" in identity.state
    assert not identity.pending


def test_a_certificate_that_is_no_proof_any_more_gives_way_to_a_credential() -> None:
    """Banned, or its last proof is too long ago; without a new credential the certificate is tried again."""
    rig = Rig()
    identity = rig.identity()
    rig.run(identity, 0)
    rig.issuer.banned = True
    rig.run(identity, 570)
    assert rig.issuer.calls[:3] == ["enrol", "renew", "enrol"]
    assert rig.issuer.calls.count("renew") > 1
    rig.issuer.token = True
    rig.run(identity, 61)
    assert current(identity).not_after > rig.clock.wall() + 900


def test_a_certificate_for_somebody_else_is_not_taken() -> None:
    rig = Rig()
    identity = rig.identity()
    rig.run(identity, 0)
    rig.issuer.account = "ratings"
    rig.run(identity, 600)
    assert str(current(identity).identity) == rig.domain.id("reviews")
    assert "sa/ratings" in identity.state


def test_roots_that_do_not_vouch_for_the_certificate_are_not_taken() -> None:
    rig = Rig()
    rig.domain.root = TrustDomain().root
    identity = rig.identity()
    rig.run(identity, 0)
    assert identity.current is None
    assert "own trust domain" in identity.state


def test_renew_now_does_so_at_once() -> None:
    rig = Rig()
    identity = rig.identity()
    rig.run(identity, 0)
    identity.renew_now()
    rig.run(identity, 0)
    assert rig.issuer.calls == ["enrol", "renew"]


def test_the_newest_roots_verify_the_control_service() -> None:
    rig = Rig()
    identity = rig.identity()
    rig.run(identity, 0)
    newest = TrustBundles({rig.domain.name: (rig.domain.root.der, b"another")})
    assert identity.trust == current(identity).roots
    identity.learn(newest)
    assert identity.trust is newest
    identity.renew_now()
    rig.run(identity, 0)
    assert rig.issuer.trusted == [newest]


def test_those_who_listen_hear_of_each_new_certificate() -> None:
    rig = Rig()
    identity = rig.identity()
    told: list[Material] = []
    stop = identity.listen(told.append)

    def fails(material: Material) -> None:
        raise ZeroDivisionError

    identity.listen(fails)
    rig.run(identity, 0)
    stop()
    identity.renew_now()
    rig.run(identity, 0)
    assert len(told) == 1


# --- the folder


def test_workers_share_one_proof_and_no_key(tmp_path: Path) -> None:
    """The token is redeemed once; each worker gets a certificate of its own with the first one's."""
    rig = Rig(tmp_path / "identity")
    workers = [rig.identity() for _ in range(3)]
    for worker in workers:
        rig.run(worker, 0)
    assert rig.issuer.calls == ["enrol", "renew", "renew"]
    assert len({current(worker).key.public_der() for worker in workers}) == 3


def test_the_next_start_needs_no_token(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "identity")
    rig.run(rig.identity(), 0)
    second = rig.identity()
    rig.run(second, 0)
    assert rig.issuer.calls == ["enrol", "renew"]
    assert second.current is not None


def test_a_start_while_the_CA_is_away_uses_what_was_kept(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "identity")
    first = rig.identity()
    rig.run(first, 0)
    rig.issuer.up = False
    second = rig.identity()
    rig.run(second, 0)
    assert current(second).chain == current(first).chain
    assert "identity_dir" in second.state
    rig.issuer.up = True
    rig.run(second, 61)
    assert current(second).chain != current(first).chain


def test_what_was_kept_and_has_ended_is_no_identity(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "identity")
    rig.run(rig.identity(), 0)
    rig.clock.advance(2000)
    second = rig.identity()
    rig.run(second, 0)
    assert second.current is None
    assert rig.issuer.calls == ["enrol", "enrol"]


def test_roots_that_came_meanwhile_are_known_to_the_next_start(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "identity")
    first = rig.identity()
    rig.run(first, 0)
    newest = TrustBundles({rig.domain.name: (rig.domain.root.der, TrustDomain().root.der)})
    first.learn(newest)
    rig.run(first, 0)
    kept = IdentityFolder(tmp_path / "identity").read()
    assert kept is not None
    assert kept.roots == newest


def test_only_the_user_can_read_what_is_kept(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "deep" / "identity")
    rig.run(rig.identity(), 0)
    folder = tmp_path / "deep" / "identity"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {"identity.json": 0o600, "lock": 0o600}


def test_a_folder_that_others_can_change_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    folder.mkdir()
    folder.chmod(0o777)
    rig = Rig(folder)
    identity = rig.identity()
    rig.run(identity, 0)
    assert identity.current is None
    assert "others may write there" in identity.state


def test_a_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "identity")
    rig.run(rig.identity(), 0)
    (tmp_path / "identity" / "identity.json").chmod(0o644)
    second = rig.identity()
    rig.run(second, 0)
    assert second.current is None
    assert "chmod 600" in second.state


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"chain": "", "key": "", "roots": {}}'])
def test_F36_a_file_that_cannot_be_understood_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    rig = Rig(tmp_path / "identity")
    rig.run(rig.identity(), 0)
    (tmp_path / "identity" / "identity.json").write_text(content)
    rig.issuer.token = True
    second = rig.identity()
    rig.run(second, 0)
    assert second.current is not None
    assert rig.issuer.calls == ["enrol", "enrol"]


# --- forks and secrets


def test_a_forked_child_gets_a_certificate_of_its_own_with_its_parents() -> None:
    rig = Rig()
    identity = rig.identity()
    rig.run(identity, 0)
    parents = current(identity)
    identity.forget()
    assert current(identity) is parents
    rig.run(identity, 0)
    assert rig.issuer.calls == ["enrol", "renew"]
    assert rig.issuer.renewed_by == [parents]
    assert current(identity).key.public_der() != parents.key.public_der()


def test_T17_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    rig = Rig()
    identity = rig.identity()
    rig.run(identity, 0)
    material = current(identity)
    secret = material.key.pem().decode().splitlines()[1]
    shown = f"{material!r} {material} {material.key!r} {identity!r} {identity.state} {caplog.text}"
    assert secret not in shown
    assert "redacted" in repr(material.key)
    for thing in (material.key, material):
        with pytest.raises(TypeError):
            pickle.dumps(thing)


def test_the_thread_starts_once_and_ends_with_close() -> None:
    rig = Rig()
    identity = rig.identity()
    identity.start()
    identity.start()
    assert identity.wait(30)
    assert identity.wait_settled(30)
    identity.close()
    assert rig.issuer.calls == ["enrol"]
