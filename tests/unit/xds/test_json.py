"""protobuf-JSON in Envoy's names, there and back."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseError

from meshlib.xds.json import from_json, to_json
from meshlib.xds.proto import listener_pb2
from meshlib.xds.types import pack
from tests.unit.xds.test_decode_strictly import GOOD, cluster, listener, typed


@pytest.mark.parametrize("document", GOOD, ids=lambda document: document["@type"].rpartition(".")[2])
def test_there_and_back(document: dict[str, Any]) -> None:
    message = from_json(document)
    again = from_json(to_json(message))
    assert again == message
    assert again.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)


def test_nested_messages_have_envoys_type_urls_on_the_wire() -> None:
    """Two levels deep: the router inside of the connection manager inside of the listener."""
    message = from_json(listener())
    assert isinstance(message, listener_pb2.Listener)
    packed = message.api_listener.api_listener
    manager = listener_pb2.HttpConnectionManager.FromString(packed.value)
    assert packed == pack(manager)
    assert manager.http_filters[0].typed_config == pack(listener_pb2.Router())


def test_names_are_envoys_in_json() -> None:
    document = to_json(from_json(listener()))
    manager: Any = document["api_listener"]
    assert document["@type"] == "type.googleapis.com/envoy.config.listener.v3.Listener"
    assert manager["api_listener"]["http_filters"][0]["typed_config"] == typed("Router")


def test_an_any_and_its_content_give_the_same() -> None:
    message = from_json(cluster())
    assert to_json(pack(message)) == to_json(message)


def test_camel_case_is_read_too() -> None:
    document = {**cluster(), "connectTimeout": "3s"}
    assert to_json(from_json(document))["connect_timeout"] == "3s"


def test_unknown_type_is_named() -> None:
    with pytest.raises(ValueError, match=r"type.googleapis.com/envoy.Secret.*ENVOY_NAMES"):
        from_json({"@type": "type.googleapis.com/envoy.Secret"})
    with pytest.raises(ValueError, match=r"envoy.Secret.*ENVOY_NAMES"):
        to_json(AnyMessage(type_url="type.googleapis.com/envoy.Secret"))


def test_unknown_field_is_an_error() -> None:
    with pytest.raises(ParseError, match="nonsense"):
        from_json({**cluster(), "nonsense": 1})


def test_equal_messages_are_equal_text() -> None:
    """Maps have no order of their own; fields keep that of their numbers."""
    metadata = {"filter_metadata": {name: {key: {"y": 1, "x": 2} for key in "cab"} for name in ("b", "a", "istio")}}
    document = to_json(from_json(cluster(metadata=metadata)))
    shown: Any = document["metadata"]
    assert list(shown["filter_metadata"]) == ["a", "b", "istio"]
    for struct in shown["filter_metadata"].values():
        assert list(struct) == ["a", "b", "c"]
        assert list(struct["a"]) == ["x", "y"]
    assert next(iter(document)) == "@type"
    assert list(document)[1] == "name"
