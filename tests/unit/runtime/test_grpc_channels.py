"""Which of an endpoint's channels takes a call, and when the others end; what the end of a try means."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest

from meshlib.flow.commands import Attempt
from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Endpoint
from meshlib.model.outcome import Reset
from meshlib.policy.balancing import Host
from meshlib.runtime.grpc_channels import MAX_METHODS, Channels, Opened, opening, outside, tls_of
from meshlib.runtime.grpc_client import outcome_of
from meshlib.runtime.grpc_proof import Proof
from meshlib.runtime.http.connector import Lifetime
from meshlib.wire.errors import NoIdentity

TLS = UpstreamTls(identities=frozenset({"spiffe://td1/ns/default/sa/greeter"}))
NOW = 100.0


class FakeChannel:
    """Counts what is made from it."""

    def __init__(self) -> None:
        self.made: list[tuple[object, ...]] = []

    def unary_unary(self, *arguments: object) -> tuple[object, ...]:
        self.made.append(arguments)
        return arguments


class Lab:
    def __init__(self) -> None:
        self.closed: list[FakeChannel] = []
        self.channels = Channels(self.closed.append)

    def opened(self, certificate: bytes = b"one", *, generation: int = 1, at: float = NOW, ends: float = math.inf) -> Opened:
        return Opened(FakeChannel(), TLS, Proof(certificate, "greeter", Lifetime(ends, generation), at))


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_one_channel_takes_all_calls(lab: Lab) -> None:
    assert lab.channels.take(TLS, 1) is None
    first = lab.channels.put(lab.opened())
    assert lab.channels.take(UpstreamTls(identities=TLS.identities), 1) is first
    assert first.active == 2


@pytest.mark.parametrize(
    "wanted", [(UpstreamTls(), 1), (None, 1), (TLS, 2)], ids=["other identities", "plaintext", "a newer certificate of ours"]
)
def test_a_change_needs_another_channel(lab: Lab, wanted: tuple[UpstreamTls | None, int]) -> None:
    lab.channels.put(lab.opened())
    assert lab.channels.take(*wanted) is None


def test_a_channel_ends_with_the_certificates_behind_it(lab: Lab) -> None:
    lab.channels.put(lab.opened(ends=-1.0))
    assert lab.channels.take(TLS, 1) is None


def test_the_one_before_carries_its_calls_to_their_end(lab: Lab) -> None:
    before = lab.channels.put(lab.opened())
    after = lab.channels.put(lab.opened(b"two", generation=2))
    assert lab.closed == []
    lab.channels.release(before)
    assert lab.closed == [before.channel]
    lab.channels.release(after)
    assert lab.closed == [before.channel]


def test_idle_channels_close_when_something_changes(lab: Lab) -> None:
    opened = lab.channels.put(lab.opened())
    lab.channels.release(opened)
    lab.channels.sweep(1)
    assert lab.closed == []
    lab.channels.sweep(2)
    assert lab.closed == [opened.channel]


def test_a_stream_wants_a_certificate_that_was_seen_lately(lab: Lab) -> None:
    opened = lab.channels.put(lab.opened())
    assert lab.channels.take(TLS, 1, proved_since=NOW + 1) is None
    again = Proof(b"one", "greeter", opened.lifetime, NOW + 2)
    assert lab.channels.confirm(again, TLS, 1) is opened
    assert lab.channels.take(TLS, 1, proved_since=NOW + 1) is opened
    assert lab.channels.confirm(Proof(b"two", "greeter", opened.lifetime, NOW + 2), TLS, 1) is None


def test_what_did_not_connect_is_not_used_again(lab: Lab) -> None:
    opened = lab.channels.put(lab.opened())
    lab.channels.distrust(opened)
    assert lab.channels.take(TLS, 1) is None
    lab.channels.distrust(opened)  # by another call
    lab.channels.release(opened)
    assert lab.closed == [opened.channel]


def test_calls_that_were_balanced_before_the_end_open_one_for_themselves(lab: Lab) -> None:
    lab.channels.drain()
    opened = lab.channels.put(lab.opened())
    assert lab.channels.take(TLS, 1) is None
    lab.channels.release(opened)
    assert lab.closed == [opened.channel]


def test_methods_are_made_once_but_not_without_end() -> None:
    opened = Opened(channel := FakeChannel(), None, None)
    assert opened.method("unary_unary", "/a/b", str, int) is opened.method("unary_unary", "/a/b", str, int)
    assert len(channel.made) == 1
    for number in range(MAX_METHODS + 1):
        opened.method("unary_unary", f"/a/{number}", None, None)
    assert len(opened.methods) <= MAX_METHODS


# --- how a channel is opened


def test_who_is_at_the_other_end_is_not_the_callers_to_say() -> None:
    endpoint, cluster = Endpoint("10.0.0.7", 9080), Cluster("c", connect_timeout=0.25)
    wanted = opening(endpoint, cluster, "ratings:9080", (cast("Any", object()), "ratings.default.td1"))
    assert dict(wanted.binding) == {
        "grpc.ssl_target_name_override": "ratings.default.td1", "grpc.default_authority": "ratings",
    }  # fmt: skip
    assert dict(wanted.options)["grpc.min_reconnect_backoff_ms"] == 250
    assert opening(endpoint, cluster, "ratings:9080", None).binding == ()


def test_an_endpoint_is_encrypted_if_its_cluster_says_so() -> None:
    plain, mesh = Endpoint("10.0.0.7", 80), Endpoint("10.0.0.7", 80, mtls=True)
    assert tls_of(Cluster("c", tls=TLS, auto_mtls=True), plain) is None
    assert tls_of(Cluster("c", tls=TLS, auto_mtls=True), mesh) is TLS
    assert tls_of(Cluster("c", tls=TLS), plain) is TLS


@pytest.mark.parametrize(
    "tls",
    [
        UpstreamTls(mesh=False, verify=False, sni="a.test"),
        UpstreamTls(mesh=False, dns_names=("a", "b")),
        UpstreamTls(mesh=False),
    ],
)
def test_tls_that_grpc_cannot_do_is_refused(tls: UpstreamTls) -> None:
    with pytest.raises(NoIdentity, match="verifies one name"):
        outside(tls, Endpoint("10.0.0.7", 443))
    assert outside(UpstreamTls(mesh=False, sni="a.test"), Endpoint("10.0.0.7", 443))[1] == "a.test"


# --- what the end of a try means


def attempt(address: str = "10.0.0.7", *, deadline: float | None = None, name: str = "total") -> Attempt:
    return Attempt(Host(Endpoint(address, 9080)), Cluster("c"), 1, deadline, cast("Any", name), ())


REFUSED = "failed to connect to all addresses; last error: UNKNOWN: {}: Failed to connect to remote host: Connection refused"


@pytest.mark.parametrize(
    ("details", "address", "sent"),
    [
        (REFUSED.format("ipv4:10.0.0.7:9080"), "10.0.0.7", False),
        (REFUSED.format("ipv6:%5B::1%5D:9080"), "::1", False),
        (REFUSED.format("ipv4:10.0.0.8:9080"), "10.0.0.7", True),  # passed on from a call of the server's own
        (REFUSED.format("ipv4:10.0.0.7:90801"), "10.0.0.7", True),
        ("Socket closed", "10.0.0.7", True),
        ("", "10.0.0.7", True),
    ],
)
def test_what_was_never_sent(details: str, address: str, sent: bool) -> None:
    outcome = outcome_of((14,), details, None, attempt(address), NOW)
    assert outcome.sent is sent
    assert (outcome.reset is Reset.CONNECT_FAILURE) is not sent


@pytest.mark.parametrize(
    ("deadline", "name", "reset"),
    [(NOW, "total", Reset.TIMEOUT), (NOW, "per_try", Reset.PER_TRY_TIMEOUT), (NOW + 5, "total", None), (None, "total", None)],
)
def test_whose_deadline_it_was(deadline: float | None, name: str, reset: Reset | None) -> None:
    """DEADLINE_EXCEEDED long before our own is the server's."""
    outcome = outcome_of((4,), "Deadline Exceeded", None, attempt(deadline=deadline, name=name), NOW)
    assert outcome.reset is reset
    assert outcome.status == (0 if reset else 200)


def test_other_statuses_are_responses() -> None:
    outcome = outcome_of((8,), "slow down", None, attempt(), NOW)
    assert (outcome.status, outcome.headers, outcome.complete) == (200, ((b"grpc-status", b"8"),), True)
