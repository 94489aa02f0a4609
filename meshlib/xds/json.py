"""protobuf-JSON with Envoy's `@type` names, for people and tools; never on the way of a resource to a client.

json_format finds the content of an Any by its type URL in the descriptor pool, where Envoy's names are not.  So names
are exchanged around it: ours inside, Envoy's outside.
"""

from __future__ import annotations

from typing import Final

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from meshlib.xds.proto import (
    cluster_pb2,
    core_pb2,
    discovery_pb2,
    endpoint_pb2,
    ext_authz_pb2,
    inbound_limits_pb2,
    jwt_pb2,
    listener_pb2,
    rate_limit_pb2,
    rbac_pb2,
    resilience_pb2,
    route_pb2,
    tls_pb2,
)
from meshlib.xds.types import ENVOY_NAMES, OWN_PACKAGE, PREFIX

Json = dict[str, object]

_WHOLE: Final = 100
"""Depth that no message reaches: protobuf's own parsers stop there."""

_OURS: Final = PREFIX + "meshlib.xds.v3."
_TO_OURS: Final = {PREFIX + envoy: _OURS + name for name, envoy in ENVOY_NAMES.items()}
_TO_ENVOY: Final = {ours: envoy for envoy, ours in _TO_OURS.items()}
_MODULES: Final = (
    core_pb2,
    discovery_pb2,
    endpoint_pb2,
    cluster_pb2,
    route_pb2,
    listener_pb2,
    tls_pb2,
    rbac_pb2,
    jwt_pb2,
    ext_authz_pb2,
)
_OWN_MODULES: Final = (rate_limit_pb2, inbound_limits_pb2, resilience_pb2)
_KINDS: Final[dict[str, type[Message]]] = {
    PREFIX + envoy: getattr(module, name)
    for name, envoy in ENVOY_NAMES.items()
    for module in _MODULES
    if name in module.DESCRIPTOR.message_types_by_name
} | {
    PREFIX + descriptor.full_name: getattr(module, name)
    for module in _OWN_MODULES
    for name, descriptor in module.DESCRIPTOR.message_types_by_name.items()
}
_DESCRIPTORS: Final[dict[str, Descriptor]] = {
    PREFIX + ENVOY_NAMES[name]: descriptor
    for module in _MODULES
    for name, descriptor in module.DESCRIPTOR.message_types_by_name.items()
} | {name: kind.DESCRIPTOR for name, kind in _KINDS.items() if name.startswith(PREFIX + OWN_PACKAGE)}


def to_json(message: Message) -> Json:
    """A message of ours, or an Any of one, with `@type`; field names in snake_case as in Envoy's own dumps.

    Raises ValueError for an Any whose type is not in `types.ENVOY_NAMES`.
    """
    outer = Any(type_url=_OURS + message.DESCRIPTOR.name, value=message.SerializeToString(deterministic=True))
    if isinstance(message, Any):
        outer = message
    # The outermost Any is treated as the inner ones are.
    converted = _rename(outer, _TO_OURS)
    plain: Json = json_format.MessageToDict(converted, preserving_proto_field_name=True)
    _rename_types(plain, _TO_ENVOY)
    _order_maps(plain, Any.DESCRIPTOR)
    return plain


def from_json(document: Json) -> Message:
    """The message that a JSON object with `@type` stands for.

    Raises ValueError when a type is unknown, or json_format.ParseError (a ValueError too) when a field is.
    """
    name = document.get("@type")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"@type {name!r} is not one of the messages in meshlib.xds.types.ENVOY_NAMES")
    renamed = {key: _copy(value) for key, value in document.items() if key != "@type"}
    message = json_format.ParseDict(renamed, kind())
    return _rename(message, _TO_ENVOY)


def _rename(message: Message, names: dict[str, str]) -> Message:
    """A copy with the type URLs of all Anys exchanged, at every depth."""
    copy = type(message)()
    copy.CopyFrom(message)
    _rename_in_place(copy, names)
    return copy


def _rename_in_place(message: Message, names: dict[str, str]) -> None:
    if isinstance(message, Any):
        envoy = message.type_url if message.type_url in _KINDS else _TO_ENVOY.get(message.type_url, "")
        kind = _KINDS.get(envoy)
        if kind is None:
            raise ValueError(f"type URL {message.type_url!r} is not in meshlib.xds.types.ENVOY_NAMES")
        content = kind.FromString(message.value)
        _rename_in_place(content, names)
        message.type_url = names.get(message.type_url, message.type_url)
        message.value = content.SerializeToString(deterministic=True)
        return
    for descriptor, value in message.ListFields():
        kind_of = descriptor.message_type
        if kind_of is None:
            continue
        if kind_of.GetOptions().map_entry:
            if kind_of.fields_by_name["value"].message_type is not None:
                for key in value:
                    _rename_in_place(value[key], names)
        elif descriptor.is_repeated:
            for item in value:
                _rename_in_place(item, names)
        else:
            _rename_in_place(value, names)


def _rename_types(node: object, names: dict[str, str]) -> None:
    if isinstance(node, dict):
        if isinstance(name := node.get("@type"), str):
            node["@type"] = names.get(name, name)
        for value in node.values():
            _rename_types(value, names)
    elif isinstance(node, list):
        for value in node:
            _rename_types(value, names)


def _order_maps(node: object, kind: Descriptor) -> None:
    """Maps come in any order; equal messages are to be equal text.  Fields stay in the order of their numbers."""
    if not isinstance(node, dict):
        return
    if kind.full_name == Struct.DESCRIPTOR.full_name:
        _sort(node)
        return
    if kind.full_name == Any.DESCRIPTOR.full_name:
        kind = _DESCRIPTORS[str(node["@type"])]
    for name, value in node.items():
        field = kind.fields_by_name.get(name)
        if field is None or field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            _sort(value, depth=1)
            inner = field.message_type.fields_by_name["value"].message_type
            items = list(value.values()) if inner is not None else []
        else:
            inner, items = field.message_type, value if isinstance(value, list) else [value]
        for item in items:
            if inner is not None:
                _order_maps(item, inner)


def _sort(node: object, depth: int = _WHOLE) -> None:
    """Put the keys of a JSON object in order, in place, and those of what is in it down to `depth`."""
    if depth <= 0:
        return
    if isinstance(node, dict):
        ordered = {key: node[key] for key in sorted(node)}
        node.clear()
        node.update(ordered)
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _sort(value, depth - 1)


def _copy(node: object) -> object:
    """A deep copy with `@type` in our names."""
    if isinstance(node, dict):
        return {
            key: _TO_OURS.get(value, value) if key == "@type" and isinstance(value, str) else _copy(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_copy(value) for value in node]
    return node
