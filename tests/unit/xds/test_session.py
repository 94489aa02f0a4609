"""The client's ADS session against hand-built responses: one rule of the protocol or of gRFC A57/A88 a test."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from meshlib.model.endpoint import Locality
from meshlib.model.workload import Workload
from meshlib.xds import wire
from meshlib.xds.proto.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource
from meshlib.xds.session import DOES_NOT_EXIST_AFTER, ProtocolViolation, ResourceState, Session, Status
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, pack
from tests.support.discovery import decode, message

WORKLOAD = Workload(
    service="reviews",
    namespace="shop",
    service_account="reviewer",
    labels={"version": "v1"},
    locality=Locality("eu", "a"),
    instance="reviews-1",
)


def session() -> Session:
    return Session(WORKLOAD, decode)


def resource(name: str, text: str, *, type_url: str = CLUSTER, version: str = "") -> Resource:
    return Resource(name=name, version=version or f"v-{text}", resource=pack(message(type_url, name, text)))


def response(*resources: Resource, nonce: str = "n1", type_url: str = CLUSTER, removed: tuple[str, ...] = ()) -> bytes:
    return DeltaDiscoveryResponse(
        type_url=type_url, nonce=nonce, resources=resources, removed_resources=removed
    ).SerializeToString()


def requests(sent: list[bytes]) -> list[DeltaDiscoveryRequest]:
    return [DeltaDiscoveryRequest.FromString(data) for data in sent]


def only(sent: list[bytes]) -> DeltaDiscoveryRequest:
    (request,) = requests(sent)
    return request


def connected(*names: str) -> Session:
    """A session on a stream, subscribed to clusters."""
    client = session()
    client.want({CLUSTER: frozenset(names)}, 0.0)
    client.connected(0.0)
    return client


def state(client: Session, name: str, type_url: str = CLUSTER) -> ResourceState:
    return client.states[type_url, name]


def test_nothing_is_sent_before_there_is_a_stream() -> None:
    client = session()
    assert client.want({CLUSTER: {"a"}}, 0.0) == []
    assert state(client, "a").status is Status.REQUESTED


def test_the_first_request_of_a_stream_says_who_asks_and_no_later_one_does() -> None:
    client = session()
    client.want({CLUSTER: {"a"}, LISTENER: {"l"}}, 0.0)
    first, second = requests(client.connected(0.0))
    assert first.node.id == "reviews-1"
    assert first.node.user_agent_name == "meshlib"
    assert first.node.locality.zone == "a"
    metadata = dict(first.node.metadata)
    assert metadata["NAMESPACE"] == "shop"
    assert metadata["SERVICE"] == "reviews"
    assert metadata["SERVICE_ACCOUNT"] == "reviewer"
    assert metadata["LABELS"] == {"version": "v1"}
    assert not second.HasField("node")
    client.disconnected(1.0, "gone")
    assert requests(client.connected(2.0))[0].HasField("node")


def test_later_wishes_are_differences() -> None:
    client = connected("a", "b")
    request = only(client.want({CLUSTER: {"b", "c"}}, 1.0))
    assert list(request.resource_names_subscribe) == ["c"]
    assert list(request.resource_names_unsubscribe) == ["a"]
    assert request.response_nonce == ""
    assert (CLUSTER, "a") not in client.states


def test_a_wish_that_changes_nothing_sends_nothing() -> None:
    client = connected("a")
    assert client.want({CLUSTER: {"a"}}, 1.0) == []


def test_an_empty_type_is_not_asked_for_since_that_would_mean_everything() -> None:
    client = session()
    client.want({CLUSTER: {"a"}, ENDPOINTS: frozenset()}, 0.0)
    assert [request.type_url for request in requests(client.connected(0.0))] == [CLUSTER]


def test_a_type_left_out_of_the_wish_is_unsubscribed() -> None:
    client = connected("a")
    request = only(client.want({}, 1.0))
    assert list(request.resource_names_unsubscribe) == ["a"]


def test_a_good_response_is_applied_and_acked() -> None:
    client = connected("a", "b")
    request = only(client.receive(response(resource("a", "1"), resource("b", "2")), 3.0))
    assert (request.type_url, request.response_nonce) == (CLUSTER, "n1")
    assert not request.HasField("error_detail")
    assert state(client, "a") == ResourceState(Status.ACKED, "1", "v-1", "", 3.0)
    assert state(client, "b").value == "2"


def test_of_a_partly_bad_response_the_good_part_is_applied() -> None:
    """gRFC A46 and A88; F08: 99 of 100 are applied, one keeps its old value, and the NACK names it and the reason."""
    names = [f"c{number}" for number in range(100)]
    client = connected(*names)
    client.receive(response(*(resource(name, "old") for name in names)), 1.0)
    mixed = [resource(name, "bad" if name == "c7" else "new") for name in names]
    request = only(client.receive(response(*mixed, nonce="n2"), 2.0))
    assert request.response_nonce == "n2"
    assert request.error_detail.code == 3
    assert "CDS c7" in request.error_detail.message
    assert "expected something good" in request.error_detail.message
    assert "c8" not in request.error_detail.message
    assert {state(client, name).value for name in names if name != "c7"} == {"new"}
    refused = state(client, "c7")
    assert (refused.status, refused.value, refused.version) == (Status.NACKED, "old", "v-old")
    assert "something good" in refused.error


def test_a_resource_that_was_never_good_is_refused_without_a_value() -> None:
    client = connected("a")
    client.receive(response(resource("a", "bad")), 1.0)
    assert (state(client, "a").status, state(client, "a").value) == (Status.NACKED, None)


def test_a_bug_of_the_decoder_costs_one_resource_not_the_stream() -> None:
    client = connected("a", "b")
    request = only(client.receive(response(resource("a", "bug"), resource("b", "1")), 1.0))
    assert "ZeroDivisionError" in request.error_detail.message
    assert state(client, "b").value == "1"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Resource(name="a", version="1", resource=pack(message(CLUSTER, "other", "1"))), "'other'"),
        (Resource(name="a", version="1", resource=pack(message(LISTENER, "a", "1"))), "Listener"),
        (Resource(name="a", version="1"), "resource.type_url"),
    ],
    ids=["named differently inside", "of another type", "without a body"],
)
def test_a_body_that_does_not_fit_is_refused(wrong: Resource, reason: str) -> None:
    client = connected("a")
    request = only(client.receive(response(wrong), 1.0))
    assert reason in request.error_detail.message
    assert state(client, "a").status is Status.NACKED


def test_the_same_name_twice_in_a_response_is_refused() -> None:
    client = connected("a")
    request = only(client.receive(response(resource("a", "1"), resource("a", "2")), 1.0))
    assert "once in a response" in request.error_detail.message


def test_what_was_not_asked_for_is_ignored() -> None:
    client = connected("a")
    request = only(client.receive(response(resource("b", "1"), removed=("c",)), 1.0))
    assert not request.HasField("error_detail")
    assert list(client.states) == [(CLUSTER, "a")]


def test_a_type_that_was_not_asked_for_is_refused() -> None:
    client = connected("a")
    request = only(client.receive(response(type_url=LISTENER), 1.0))
    assert "not asked for" in request.error_detail.message


def test_an_unchanged_version_is_not_decoded_again() -> None:
    """Envoy needs assignments repeated after their cluster; for us, and for heartbeats without a body, it is no news."""
    client = connected("a")
    client.receive(response(resource("a", "1")), 1.0)
    before, revision = state(client, "a"), client.revision
    client.receive(response(Resource(name="a", version="v-1"), nonce="n2"), 2.0)
    assert state(client, "a") is before
    assert client.revision == revision


def test_a_deleted_resource_keeps_its_last_value() -> None:
    """gRFC A88: DOES_NOT_EXIST is recorded, and what is cached goes on being used."""
    client = connected("a")
    client.receive(response(resource("a", "1")), 1.0)
    request = only(client.receive(response(nonce="n2", removed=("a",)), 2.0))
    assert not request.HasField("error_detail")
    assert (state(client, "a").status, state(client, "a").value) == (Status.DOES_NOT_EXIST, "1")
    assert "does not exist" in state(client, "a").error


def test_removal_of_what_was_never_there_says_at_once_that_it_does_not_exist() -> None:
    client = connected("a")
    client.receive(response(removed=("a",)), 1.0)
    assert (state(client, "a").status, state(client, "a").value) == (Status.DOES_NOT_EXIST, None)
    assert client.next_timer() is None


def test_loss_of_the_stream_keeps_everything_and_says_why() -> None:
    client = connected("a")
    client.receive(response(resource("a", "1")), 1.0)
    client.disconnected(2.0, "UNAVAILABLE: connection reset")
    assert state(client, "a").status is Status.ACKED
    assert client.ambient_error == "UNAVAILABLE: connection reset"
    client.connected(3.0)
    assert client.ambient_error
    client.receive(response(), 4.0)
    assert client.ambient_error == ""


def test_a_new_stream_is_told_what_is_cached() -> None:
    """Only what is good: a refused or deleted resource must come again, whatever the server has now."""
    client = connected("good", "refused", "deleted", "never")
    client.receive(response(resource("good", "1"), resource("refused", "1"), resource("deleted", "1")), 1.0)
    client.receive(response(resource("refused", "bad"), removed=("deleted",), nonce="n2"), 2.0)
    client.disconnected(3.0, "gone")
    request = only(client.connected(4.0))
    assert dict(request.initial_resource_versions) == {"good": "v-1"}
    assert list(request.resource_names_subscribe) == ["deleted", "good", "never", "refused"]
    assert request.response_nonce == ""


def test_versions_are_only_in_the_first_request_of_a_type() -> None:
    client = connected("a")
    client.receive(response(resource("a", "1")), 1.0)
    assert not only(client.want({CLUSTER: {"a", "b"}}, 2.0)).initial_resource_versions


def test_the_timer_starts_when_the_request_went_out() -> None:
    """gRFC A57: time without a stream does not count."""
    client = session()
    client.want({CLUSTER: {"a"}}, 0.0)
    assert client.next_timer() is None
    client.connected(100.0)
    assert client.next_timer() == 100.0 + DOES_NOT_EXIST_AFTER
    client.want({CLUSTER: {"a", "b"}}, 103.0)
    client.tick(115.0)
    assert state(client, "a").status is Status.TIMEOUT
    assert "15 s" in state(client, "a").error
    assert state(client, "b").status is Status.REQUESTED
    assert client.next_timer() == 118.0


def test_the_timer_starts_again_with_the_next_stream() -> None:
    client = connected("a")
    client.disconnected(10.0, "gone")
    client.tick(20.0)
    assert state(client, "a").status is Status.REQUESTED
    client.connected(20.0)
    assert client.next_timer() == 35.0


@pytest.mark.parametrize("answer", [response(resource("a", "1")), response(resource("a", "bad")), response(removed=("a",))])
def test_any_answer_ends_the_timer(answer: bytes) -> None:
    client = connected("a")
    client.receive(answer, 1.0)
    assert client.next_timer() is None


def test_no_timer_runs_for_what_is_cached() -> None:
    client = connected("a")
    client.receive(response(resource("a", "1")), 1.0)
    client.disconnected(2.0, "gone")
    client.connected(3.0)
    assert client.next_timer() is None


def test_what_timed_out_may_still_come() -> None:
    client = connected("a")
    client.tick(15.0)
    client.receive(response(resource("a", "1")), 20.0)
    assert state(client, "a").status is Status.ACKED


def test_a_stream_without_a_response_is_told_from_one_with() -> None:
    """gRFC A57: only the end of a stream that answered is not an error."""
    client = connected("a")
    client.receive(response(), 1.0)
    client.disconnected(2.0, "gone")
    after_loss = client.answered
    client.connected(3.0)
    assert (after_loss, client.answered) == (True, False)


@pytest.mark.parametrize("garbage", [b"\xff" * 20, response(resource("a", "1"))[:-3]], ids=["noise", "cut short"])
def test_bytes_that_are_no_response_change_nothing(garbage: bytes) -> None:
    client = connected("a")
    client.receive(response(resource("a", "1")), 1.0)
    before = dict(client.states)
    with pytest.raises(ProtocolViolation):
        client.receive(garbage, 2.0)
    assert client.states == before


def test_a_response_above_the_cap_is_not_even_parsed() -> None:
    client = Session(WORKLOAD, decode, max_response=400)
    client.want({CLUSTER: {"a"}}, 0.0)
    client.connected(0.0)
    with pytest.raises(ProtocolViolation, match="at most 400"):
        client.receive(response(resource("a", "x" * 400)), 1.0)
    client.receive(response(resource("a", "1")), 1.0)
    assert state(client, "a").value == "1"


def test_a_nack_is_bounded() -> None:
    names = [f"{'n' * 200}{number}" for number in range(200)]
    client = connected(*names)
    request = only(client.receive(response(*(resource(name, "bad") for name in names)), 1.0))
    assert len(request.error_detail.message) <= 8192


def test_revision_tells_whether_to_look_again() -> None:
    client = connected("a")
    seen = [client.revision]
    client.receive(response(resource("a", "1")), 1.0)
    seen.append(client.revision)
    client.receive(response(resource("a", "bad"), nonce="n2"), 2.0)
    seen.append(client.revision)
    client.want({}, 3.0)
    seen.append(client.revision)
    assert seen == sorted(set(seen))


def test_the_view_of_the_states_cannot_be_written() -> None:
    assert not hasattr(session().states, "__setitem__")
    assert isinstance(session().states, Mapping)


def test_hand_built_messages_are_what_protobuf_would_write() -> None:
    entry = resource("a", "1", type_url=ENDPOINTS)
    packed = wire.packed_any(entry.resource.type_url, entry.resource.value)
    frames = [wire.delta_frame(entry.name, entry.version, packed)] * 2
    data = wire.delta_response(ENDPOINTS, "n" * 200, frames=frames, removed=["x", "y"], version="7")
    expected = DeltaDiscoveryResponse(
        system_version_info="7", resources=[entry, entry], type_url=ENDPOINTS, nonce="n" * 200, removed_resources=["x", "y"]
    )
    assert DeltaDiscoveryResponse.FromString(data) == expected
