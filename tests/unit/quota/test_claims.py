"""Claims of replicas on one bucket."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from meshlib_control.quota.claims import FRESH, Claim, Claims, Sightings, Wish, decoded, encoded, settled
from meshlib_control.quota.ledger import MARGIN, TTL

OVER = FRESH + TTL + 10.0 + 2 * MARGIN


def test_a_replica_alone_claims_all() -> None:
    claims, *_ = settled("b", {}, "me", Wish(0.1, 0.0, 10.0), Sightings(), 0.0)
    assert claims["me"].share == pytest.approx(1.0)


def test_a_second_one_gets_what_the_first_gives_back() -> None:
    """Half of it, once the first has nothing out by it any more, and has seen that the second one lives."""
    one, two = Sightings(), Sightings()
    claims = {"one": Claim(1.0, 1.0, 1, 10.0)}
    claims, *_ = settled("b", claims, "two", Wish(1.0, 0.0, 10.0), two, 0.0)
    assert claims["two"].share == 0.0
    claims, *_ = settled("b", claims, "one", Wish(1.0, 1.0, 10.0), one, 1.0)
    assert claims["one"].share == 1.0
    claims["two"] = replace(claims["two"], beat=1)
    claims, *_ = settled("b", claims, "one", Wish(1.0, 0.8, 10.0), one, 2.0)
    assert claims["one"].share == pytest.approx(0.8)
    claims, *_ = settled("b", claims, "one", Wish(1.0, 0.5, 10.0), one, 3.0)
    claims, *_ = settled("b", claims, "two", Wish(1.0, 0.0, 10.0), two, 3.0)
    assert [claims["one"].share, claims["two"].share] == pytest.approx([0.5, 0.5])


def test_a_silent_replica_holds_its_claim_until_its_leases_are_over() -> None:
    sightings = Sightings()
    before = {"dead": Claim(0.7, 0.7, 5, 10.0)}
    wish = Wish(1.0, 0.0, 10.0)
    assert settled("b", before, "me", wish, sightings, 0.0)[0]["me"].share == pytest.approx(0.3)
    assert settled("b", before, "me", wish, sightings, OVER - 0.1)[0]["me"].share == pytest.approx(0.3)
    after, *_ = settled("b", before, "me", wish, sightings, OVER + 0.1)
    assert list(after) == ["me"]
    assert after["me"].share == pytest.approx(1.0)


def test_a_beat_keeps_a_claim_alive() -> None:
    sightings = Sightings()
    for beat in range(10):
        before = {"other": Claim(0.7, 0.7, beat, 10.0)}
        after, *_ = settled("b", before, "me", Wish(1.0, 0.0, 10.0), sightings, beat * OVER)
        assert after["me"].share == pytest.approx(0.3)


def test_shares_that_processes_bring_along_come_out_of_the_claim_of_who_gave_them() -> None:
    """After a restart: nobody has to wait until the claim of before is over."""
    before = {"dead": Claim(1.0, 1.0, 5, 10.0)}
    after, moved, _ = settled("b", before, "me", Wish(1.0, 0.0, 10.0, moved=0.4), Sightings(), 0.0)
    assert moved == pytest.approx(0.4)
    assert [after["dead"].share, after["me"].share] == pytest.approx([0.6, 0.4])
    _, moved, _ = settled("b", {}, "me", Wish(1.0, 0.0, 10.0, moved=0.4), Sightings(), 0.0)
    assert moved == 0.0  # nobody has given that


def test_claims_are_read_as_they_were_written() -> None:
    claims = Claims({"a": {"me": Claim(0.25, 0.5, 7, 60.0)}})
    assert decoded(encoded(claims)) == claims
