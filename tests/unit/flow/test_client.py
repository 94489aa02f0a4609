"""The client's flow, driven by hand: no sockets, no time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from meshlib import errors
from meshlib.flow.client import client_flow
from meshlib.flow.commands import EXPECTED_TIMEOUT, Attempt, Sleep
from meshlib.flow.destination import Destination
from meshlib.flow.record import CallRecord
from meshlib.flow.served import Served
from meshlib.flow.upstream import Upstream
from meshlib.model.call import Call, Overrides
from meshlib.model.cluster import CircuitBreakers, Cluster, Discovery
from meshlib.model.endpoint import Health
from meshlib.model.listener import PathNormalization
from meshlib.model.outcome import Outcome, Reset
from meshlib.model.route import DirectResponse, PathMatch, RetryPolicy, Route, RouteMatch
from meshlib.model.snapshot import ClusterConfig, Target
from meshlib.testing import DEFAULT_RETRY, service

START = 100.0
Answer = Callable[[Attempt, float], Outcome]


class Bench:
    """One destination, and a driver that writes down what the flow asks for."""

    def __init__(self, target: Target) -> None:
        self.rng = random.Random(1)
        self.upstreams = {}
        for name, config in target.clusters.items():
            self.upstreams[name] = Upstream(name)
            self.upstreams[name].update(config, self.rng)
        self.destination = Destination(target, self.upstreams)
        self.attempts: list[Attempt] = []
        self.pauses: list[float] = []
        self.record = CallRecord(target.authority, START)

    @property
    def upstream(self) -> Upstream:
        (only,) = self.upstreams.values()
        return only

    def drive(self, answer: Answer, **fields: Any) -> Served | None:
        method, path = fields.pop("method", "GET"), fields.pop("path", "/")
        made = Call(method, self.record.authority, path, (), started=START, **fields)
        flow = client_flow(made, self.destination, self.record, self.rng)
        now = START
        try:
            command = next(flow)
            while True:
                if isinstance(command, Sleep):
                    self.pauses.append(command.seconds)
                    now += command.seconds
                    command = flow.send(now)
                else:
                    assert isinstance(command, Attempt)
                    self.attempts.append(command)
                    now += 0.01
                    command = flow.send(answer(command, now))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            flow.close()

    def is_idle(self) -> bool:
        return all(
            upstream.active == 0 and upstream.active_retries == 0 and all(host.active == 0 for host in upstream.hosts.values())
            for upstream in self.upstreams.values()
        )


def ok(attempt: Attempt, now: float) -> Outcome:
    return Outcome(now, status=200)


def refused(attempt: Attempt, now: float) -> Outcome:
    return Outcome(now, reset=Reset.CONNECT_FAILURE, sent=False, error=OSError("refused"))


def lost(attempt: Attempt, now: float) -> Outcome:
    return Outcome(now, reset=Reset.CONNECTION_TERMINATION)


def unavailable(attempt: Attempt, now: float) -> Outcome:
    return Outcome(now, status=503)


def first(failure: Answer, times: int = 1) -> Answer:
    """`failure` for the first tries, then 200."""
    return lambda attempt, now: failure(attempt, now) if attempt.number <= times else ok(attempt, now)


THREE = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
FIVE_XX = replace(DEFAULT_RETRY, retry_on=frozenset({"5xx"}))


def by_path(normalization: PathNormalization = PathNormalization.BASE) -> Bench:
    routes = [
        Route("admin", RouteMatch(PathMatch("exact", "/admin")), DirectResponse(403)),
        Route("rest", RouteMatch(PathMatch("prefix", "/")), DirectResponse(200)),
    ]
    return Bench(replace(service("reviews", THREE, routes=routes), normalization=normalization))


@pytest.mark.parametrize("path", ["/admin?q", "/x/../admin", "/%61dmin", "/x/%2e%2E/admin", "/x\\..\\admin", "/./admin#x"])
def test_routes_see_the_canonical_path(path: str) -> None:
    bench = by_path()
    bench.drive(ok, path=path)
    assert bench.record.route == "admin"


@pytest.mark.parametrize(
    ("path", "mode", "route"),
    [
        ("/x/../admin", PathNormalization.NONE, "rest"),
        ("//admin", PathNormalization.BASE, "rest"),
        ("//admin", PathNormalization.MERGE_SLASHES, "admin"),
        ("/x%2F..%2Fadmin", PathNormalization.MERGE_SLASHES, "rest"),
        ("/x%2F..%2Fadmin", PathNormalization.DECODE_AND_MERGE_SLASHES, "admin"),
    ],
)
def test_canonical_is_what_the_mesh_says(path: str, mode: PathNormalization, route: str) -> None:
    bench = by_path(mode)
    bench.drive(ok, path=path)
    assert bench.record.route == route


def test_the_canonical_path_is_what_goes_on_the_wire() -> None:
    bench = Bench(service("reviews", THREE))
    call = Call("GET", "reviews:80", "/x/../a%41?b=%41", (), started=START)
    next(client_flow(call, bench.destination, bench.record, bench.rng))
    assert call.path == "/aA?b=%41"


def test_what_envoy_would_refuse_is_not_sent() -> None:
    with pytest.raises(errors.RequestError, match="%00"):
        by_path().drive(ok, path="/admin%00")


def test_options_of_the_whole_server_have_no_path_to_normalize() -> None:
    bench = Bench(service("reviews", THREE))
    bench.drive(ok, path="*", method="OPTIONS")
    assert len(bench.attempts) == 1


def test_a_call_takes_its_slots_and_its_response_gives_them_back() -> None:
    bench = Bench(service("reviews", THREE))
    served = bench.drive(ok)
    assert served is not None
    assert bench.upstream.active == 1
    assert sum(host.active for host in bench.upstream.hosts.values()) == 1
    assert served.lease is not None
    served.lease.release()
    served.lease.release()  # idempotent
    assert bench.is_idle()
    assert (bench.record.status, bench.record.attempts, bench.record.flags) == (200, 1, ())
    assert bench.record.cluster == "outbound|80||reviews"


def test_a_refused_connection_is_tried_elsewhere() -> None:
    bench = Bench(service("reviews", THREE))
    served = bench.drive(first(refused, times=2))
    assert served is not None
    assert len({attempt.host.key for attempt in bench.attempts}) == 3  # previous hosts are avoided
    assert bench.record.flags == ("UF",)
    assert [attempt.headers for attempt in bench.attempts] == [((b"x-envoy-attempt-count", b"%d" % n),) for n in (1, 2, 3)]


def test_when_retries_are_used_up_the_error_says_everything() -> None:
    bench = Bench(service("reviews", THREE))
    with pytest.raises(errors.ConnectFailed) as caught:
        bench.drive(refused)
    error = caught.value
    assert (error.attempts, error.flags, error.authority) == (3, ("UF", "URX"), "reviews:80")
    assert error.route == "default"
    assert error.endpoint == bench.attempts[-1].host.key
    assert isinstance(error.__cause__, OSError)
    assert bench.is_idle()


def test_the_last_response_is_passed_on_when_retries_are_used_up() -> None:
    bench = Bench(service("reviews", THREE, retry=FIVE_XX))
    served = bench.drive(unavailable)
    assert served is not None
    assert served.outcome.status == 503
    assert bench.record.flags == ("URX",)
    assert bench.record.attempts == 3


def test_a_post_that_may_have_arrived_is_never_repeated_by_the_default_policy() -> None:
    bench = Bench(service("reviews", THREE))
    with pytest.raises(errors.ConnectionTerminated):
        bench.drive(lost, method="POST")
    assert len(bench.attempts) == 1
    control = Bench(service("reviews", THREE))
    control.drive(first(lost), method="GET")
    assert len(control.attempts) == 2


def test_a_body_that_cannot_be_replayed_is_sent_once() -> None:
    bench = Bench(service("reviews", THREE, retry=FIVE_XX))
    served = bench.drive(unavailable, method="PUT", replayable=False)
    assert served is not None
    assert len(bench.attempts) == 1
    control = Bench(service("reviews", THREE))
    control.drive(first(refused), method="PUT", replayable=False)  # nothing of it was sent, so nothing is replayed
    assert len(control.attempts) == 2


def test_the_budget_holds_back_retries() -> None:
    bench = Bench(service("reviews", THREE, retry=FIVE_XX))
    bench.upstream.active_retries = 3
    served = bench.drive(unavailable)
    assert served is not None
    assert len(bench.attempts) == 1
    assert bench.record.flags == ("UO",)


def test_a_retry_holds_its_slot_until_it_is_decided() -> None:
    bench = Bench(service("reviews", THREE, retry=FIVE_XX))
    seen = []

    def answer(attempt: Attempt, now: float) -> Outcome:
        seen.append(bench.upstream.active_retries)
        return first(unavailable)(attempt, now)

    bench.drive(answer)
    assert seen == [0, 1]
    assert bench.upstream.active_retries == 0


def test_the_routes_timeout_covers_retries_and_is_told_to_the_callee() -> None:
    bench = Bench(service("reviews", THREE, timeout=0.5))
    bench.drive(first(refused))
    assert [attempt.deadline for attempt in bench.attempts] == [START + 0.5] * 2
    assert {attempt.deadline_name for attempt in bench.attempts} == {"route"}
    sent = [dict(attempt.headers)[EXPECTED_TIMEOUT] for attempt in bench.attempts]
    assert sent[0] == b"500"
    assert int(sent[1]) < 500


@pytest.mark.parametrize(
    ("route", "caller", "expected"), [(0.5, 0.2, "total"), (0.2, 0.5, "route"), (0.0, 0.5, "total"), (0.5, None, "route")]
)
def test_the_tighter_timeout_wins_and_is_named(route: float, caller: float | None, expected: str) -> None:
    bench = Bench(service("reviews", THREE, timeout=route))

    def late(attempt: Attempt, now: float) -> Outcome:
        assert attempt.deadline is not None
        return Outcome(attempt.deadline, reset=Reset.TIMEOUT, timeout=attempt.deadline_name)

    with pytest.raises(errors.TimeoutExceeded) as caught:
        bench.drive(late, deadline=None if caller is None else START + caller)
    assert caught.value.which == expected
    assert caught.value.flags == ("UT",)
    assert len(bench.attempts) == 1  # the whole call's time is never tried again


def test_a_try_has_a_timeout_of_its_own() -> None:
    policy = RetryPolicy(attempts=1, retry_on=frozenset({"5xx"}), per_try_timeout=0.1)
    bench = Bench(service("reviews", THREE, retry=policy, timeout=5.0))

    def late(attempt: Attempt, now: float) -> Outcome:
        assert attempt.deadline is not None
        return Outcome(attempt.deadline, reset=Reset.PER_TRY_TIMEOUT)

    with pytest.raises(errors.TimeoutExceeded) as caught:
        bench.drive(late)
    assert caught.value.which == "per_try"
    assert caught.value.flags == ("UT", "URX")
    assert [attempt.deadline_name for attempt in bench.attempts] == ["per_try", "per_try"]


def test_no_pause_goes_past_the_deadline() -> None:
    slow = replace(DEFAULT_RETRY, base_interval=10.0, max_interval=10.0)
    bench = Bench(service("reviews", THREE, retry=slow, timeout=0.02))
    with pytest.raises(errors.ConnectFailed):
        bench.drive(refused)
    assert bench.pauses == []


def test_no_endpoint() -> None:
    bench = Bench(service("reviews", []))
    with pytest.raises(errors.NoHealthyUpstream, match="it has none") as caught:
        bench.drive(ok)
    assert caught.value.flag == "UH"
    assert bench.is_idle()


def test_endpoints_that_cannot_be_used_are_counted_by_why() -> None:
    bench = Bench(service("reviews", THREE))
    first_, second, third = bench.upstream.hosts.values()
    first_.ejected = second.failed_check = True
    third.endpoint = replace(third.endpoint, health=Health.DRAINING)
    bench.upstream.health_changed(bench.rng, 0.0)
    wanted = "1 ejected by outlier detection, 1 failed its health checks, 1 draining; see `meshctl endpoints`"
    with pytest.raises(errors.NoHealthyUpstream, match=wanted):
        bench.drive(ok)


def test_no_route() -> None:
    bench = Bench(service("reviews", THREE, routes=()))
    with pytest.raises(errors.RouteNotFound) as caught:
        bench.drive(ok, path="/x")
    assert caught.value.flag == "NR"


def test_an_unusable_cluster_says_why() -> None:
    target = service("reviews", THREE)
    broken = replace(target, clusters={name: ClusterConfig(name, error="it does not exist") for name in target.clusters})
    with pytest.raises(errors.ClusterNotFound, match="it does not exist"):
        Bench(broken).drive(ok)


def test_the_request_limit() -> None:
    bench = Bench(service("reviews", THREE, breakers=CircuitBreakers(max_requests=1)))
    served = bench.drive(ok)
    assert served is not None
    with pytest.raises(errors.Overflow, match=r"1 requests to .*http2MaxRequests"):
        bench.drive(ok)
    assert served.lease is not None
    served.lease.release()
    assert bench.drive(ok) is not None


def test_a_direct_response_needs_no_upstream() -> None:
    route = Route("teapot", RouteMatch(PathMatch("prefix", "/")), DirectResponse(418, b"short and stout"))
    bench = Bench(service("reviews", THREE, routes=[route]))
    served = bench.drive(ok)
    assert served is not None
    assert (served.outcome.status, served.body, served.lease) == (418, b"short and stout", None)
    assert bench.attempts == []


def test_a_passthrough_cluster_belongs_to_the_callers_own_transport() -> None:
    target = service("reviews", [])
    name = next(iter(target.clusters))
    target = replace(target, clusters={name: ClusterConfig(name, Cluster(name, discovery=Discovery.PASSTHROUGH))})
    bench = Bench(target)
    assert bench.drive(ok) is None
    assert bench.is_idle()


def test_giving_up_in_the_middle_gives_the_slots_back() -> None:
    bench = Bench(service("reviews", THREE))
    flow = client_flow(Call("GET", "reviews:80", "/", (), started=START), bench.destination, bench.record, bench.rng)
    assert isinstance(next(flow), Attempt)
    assert bench.upstream.active == 1
    flow.close()
    assert bench.is_idle()


def test_a_call_can_forbid_retries_or_ask_for_more() -> None:
    none = Bench(service("reviews", THREE))
    with pytest.raises(errors.ConnectFailed):
        none.drive(refused, overrides=Overrides(retries=0))
    assert len(none.attempts) == 1
    more = Bench(service("reviews", THREE, retry=None))
    served = more.drive(first(unavailable, times=4), overrides=Overrides(retries=4, retry_on=frozenset({"5xx"})))
    assert served is not None
    assert served.outcome.status == 200
    assert len(more.attempts) == 5


def test_when_the_request_being_served_is_a_retry_ours_do_not_multiply_it() -> None:
    bench = Bench(service("reviews", THREE, retry=FIVE_XX))
    bench.drive(unavailable, inherited_attempt=2)
    assert len(bench.attempts) == 1
    control = Bench(service("reviews", THREE, retry=FIVE_XX))
    control.drive(unavailable, inherited_attempt=1)
    assert len(control.attempts) == 3


def test_with_everything_failing_amplification_stays_near_the_budget() -> None:
    """F22 in miniature: 100 calls at once, each failing; Istio's default would make 300 attempts of them."""
    bench = Bench(service("reviews", THREE, retry=FIVE_XX))
    flows = []
    for _ in range(100):
        record = CallRecord("reviews:80", START)
        flow = client_flow(Call("GET", "reviews:80", "/", (), started=START), bench.destination, record, bench.rng)
        flows.append((flow, next(flow)))
    attempts = 100
    while flows:
        flow, command = flows.pop(0)
        try:
            reply = START if isinstance(command, Sleep) else Outcome(START, status=503)
            following = flow.send(reply)
        except StopIteration as stop:
            stop.value.lease.release()
            continue
        attempts += isinstance(following, Attempt)
        flows.append((flow, following))
    assert attempts <= 125
    assert bench.is_idle()


def test_hosts_keep_their_counts_when_endpoints_change() -> None:
    target = service("reviews", THREE)
    bench = Bench(target)
    served = bench.drive(ok)
    assert served is not None
    busy = bench.attempts[0].host
    changed = service("reviews", [busy.key, "10.0.0.9:80"])
    (config,) = changed.clusters.values()
    gone = bench.upstream.update(config, bench.rng)
    assert len(gone) == 2
    assert bench.upstream.hosts[busy.key] is busy
    assert busy.active == 1
