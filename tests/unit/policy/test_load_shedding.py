"""Which requests are refused first, and who may say that his are not to be."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.identity import Peer, SpiffeId
from meshlib.model.inbound import Connection, Inspection, Refusal, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.model.resilience import (
    AdaptiveConcurrency,
    Callers,
    LoadShedding,
    PriorityMatch,
    PriorityRule,
)
from meshlib.model.route import HeaderMatch, PathMatch, RouteMatch, StringMatch
from meshlib.policy.canonical import canonicalize
from meshlib.policy.load_shedding import SHARES, Entered, LoadShedder
from meshlib.policy.priority import claimed_urgency, compile_urgency

RNG = Random(1)


def inspected(
    path: bytes = b"/", *, priority: bytes = b"", account: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Inspection:
    given = ((b"host", b"reviews"), *headers, *(((b"priority", priority),) if priority else ()))
    peer = Peer(SpiffeId.of_workload("cluster.local", *account.split("/"))) if account else None
    found = canonicalize(ServerRequest("GET", path, given, connection=Connection(peer=peer)), PathNormalization.BASE, 0)
    assert not isinstance(found, Refusal)
    return found


@pytest.mark.parametrize(
    ("values", "urgency"),
    [
        ([b"u=0"], 0),
        ([b"u=5, i"], 5),
        ([b"i, u=2"], 2),
        ([b"u=1", b"u=6"], 6),
        ([b"u=3;x=1"], 3),
        ([b"u=8"], None),
        ([b"u=-1"], None),
        ([b"u=12"], None),
        ([b"u"], None),
        ([b"U=1"], None),
        ([b"i"], None),
        ([b""], None),
        ([b"xu=1"], None),
        ([b"u=?1"], None),
    ],
)
def test_the_priority_header(values: list[bytes], urgency: int | None) -> None:
    """RFC 9218: the parameter u, 0 to 7; what is no such number is as if it were not there."""
    assert claimed_urgency(values) == urgency


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_no_header_breaks_the_parser(values: list[bytes]) -> None:
    found = claimed_urgency(values)
    assert found is None or 0 <= found <= 7


def test_without_rules_anybody_may_be_less_urgent_and_nobody_more() -> None:
    urgency = compile_urgency(LoadShedding())
    assert urgency(inspected()) == 3
    assert urgency(inspected(priority=b"u=6")) == 6
    assert urgency(inspected(priority=b"u=0")) == 3
    assert urgency(inspected(priority=b"u=0", account="default/web")) == 3


def test_trusted_callers_may_claim_more() -> None:
    trusted = Callers(principals=(StringMatch("exact", "cluster.local/ns/default/sa/gateway"),))
    urgency = compile_urgency(LoadShedding(trusted=trusted))
    assert urgency(inspected(priority=b"u=0", account="default/gateway")) == 0
    assert urgency(inspected(priority=b"u=0", account="default/web")) == 3
    assert urgency(inspected(priority=b"u=0")) == 3


def test_a_claim_of_who_one_is_counts_for_nothing() -> None:
    trusted = Callers(namespaces=(StringMatch("exact", "default"),))
    urgency = compile_urgency(LoadShedding(trusted=trusted))
    header = (b"x-forwarded-client-cert", b"URI=spiffe://cluster.local/ns/default/sa/gateway")
    assert urgency(inspected(priority=b"u=0", headers=(header,))) == 3
    assert urgency(inspected(priority=b"u=0", account="default/gateway")) == 0


RULES = LoadShedding(
    priorities=(
        PriorityRule(0, (PriorityMatch(RouteMatch(PathMatch("prefix", "/checkout"))),)),
        PriorityRule(6, (PriorityMatch(RouteMatch(PathMatch("prefix", "/reports"))),)),
        PriorityRule(
            1,
            (
                PriorityMatch(
                    RouteMatch(PathMatch("prefix", "/"), headers=(HeaderMatch("x-tier", StringMatch("exact", "gold")),)),
                    Callers(namespaces=(StringMatch("exact", "shop"),)),
                ),
            ),
        ),
    )
)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (inspected(b"/checkout/7"), 0),
        (inspected(b"/%63heckout/7"), 0),
        (inspected(b"/checkout/7", priority=b"u=4"), 4),
        (inspected(b"/reports/all"), 6),
        (inspected(b"/reports/all", priority=b"u=0"), 6),
        (inspected(b"/other"), 3),
        (inspected(b"/other", headers=((b"x-tier", b"gold"),)), 3),
        (inspected(b"/other", headers=((b"x-tier", b"gold"),), account="web/web"), 3),
        (inspected(b"/other", headers=((b"x-tier", b"gold"),), account="shop/web"), 1),
        (inspected(b"/other", account="shop/web"), 3),
    ],
)
def test_the_first_rule_that_matches_decides(request_: Inspection, expected: int) -> None:
    assert compile_urgency(RULES)(request_) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"//checkout/7", 3), (b"/%2Fcheckout/7", 3), (b"//reports/all", 6), (b"/%2Freports/all", 6)],
)
def test_another_spelling_of_a_path_gains_nothing(path: bytes, expected: int) -> None:
    """A rule that raises needs all readings of a path, one that lowers any of them."""
    assert compile_urgency(RULES)(inspected(path)) == expected


def filled(shedder: LoadShedder, urgency: int) -> int:
    """How many requests of an urgency come in until the first is refused."""
    count = 0
    while shedder.enter(urgency, 1.0) is not None:
        count += 1
    return count


@pytest.mark.parametrize("urgency", range(8))
def test_every_urgency_has_its_share_of_the_limit(urgency: int) -> None:
    shedder = LoadShedder()
    shedder.apply(LoadShedding(max_concurrency=100), None)
    assert filled(shedder, urgency) == pytest.approx(100 * SHARES[urgency])
    assert shedder.shed[urgency] == 1


def test_the_less_urgent_are_refused_first_and_the_most_urgent_last() -> None:
    shedder = LoadShedder()
    shedder.apply(LoadShedding(max_concurrency=20), None)
    assert filled(shedder, 3) == 18
    assert shedder.enter(7, 1.0) is None
    assert shedder.enter(3, 1.0) is None
    assert filled(shedder, 0) == 2
    assert shedder.enter(0, 1.0) is None


@given(st.integers(1, 200), st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=300))
def test_places_are_never_lost_nor_exceeded(limit: int, steps: list[tuple[bool, int]]) -> None:
    shedder = LoadShedder()
    shedder.apply(LoadShedding(max_concurrency=limit), None)
    inside: list[Entered] = []
    for begins, urgency in steps:
        if begins:
            entered = shedder.enter(urgency, 1.0)
            if entered is not None:
                inside.append(entered)
        elif inside:
            shedder.leave(inside.pop(), 2.0, RNG)
        assert shedder.active == len(inside) <= limit
    for entered in inside:
        shedder.leave(entered, 2.0, RNG)
    assert shedder.active == 0
    assert shedder.enter(7, 3.0) is not None


def test_the_smaller_of_the_two_limits_holds() -> None:
    shedder = LoadShedder()
    shedder.apply(LoadShedding(max_concurrency=4), AdaptiveConcurrency())
    assert shedder.limit == 4
    shedder.apply(LoadShedding(), AdaptiveConcurrency())
    assert shedder.limit == 10


def test_what_is_under_way_survives_another_policy() -> None:
    shedder = LoadShedder()
    shedder.apply(LoadShedding(max_concurrency=10), AdaptiveConcurrency())
    entered = shedder.enter(0, 1.0)
    assert entered is not None
    shedder.apply(LoadShedding(max_concurrency=1), AdaptiveConcurrency(buffer=50.0))
    assert shedder.enter(0, 1.0) is None
    shedder.leave(entered, 2.0, RNG)
    assert shedder.active == 0
    assert shedder.controller is not None
    assert shedder.controller.active == 0


def test_an_overload_is_over_when_nothing_was_refused_for_a_while() -> None:
    shedder = LoadShedder()
    shedder.apply(LoadShedding(max_concurrency=1), None)
    entered = shedder.enter(0, 1.0)
    assert entered is not None
    assert shedder.enter(0, 1.5) is None
    assert shedder.shedding == 1.5
    assert not shedder.recovered(3.0)
    assert shedder.recovered(7.0)
    assert not shedder.recovered(8.0)
