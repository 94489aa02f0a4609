"""The server's ADS session, delta and state-of-the-world, with hand-built requests."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from meshlib.xds.proto import core_pb2, discovery_pb2
from meshlib.xds.proto.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER
from meshlib_control.compile.node import Flavour
from meshlib_control.serve.dialects import DELTA, STATE_OF_THE_WORLD, BadRequest
from meshlib_control.serve.session import Session
from meshlib_control.serve.settling import Settling
from meshlib_control.serve.status import client_status
from tests.support.discovery import SHORT, Server, World, decode

NODE = core_pb2.Node(id="n")
ALL = World().having(CDS_a="1", CDS_b="1", EDS_a="x", EDS_b="y", LDS_l="1", RDS_r="1")


class DeltaPeer:
    """A delta client that does nothing by itself."""

    def __init__(self, server: Server, *, flavour: Flavour = "meshlib") -> None:
        self.server = server
        self.session: Session = server.open(DELTA, flavour=flavour)

    def ask(self, short: str, subscribe: str = "", unsubscribe: str = "", *, has: dict[str, str] | None = None) -> None:
        request = DeltaDiscoveryRequest(
            node=NODE,
            type_url=SHORT[short],
            resource_names_subscribe=subscribe.split(),
            resource_names_unsubscribe=unsubscribe.split(),
            initial_resource_versions=has or {},
        )
        self.session.receive(request.SerializeToString())

    def ack(self, response: DeltaDiscoveryResponse, *, error: str = "") -> None:
        request = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        if error:
            request.error_detail.message = error
        self.session.receive(request.SerializeToString())

    def read(self) -> list[DeltaDiscoveryResponse]:
        """Everything that the server has to say without hearing from us."""
        found = []
        while (data := self.session.next_response()) is not None:
            found.append(DeltaDiscoveryResponse.FromString(data))
        return found

    def settle(self) -> list[DeltaDiscoveryResponse]:
        """... and with us ACKing."""
        found: list[DeltaDiscoveryResponse] = []
        while batch := self.read():
            found += batch
            for response in batch:
                self.ack(response)
        return found


def short(response: DeltaDiscoveryResponse | DiscoveryResponse) -> str:
    return next(name for name, url in SHORT.items() if url == response.type_url)


def names(responses: Iterable[DeltaDiscoveryResponse]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for response in responses:
        found.setdefault(short(response), []).extend(resource.name for resource in response.resources)
    return {kind: sorted(items) for kind, items in found.items()}


def removed(responses: Iterable[DeltaDiscoveryResponse]) -> list[str]:
    return [f"{short(response)}_{name}" for response in responses for name in response.removed_resources]


def version(server: Server, kind: str, name: str) -> str:
    (scope,) = server.cache._scopes.values()
    packed = scope.get(SHORT[kind], name)
    assert packed is not None
    return packed.version


# --- delta


def test_the_first_request_must_say_who_asks() -> None:
    session = Server().open()
    with pytest.raises(BadRequest, match="node"):
        session.receive(DeltaDiscoveryRequest(type_url=CLUSTER).SerializeToString())


@pytest.mark.parametrize("data", [b"\xff\xff", DeltaDiscoveryRequest(node=NODE).SerializeToString()], ids=["noise", "no type"])
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        Server().open().receive(data)


def test_names_are_generated_when_asked_for_and_once_for_all_streams() -> None:
    server = Server(ALL)
    first, second = DeltaPeer(server), DeltaPeer(server)
    first.ask("CDS", "a")
    second.ask("CDS", "a")
    assert server.compiler.generated == [(CLUSTER, "a")]
    assert first.session.next_response() is not None


def test_each_version_is_packed_once() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("CDS", "a b")
    assert peer.session.resources is not None
    before = {name: peer.session.resources.get(CLUSTER, name) for name in "ab"}
    frames = {name: packed.delta_frame for name, packed in before.items() if packed}
    server.update(ALL.having(CDS_b="2"))
    after = {name: peer.session.resources.get(CLUSTER, name) for name in "ab"}
    assert after["a"] is before["a"]
    assert after["a"] is not None
    assert after["a"].delta_frame is frames["a"]
    assert after["b"] is not before["b"]


def test_unknown_names_are_reported_as_removed() -> None:
    peer = DeltaPeer(Server(ALL))
    peer.ask("CDS", "a nowhere")
    responses = peer.settle()
    assert names(responses) == {"CDS": ["a"]}
    assert removed(responses) == ["CDS_nowhere"]


def test_what_appears_later_is_sent_to_who_asked_before() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("CDS", "new")
    peer.settle()
    server.update(ALL.having(CDS_new="1"))
    assert names(peer.settle()) == {"CDS": ["new"]}


def test_order_is_clusters_endpoints_listeners_routes() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    for kind, name in (("RDS", "r"), ("LDS", "l"), ("EDS", "a"), ("CDS", "a")):
        peer.ask(kind, name)
    assert [short(response) for response in peer.settle()] == ["CDS", "EDS", "LDS", "RDS"]


def test_routes_wait_until_clusters_are_acked_and_endpoints_do_not() -> None:
    """Envoy ACKs clusters when they are warm, for which it needs their endpoints."""
    server = Server(ALL)
    peer = DeltaPeer(server)
    for kind, name in (("RDS", "r"), ("EDS", "a"), ("CDS", "a")):
        peer.ask(kind, name)
    clusters, endpoints = peer.read()
    assert (short(clusters), short(endpoints)) == ("CDS", "EDS")
    peer.ack(clusters)
    assert [short(response) for response in peer.read()] == ["RDS"]


def test_refused_clusters_do_not_stop_routes_for_ever() -> None:
    peer = DeltaPeer(Server(ALL))
    peer.ask("CDS", "a")
    peer.ask("RDS", "r")
    (clusters,) = peer.read()
    peer.ack(clusters, error="CDS a: no")
    assert [short(response) for response in peer.read()] == ["RDS"]


def test_a_cluster_goes_after_the_routes_that_named_it() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    for kind, name in (("CDS", "a b"), ("EDS", "a b"), ("RDS", "r")):
        peer.ask(kind, name)
    peer.settle()
    server.update(ALL.having(RDS_r="2", without=((CLUSTER, "b"), (ENDPOINTS, "b"))))
    (routes,) = peer.read()
    assert short(routes) == "RDS"
    peer.ack(routes)
    assert removed(peer.read()) == ["CDS_b", "EDS_b"]


def test_one_response_of_a_type_is_open_at_a_time() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("EDS", "a b")
    (first,) = peer.read()
    server.update(ALL.having(EDS_a="xx"))
    assert peer.read() == []
    peer.ack(first)
    assert names(peer.read()) == {"EDS": ["a"]}


def test_a_stale_nonce_acknowledges_nothing() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("EDS", "a")
    (first,) = peer.read()
    peer.ack(first)
    server.update(ALL.having(EDS_a="xx"))
    peer.read()
    peer.ack(first, error="too late")
    assert not peer.session.subscriptions[ENDPOINTS].is_settled
    assert not peer.session.subscriptions[ENDPOINTS].rejected


def test_an_update_of_what_nobody_holds_is_neither_generated_nor_sent() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("EDS", "a")
    peer.settle()
    server.compiler.generated.clear()
    server.update(ALL.having(EDS_b="changed"))
    assert server.compiler.generated == []
    assert peer.read() == []


def test_an_update_that_changes_no_bytes_sends_nothing() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("CDS", "a b")
    peer.settle()
    server.update(ALL.having(CDS_unrelated="1"))
    assert peer.read() == []


def test_versions_that_the_client_has_are_not_sent_again() -> None:
    server = Server(ALL)
    other = DeltaPeer(server)
    other.ask("CDS", "a b")
    peer = DeltaPeer(server)
    peer.ask("CDS", "a b", has={"a": version(server, "CDS", "a"), "b": "old"})
    assert names(peer.settle()) == {"CDS": ["b"]}


def test_unsubscribed_names_are_not_sent_and_not_kept() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("CDS", "a b")
    peer.settle()
    peer.ask("CDS", unsubscribe="a")
    server.update(ALL.having(CDS_a="2", CDS_b="2"))
    assert names(peer.settle()) == {"CDS": ["b"]}


def test_subscribing_again_sends_again() -> None:
    """The client may have dropped it (xDS protocol, "subscribing to resources")."""
    peer = DeltaPeer(Server(ALL))
    peer.ask("CDS", "a")
    peer.settle()
    peer.ask("CDS", "a")
    assert names(peer.settle()) == {"CDS": ["a"]}


def test_an_empty_first_request_means_everything() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("CDS")
    assert names(peer.settle()) == {"CDS": ["a", "b"]}
    server.update(ALL.having(CDS_c="1", without=((CLUSTER, "a"),)))
    responses = peer.settle()
    assert names(responses) == {"CDS": ["c"]}
    assert removed(responses) == ["CDS_a"]


def test_a_later_empty_request_means_nothing() -> None:
    peer = DeltaPeer(Server(ALL))
    peer.ask("CDS", "a")
    peer.settle()
    peer.ask("CDS")
    assert peer.settle() == []


def test_everything_is_answered_even_when_there_is_nothing() -> None:
    """Envoy waits for its first CDS and LDS responses before it serves."""
    peer = DeltaPeer(Server(World()))
    peer.ask("CDS")
    (response,) = peer.settle()
    assert (list(response.resources), list(response.removed_resources)) == ([], [])


def test_the_wildcard_can_be_left_and_names_kept() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("CDS", "* b")
    peer.settle()
    peer.ask("CDS", unsubscribe="*")
    server.update(ALL.having(CDS_a="2", CDS_b="2", CDS_c="2"))
    assert names(peer.settle()) == {"CDS": ["b"]}


def test_a_name_left_under_the_wildcard_is_told_of_once_more() -> None:
    """xDS protocol: the client cannot know whether "everything" still has it."""
    peer = DeltaPeer(Server(ALL))
    peer.ask("CDS", "* nowhere b")
    peer.settle()
    peer.ask("CDS", unsubscribe="nowhere b")
    responses = peer.settle()
    assert names(responses) == {"CDS": ["b"]}
    assert removed(responses) == ["CDS_nowhere"]


def test_a_wildcard_client_that_comes_back_is_told_what_is_gone() -> None:
    server = Server(ALL)
    DeltaPeer(server).ask("CDS", "a b")
    peer = DeltaPeer(server)
    peer.ask("CDS", has={"a": version(server, "CDS", "a"), "gone": "1"})
    responses = peer.settle()
    assert names(responses) == {"CDS": ["b"]}
    assert removed(responses) == ["CDS_gone"]


@pytest.mark.parametrize(("flavour", "expected"), [("envoy", {"CDS": ["a"], "EDS": ["a"]}), ("meshlib", {"CDS": ["a"]})])
def test_endpoints_of_a_changed_cluster_are_sent_again_to_envoy(flavour: Flavour, expected: dict[str, list[str]]) -> None:
    """Without them it warms the cluster for 15 s although they did not change."""
    server = Server(ALL)
    peer = DeltaPeer(server, flavour=flavour)
    peer.ask("CDS", "a b")
    peer.ask("EDS", "a b")
    peer.settle()
    server.update(ALL.having(CDS_a="2"))
    assert names(peer.settle()) == expected


def test_large_answers_come_in_parts() -> None:
    """grpcio clients refuse messages above 4 MB."""
    world = World({(CLUSTER, str(number)): "x" * 400_000 for number in range(20)})
    peer = DeltaPeer(Server(world))
    peer.ask("CDS", " ".join(str(number) for number in range(20)))
    parts = peer.settle()
    assert len(parts) > 1
    assert max(part.ByteSize() for part in parts) < 3_500_000
    assert len({resource.name for part in parts for resource in part.resources}) == 20


def test_a_nack_is_booked_on_the_resources_that_it_names() -> None:
    world = World({(CLUSTER, "reviews:80"): "1", (CLUSTER, "reviews:8080"): "1"})
    server = Server(world)
    peer = DeltaPeer(server)
    peer.ask("CDS", "reviews:80 reviews:8080")
    (response,) = peer.read()
    peer.ack(response, error="CDS reviews:8080: circuit_breakers: 7: expected none")
    subscription = peer.session.subscriptions[CLUSTER]
    assert list(subscription.rejected) == ["reviews:8080"]
    status = client_status(peer.session, address="ipv4:10.0.0.1:1", connected_since=1.0)
    assert status.types["CDS"].state == "NACK"
    assert "expected none" in status.types["CDS"].error
    server.update(world.with_text(CLUSTER, "reviews:8080", "2"))
    peer.settle()
    assert client_status(peer.session, address="", connected_since=1.0).types["CDS"].state == "SYNCED"


def test_a_closed_stream_leaves_nothing_behind() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("CDS", "* a")
    peer.ask("EDS", "a b")
    server.close(peer.session)
    server.update(ALL.having(CDS_a="2"))
    assert server.cache._scopes == {}


# --- state of the world


class SotwPeer:
    """A state-of-the-world client that does nothing by itself."""

    def __init__(self, server: Server, *, flavour: Flavour = "grpc") -> None:
        self.session: Session = server.open(STATE_OF_THE_WORLD, flavour=flavour)
        self.names: dict[str, list[str]] = {}

    def ask(self, kind: str, wanted: str = "", *, nonce: str = "", version: str = "", error: str = "") -> None:
        self.names[kind] = wanted.split()
        request = DiscoveryRequest(
            node=NODE, type_url=SHORT[kind], resource_names=self.names[kind], response_nonce=nonce, version_info=version
        )
        if error:
            request.error_detail.message = error
        self.session.receive(request.SerializeToString())

    def ack(self, response: DiscoveryResponse, *, error: str = "") -> None:
        kind = short(response)
        self.ask(kind, " ".join(self.names[kind]), nonce=response.nonce, version=response.version_info, error=error)

    def read(self) -> list[DiscoveryResponse]:
        found = []
        while (data := self.session.next_response()) is not None:
            found.append(DiscoveryResponse.FromString(data))
        return found

    def settle(self) -> list[DiscoveryResponse]:
        found: list[DiscoveryResponse] = []
        while batch := self.read():
            found += batch
            for response in batch:
                self.ack(response)
        return found


def contents(responses: Iterable[DiscoveryResponse]) -> list[str]:
    """One line a response: ``CDS a=1 b=1``."""
    lines = []
    for response in responses:
        decoded = sorted(f"{name}={text}" for name, text in (decode(one.type_url, one.value) for one in response.resources))
        lines.append(" ".join([short(response), *decoded]))
    return lines


def test_sotw_clusters_and_listeners_are_sent_whole() -> None:
    server = Server(ALL)
    peer = SotwPeer(server)
    peer.ask("CDS", "a b")
    assert contents(peer.settle()) == ["CDS a=1 b=1"]
    server.update(ALL.having(CDS_b="2"))
    assert contents(peer.settle()) == ["CDS a=1 b=2"]


def test_sotw_endpoints_and_routes_are_sent_as_they_change() -> None:
    server = Server(ALL)
    peer = SotwPeer(server)
    peer.ask("EDS", "a b")
    assert contents(peer.settle()) == ["EDS a=x b=y"]
    server.update(ALL.having(EDS_b="z"))
    assert contents(peer.settle()) == ["EDS b=z"]


def test_sotw_a_growing_subscription_is_answered_once_per_growth() -> None:
    """As grpcio does it: the names grow one at a time."""
    peer = SotwPeer(Server(ALL))
    peer.ask("CDS", "a")
    (first,) = peer.read()
    peer.ask("CDS", "a b", nonce=first.nonce, version=first.version_info)
    assert contents(peer.settle()) == ["CDS a=1 b=1"]


def test_sotw_an_ack_is_not_answered() -> None:
    peer = SotwPeer(Server(ALL))
    peer.ask("CDS", "a")
    assert len(peer.settle()) == 1


def test_sotw_names_in_a_late_ack_count_and_its_nonce_does_not() -> None:
    server = Server(ALL)
    peer = SotwPeer(server)
    peer.ask("EDS", "a")
    (first,) = peer.read()
    peer.ack(first)
    server.update(ALL.having(EDS_a="xx"))
    peer.read()
    peer.ask("EDS", "a b", nonce=first.nonce)
    assert not peer.session.subscriptions[ENDPOINTS].is_settled
    assert peer.session.subscriptions[ENDPOINTS].names == {"a", "b"}


def test_sotw_missing_clusters_are_missing_from_the_answer() -> None:
    peer = SotwPeer(Server(ALL))
    peer.ask("CDS", "nowhere")
    assert contents(peer.settle()) == ["CDS"]


def test_sotw_a_deleted_cluster_stays_until_the_routes_have_changed() -> None:
    server = Server(ALL)
    peer = SotwPeer(server)
    peer.ask("CDS", "a b")
    peer.ask("RDS", "r")
    peer.settle()
    server.update(ALL.having(RDS_r="2", without=((CLUSTER, "b"),), CDS_a="2"))
    assert contents(peer.settle()) == ["CDS a=2 b=1", "RDS r=2", "CDS a=2"]


def test_sotw_wildcard() -> None:
    server = Server(ALL)
    peer = SotwPeer(server, flavour="envoy")
    peer.ask("CDS")
    assert contents(peer.settle()) == ["CDS a=1 b=1"]
    server.update(ALL.having(CDS_c="1", without=((CLUSTER, "a"),)))
    assert contents(peer.settle()) == ["CDS b=1 c=1"]


def test_sotw_the_wildcard_ends_with_the_first_names() -> None:
    """xDS protocol, "how the client specifies what resources to return"."""
    server = Server(ALL)
    peer = SotwPeer(server)
    peer.ask("EDS", "*")
    peer.settle()
    peer.ask("EDS", "a", nonce=peer.session.subscriptions[ENDPOINTS].nonce)
    peer.settle()
    server.update(ALL.having(EDS_b="z"))
    assert peer.settle() == []
    peer.ask("EDS")
    server.update(ALL.having(EDS_a="z"))
    assert peer.settle() == []


def test_sotw_endpoints_follow_their_changed_cluster() -> None:
    server = Server(ALL)
    peer = SotwPeer(server, flavour="envoy")
    peer.ask("CDS")
    peer.ask("EDS", "a b")
    peer.settle()
    server.update(ALL.having(CDS_a="2"))
    assert contents(peer.settle()) == ["CDS a=2 b=1", "EDS a=x"]


def test_sotw_a_nack_keeps_the_acked_version() -> None:
    server = Server(ALL)
    peer = SotwPeer(server)
    peer.ask("CDS", "a")
    (good,) = peer.settle()
    server.update(ALL.having(CDS_a="bad"))
    (bad,) = peer.read()
    peer.ack(bad, error="CDS a: bad")
    subscription = peer.session.subscriptions[CLUSTER]
    assert subscription.acked == good.version_info
    assert subscription.rejected == {"a": "CDS a: bad"}


def test_sotw_versions_are_the_same_in_another_process() -> None:
    answers = []
    for _ in range(2):
        peer = SotwPeer(Server(ALL))
        peer.ask("CDS", "a b")
        answers.append(peer.settle()[0].version_info)
    assert answers[0] == answers[1] != ""


# --- scopes and settling


def test_a_client_that_changes_its_scope_is_sent_everything_of_the_new_one() -> None:
    server = Server(ALL)
    peer = DeltaPeer(server)
    peer.ask("CDS", "a")
    peer.settle()
    old = peer.session.resources
    assert old is not None
    other = DeltaPeer(server, flavour="envoy")
    other.ask("CDS", "a")
    assert other.session.resources is not None
    peer.session.move(other.session.resources)
    assert names(peer.settle()) == {"CDS": ["a"]}
    assert old.clients == 0


def test_endpoints_that_a_catalog_is_still_asked_for_are_waited_for() -> None:
    """ "None" would fail the very call that made the server ask."""
    server = Server(World(pending=frozenset({"a"})).having(EDS_a="", EDS_b=""))
    peer = DeltaPeer(server)
    peer.ask("EDS", "a b")
    assert names(peer.settle()) == {"EDS": ["b"]}
    server.update(World().having(EDS_a="x", EDS_b=""))
    assert names(peer.settle()) == {"EDS": ["a"]}


def test_a_listener_that_a_catalog_is_still_asked_for_is_waited_for() -> None:
    """ "There is none" would send the very call that made the server ask out of the mesh."""
    server = Server(World(pending=frozenset({"a", "gone"})))
    peer = DeltaPeer(server)
    peer.ask("LDS", "a b gone")
    (response,) = peer.settle()
    assert list(response.removed_resources) == ["b"]
    server.update(World().having(LDS_a="1"))
    (response,) = peer.settle()
    assert ([resource.name for resource in response.resources], list(response.removed_resources)) == (["a"], ["gone"])


def test_in_the_worlds_state_nothing_is_said_of_a_listener_that_a_catalog_is_still_asked_for() -> None:
    server = Server(World(pending=frozenset({"a"})))
    session = server.open(STATE_OF_THE_WORLD)
    session.receive(DiscoveryRequest(node=NODE, type_url=LISTENER, resource_names=["a"]).SerializeToString())
    assert session.next_response() is None
    server.update(World().having(LDS_a="1"))
    answer = session.next_response()
    assert answer is not None
    assert len(DiscoveryResponse.FromString(answer).resources) == 1


@pytest.mark.parametrize("empty", [World(), World().having(EDS_a="", CDS_a="1")], ids=["unknown", "without endpoints"])
def test_a_server_that_just_started_takes_nothing_from_clients(empty: World) -> None:
    """F03: restarted with nothing, the last good state of every client stays."""
    settling = Settling(0.0, period=10.0, empty=True)
    server = Server(empty, settling=settling)
    peer = DeltaPeer(server)
    peer.ask("EDS", "a", has={"a": "before"})
    assert peer.read() == []
    assert settling.suspicious_empty
    fresh = DeltaPeer(server)
    fresh.ask("EDS", "a")
    assert len(fresh.settle()) == 1  # who has nothing is told what there is


def test_real_content_is_sent_while_settling() -> None:
    settling = Settling(0.0, period=10.0, empty=True)
    server = Server(World(), settling=settling)
    peer = DeltaPeer(server)
    peer.ask("EDS", "a b", has={"a": "before", "b": "before"})
    settling.observe(1.0, empty=False)
    server.update(World().having(EDS_a="new"))
    assert names(peer.settle()) == {"EDS": ["a"]}
    assert not settling.suspicious_empty
    assert not settling.tick(10.5)
    assert settling.tick(11.0)
    peer.session.release()
    assert removed(peer.settle()) == ["EDS_b"]


def test_an_empty_world_never_ends_the_settling() -> None:
    settling = Settling(0.0, period=10.0, empty=True)
    settling.observe(5.0, empty=True)
    assert settling.ends_at is None
    assert not settling.tick(1000.0)


def test_settling_ends_by_itself_when_there_was_something_at_the_start() -> None:
    settling = Settling(0.0, period=10.0, empty=False)
    assert settling.ends_at == 10.0
    assert (settling.tick(9.9), settling.tick(10.0), settling.tick(11.0)) == (False, True, False)


def test_sotw_a_server_that_just_started_deletes_nothing() -> None:
    """Not even with its first content: what it leaves out may only not be known yet."""
    settling = Settling(0.0, period=10.0, empty=True)
    server = Server(World().having(CDS_passthrough="1"), settling=settling)
    peer = SotwPeer(server, flavour="envoy")
    peer.ask("CDS", version="before")
    peer.ask("LDS", "l", version="before")
    assert peer.read() == []
    settling.observe(1.0, empty=False)
    server.update(ALL.having(CDS_passthrough="1"))
    assert peer.settle() == []
    assert settling.tick(11.0)
    peer.session.release()
    assert contents(peer.settle()) == ["CDS a=1 b=1 passthrough=1", "LDS l=1"]


def test_sotw_a_new_client_of_an_empty_server_is_answered() -> None:
    peer = SotwPeer(Server(World(), settling=Settling(0.0, period=10.0, empty=True)), flavour="envoy")
    peer.ask("CDS")
    assert contents(peer.settle()) == ["CDS"]


def test_unused_types_are_taken_in_their_stride() -> None:
    """Envoy may ask for secrets or runtime layers; there are none."""
    session = Server(ALL).open()
    session.receive(
        discovery_pb2.DeltaDiscoveryRequest(
            node=NODE, type_url="type.googleapis.com/envoy.service.runtime.v3.Runtime", resource_names_subscribe=["x"]
        ).SerializeToString()
    )
    data = session.next_response()
    assert data is not None
    assert list(DeltaDiscoveryResponse.FromString(data).removed_resources) == ["x"]
