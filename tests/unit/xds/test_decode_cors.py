"""The CORS filter and mirrors of routes: what is not understood is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshlib.model.cors import Cors, CorsPolicy
from meshlib.model.listener import InboundListener
from meshlib.model.route import Forward, Mirror, RouteConfig, StringMatch
from meshlib.xds.decode import decode
from meshlib.xds.invalid import ResourceInvalid
from meshlib.xds.proto import listener_pb2, route_pb2
from meshlib.xds.types import LISTENER, ROUTE, pack

CORS = "envoy.filters.http.cors"


def manager() -> listener_pb2.HttpConnectionManager:
    made = listener_pb2.HttpConnectionManager(stat_prefix="inbound")
    made.http_filters.add(name=CORS).typed_config.CopyFrom(pack(route_pb2.Cors()))
    made.http_filters.add(name="envoy.filters.http.router").typed_config.CopyFrom(pack(listener_pb2.Router()))
    made.normalize_path.value = True
    host = made.route_config.virtual_hosts.add(name="inbound", domains=["*"])
    route = host.routes.add(name="api", match=route_pb2.RouteMatch(prefix="/api"))
    route.non_forwarding_action.SetInParent()
    route.typed_per_filter_config[CORS].CopyFrom(pack(policy()))
    host.routes.add(name="default", match=route_pb2.RouteMatch(prefix="/")).non_forwarding_action.SetInParent()
    return made


def policy() -> route_pb2.CorsPolicy:
    made = route_pb2.CorsPolicy(allow_methods="GET", max_age="10")
    made.allow_origin_string_match.add(prefix="https://a.")
    made.filter_enabled.default_value.numerator = 100
    made.allow_credentials.value = True
    made.forward_not_matching_preflights.value = False
    return made


def listener(made: listener_pb2.HttpConnectionManager) -> InboundListener:
    result = listener_pb2.Listener(name="xds.istio.io/grpc/lds/inbound/0.0.0.0:80")
    result.address.socket_address.address = "0.0.0.0"
    result.address.socket_address.port_value = 80
    chain = result.filter_chains.add(name="raw_buffer")
    chain.filter_chain_match.transport_protocol = "raw_buffer"
    chain.filters.add(name="http").typed_config.CopyFrom(pack(made))
    _, found = decode(LISTENER, result.SerializeToString())
    assert isinstance(found, InboundListener)
    return found


def test_policies_come_with_the_routes_that_they_are_for() -> None:
    (found,) = listener(manager()).filters
    assert isinstance(found, Cors)
    (route,) = found.routes
    assert route.match.path.value == "/api"
    assert route.policy == CorsPolicy(
        origins=(StringMatch("prefix", "https://a."),),
        methods="GET",
        max_age="10",
        credentials=True,
        forwards_unmatched=False,
    )


def test_a_policy_that_is_switched_off_is_none() -> None:
    made = manager()
    off = policy()
    off.filter_enabled.default_value.numerator = 0
    made.route_config.virtual_hosts[0].routes[0].typed_per_filter_config[CORS].CopyFrom(pack(off))
    (found,) = listener(made).filters
    assert isinstance(found, Cors)
    assert found.routes[0].policy is None


def _half(made: listener_pb2.HttpConnectionManager) -> None:
    half = policy()
    half.filter_enabled.default_value.numerator = 50
    made.route_config.virtual_hosts[0].routes[0].typed_per_filter_config[CORS].CopyFrom(pack(half))


def _split(made: listener_pb2.HttpConnectionManager) -> None:
    half = policy()
    half.expose_headers = "x\r\nset-cookie: a=b"
    made.route_config.virtual_hosts[0].routes[0].typed_per_filter_config[CORS].CopyFrom(pack(half))


def _expression(made: listener_pb2.HttpConnectionManager) -> None:
    bad = policy()
    bad.allow_origin_string_match.add().safe_regex.regex = "("
    made.route_config.virtual_hosts[0].routes[0].typed_per_filter_config[CORS].CopyFrom(pack(bad))


def _forwarding(made: listener_pb2.HttpConnectionManager) -> None:
    made.route_config.virtual_hosts[0].routes[0].route.cluster = "elsewhere"


def _other_filter(made: listener_pb2.HttpConnectionManager) -> None:
    made.route_config.virtual_hosts[0].routes[0].typed_per_filter_config["other"].CopyFrom(pack(policy()))


def _without_filter(made: listener_pb2.HttpConnectionManager) -> None:
    del made.http_filters[0]


def _without_end(made: listener_pb2.HttpConnectionManager) -> None:
    del made.route_config.virtual_hosts[0].routes[1]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_half, "filter_enabled"),
        (_split, "expose_headers"),
        (_expression, "allow_origin_string_match[1]"),
        (_forwarding, "route"),
        (_other_filter, "'other'"),
        (_without_filter, "several routes"),
        (_without_end, "other routes"),
    ],
)
def test_what_is_not_understood_is_refused(spoil: Callable[[listener_pb2.HttpConnectionManager], None], told: str) -> None:
    made = manager()
    spoil(made)
    with pytest.raises(ResourceInvalid) as caught:
        listener(made)
    assert told in str(caught.value)


def routes(*mirrors: route_pb2.RouteAction.RequestMirrorPolicy) -> tuple[Mirror, ...]:
    made = route_pb2.RouteConfiguration(name="a")
    route = made.virtual_hosts.add(name="a", domains=["*"]).routes.add(match=route_pb2.RouteMatch(prefix="/"))
    route.route.cluster = "a"
    route.route.request_mirror_policies.extend(mirrors)
    _, found = decode(ROUTE, made.SerializeToString())
    assert isinstance(found, RouteConfig)
    action = found.virtual_hosts[0].routes[0].action
    assert isinstance(action, Forward)
    return action.mirrors


def mirror(cluster: str, numerator: int | None = None) -> route_pb2.RouteAction.RequestMirrorPolicy:
    made = route_pb2.RouteAction.RequestMirrorPolicy(cluster=cluster)
    if numerator is not None:
        made.runtime_fraction.default_value.numerator = numerator
    return made


def test_mirrors_have_a_share_and_none_has_no_mirror() -> None:
    assert routes(mirror("b"), mirror("c", 25), mirror("d", 0)) == (Mirror("b"), Mirror("c", 0.25))


@pytest.mark.parametrize("mirrors", [[mirror("")], [mirror("b")] * 17])
def test_mirrors_that_make_no_sense_are_refused(mirrors: list[route_pb2.RouteAction.RequestMirrorPolicy]) -> None:
    with pytest.raises(ResourceInvalid, match="request_mirror_policies"):
        routes(*mirrors)
