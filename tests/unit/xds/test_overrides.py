"""Overrides for a host or route (``typed_per_filter_config``) of an inbound listener: it is refused as a whole (I18)."""

from __future__ import annotations

import pytest

from meshlib.model.listener import INBOUND_PREFIX, InboundListener
from meshlib.xds.decode import decode
from meshlib.xds.invalid import ResourceInvalid
from meshlib.xds.proto import listener_pb2, rbac_pb2, route_pb2
from meshlib.xds.types import LISTENER, pack


def entry(number: int) -> bytes:
    """A map entry in field `number`: filter "rbac" -> an RBAC that allows everything."""
    override = pack(rbac_pb2.HttpRBAC()).SerializeToString()
    pair = b"\x0a\x04rbac\x12" + bytes([len(override)]) + override
    tag = number << 3 | 2
    return bytes([tag & 127 | 128, tag >> 7] if tag > 127 else [tag]) + bytes([len(pair)]) + pair


def listener(*, host: bytes = b"", route: bytes = b"") -> bytes:
    """With these bytes added to the virtual host, or to its route."""
    only = route_pb2.Route(match=route_pb2.RouteMatch(prefix="/"))
    only.non_forwarding_action.SetInParent()
    virtual = route_pb2.VirtualHost(name="h", domains=["*"])
    virtual.routes.append(route_pb2.Route.FromString(only.SerializeToString() + route))
    manager = listener_pb2.HttpConnectionManager()
    manager.normalize_path.value = True
    manager.route_config.virtual_hosts.append(route_pb2.VirtualHost.FromString(virtual.SerializeToString() + host))
    manager.http_filters.add(name="rbac").typed_config.CopyFrom(pack(rbac_pb2.HttpRBAC()))
    manager.http_filters.add(name="router").typed_config.CopyFrom(pack(listener_pb2.Router()))
    made = listener_pb2.Listener(name=f"{INBOUND_PREFIX}9080", traffic_direction=listener_pb2.INBOUND)
    made.address.socket_address.address, made.address.socket_address.port_value = "0.0.0.0", 9080
    made.filter_chains.add().filters.add(name="h").typed_config.CopyFrom(pack(manager))
    return made.SerializeToString()


def test_a_listener_without_overrides() -> None:
    found = decode(LISTENER, listener())[1]
    assert isinstance(found, InboundListener)
    assert len(found.filters) == 1


@pytest.mark.parametrize("place", [{"host": entry(15)}, {"route": entry(13)}], ids=["virtual host", "route"])
def test_I18_overrides(place: dict[str, bytes]) -> None:
    with pytest.raises(ResourceInvalid) as caught:
        decode(LISTENER, listener(**place))
    assert "virtual_hosts" in str(caught.value)
