"""Both ADS sessions wired back to back: whatever is interleaved or lost, the client ends with what the server has."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.xds.session import Status
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE
from tests.support.discovery import ConnectionPair, Server, World

NAMES = ("a", "b", "c")
TYPES = {"LDS": LISTENER, "RDS": ROUTE, "CDS": CLUSTER, "EDS": ENDPOINTS}


def test_what_is_asked_for_comes() -> None:
    pair = ConnectionPair(Server(World().having(CDS_a="1", EDS_a="xy", CDS_b="2")))
    pair.want(CDS="a", EDS="a")
    pair.connect()
    pair.run()
    assert pair.texts("CDS") == {"a": "1"}
    assert pair.texts("EDS") == {"a": "xy"}


def test_a_reconnect_to_a_restarted_server_transfers_only_what_changed() -> None:
    """F02: versions are hashes of the content, so they mean the same to another process."""
    world = World().having(CDS_a="1", CDS_b="2", EDS_a="x", EDS_b="y", LDS_a="l", RDS_a="r")
    pair = ConnectionPair(Server(world))
    pair.want(CDS="a b", EDS="a b", LDS="a", RDS="a")
    pair.connect()
    pair.run()
    pair.disconnect()
    pair.server = Server(world.having(EDS_b="z"))
    pair.connect()
    (news,) = pair.run()
    assert [resource.name for resource in news.resources] == ["b"]
    assert news.type_url == ENDPOINTS
    assert pair.texts("EDS") == {"a": "x", "b": "z"}


def test_a_refused_resource_stays_and_its_repair_arrives() -> None:
    world = World().having(CDS_a="1", CDS_b="1")
    pair = ConnectionPair(Server(world))
    pair.want(CDS="a b")
    pair.connect()
    pair.run()
    pair.server.update(world.having(CDS_a="bad", CDS_b="2"))
    pair.run()
    assert pair.texts("CDS") == {"a": "1", "b": "2"}
    assert pair.stream is not None
    assert "something good" in pair.stream.subscriptions[CLUSTER].rejected["a"]
    assert "b" not in pair.stream.subscriptions[CLUSTER].rejected
    pair.server.update(world.having(CDS_a="3", CDS_b="2"))
    pair.run()
    assert pair.texts("CDS") == {"a": "3", "b": "2"}
    assert not pair.stream.subscriptions[CLUSTER].rejected


def test_a_slow_client_gets_the_latest_state_and_nothing_in_between() -> None:
    world = World().having(EDS_a="0")
    pair = ConnectionPair(Server(world))
    pair.want(EDS="a")
    pair.connect()
    pair.run()
    for version in "12345":
        pair.server.update(world.having(EDS_a=version))
        pair.server_step()  # the first one is written, the others find it un-ACKed
    received = pair.run()
    assert len(received) == 2
    assert pair.texts("EDS") == {"a": "5"}


operations = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(sorted(TYPES)), st.sampled_from(NAMES), st.sampled_from(["1", "2", "bad"])),
        st.tuples(st.just("delete"), st.sampled_from(sorted(TYPES)), st.sampled_from(NAMES), st.just("")),
        st.tuples(
            st.just("want"), st.sampled_from(sorted(TYPES)), st.sampled_from(["", "a", "b", "a b", "a b c"]), st.just("")
        ),
        st.tuples(st.sampled_from(["server", "client", "lose", "restart"]), st.just(""), st.just(""), st.just("")),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(operations)
def test_random_interleavings_converge(steps: list[tuple[str, str, str, str]]) -> None:
    """Updates, subscriptions, single deliveries, lost streams and server restarts in any order."""
    world = World().having(CDS_a="1", EDS_a="1")
    pair = ConnectionPair(Server(world))
    wanted: dict[str, str] = {"CDS": "a"}
    pair.want(**wanted)
    pair.connect()
    for action, short, name, text in steps:
        match action:
            case "set":
                world = world.with_text(TYPES[short], name, text)
                pair.server.update(world)
            case "delete":
                world = world.having(without=((TYPES[short], name),))
                pair.server.update(world)
            case "want":
                wanted[short] = name
                pair.want(**wanted)
            case "server":
                pair.server_step()
            case "client":
                pair.client_step()
            case "lose":
                pair.disconnect()
                pair.connect()
            case "restart":
                pair.disconnect()
                pair.server = Server(world)
                pair.connect()
    pair.run()
    check_converged(pair, world, wanted)


def check_converged(pair: ConnectionPair, world: World, wanted: dict[str, str]) -> None:
    assert set(pair.client.states) == {(TYPES[short], name) for short, names in wanted.items() for name in names.split()}
    for key, state in pair.client.states.items():
        text = world.resources.get(key)
        if text is None:
            assert state.status is Status.DOES_NOT_EXIST
        elif text == "bad":
            assert state.status is Status.NACKED
        else:
            assert (state.status, state.value) == (Status.ACKED, text)
    assert pair.stream is not None
    for subscription in pair.stream.subscriptions.values():
        assert subscription.is_settled
    assert pair.client.next_timer() is None
