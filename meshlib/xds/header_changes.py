"""Header operations of virtual hosts, routes and shares of a split → model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from meshlib.model.route import NO_CHANGES, HeaderAction, HeaderChanges, HeaderValue
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import core_pb2, route_pb2

HEADER_FIELDS: Final = frozenset(
    {"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove"}
)

_Option = core_pb2.HeaderValueOption
_ACTIONS: Final[dict[int, HeaderAction]] = {
    _Option.APPEND_IF_EXISTS_OR_ADD: "append",
    _Option.ADD_IF_ABSENT: "add_if_absent",
    _Option.OVERWRITE_IF_EXISTS_OR_ADD: "overwrite",
    _Option.OVERWRITE_IF_EXISTS: "overwrite_if_exists",
}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_COMMAND = re.compile(r"(?<!%)(?:%%)*%(?!%)")


def decode_header_changes(
    level: route_pb2.VirtualHost | route_pb2.Route | route_pb2.WeightedCluster.ClusterWeight, problems: Problems, *, field: str
) -> HeaderChanges:
    changes = HeaderChanges(
        request_add=decode_header_values(level.request_headers_to_add, problems, field=f"{field}.request_headers_to_add"),
        request_remove=_removed(level.request_headers_to_remove, problems, field=f"{field}.request_headers_to_remove"),
        response_add=decode_header_values(level.response_headers_to_add, problems, field=f"{field}.response_headers_to_add"),
        response_remove=_removed(level.response_headers_to_remove, problems, field=f"{field}.response_headers_to_remove"),
    )
    return changes if changes != NO_CHANGES else NO_CHANGES


def decode_header_values(
    options: Iterable[core_pb2.HeaderValueOption], problems: Problems, *, field: str
) -> tuple[HeaderValue, ...]:
    """What is added to a message.  A name must be the token of another header than host, a value plain text."""
    return tuple(_value(option, problems, field=f"{field}[{index}]") for index, option in enumerate(options))


def _value(option: core_pb2.HeaderValueOption, problems: Problems, *, field: str) -> HeaderValue:
    name, value = option.header.key, option.header.value
    _check_name(name, problems, field=f"{field}.header.key")
    if _FORBIDDEN.search(value):
        problems.add(f"{field}.header.value", value, "no control characters")
    if _COMMAND.search(value):
        problems.add(f"{field}.header.value", value, "text in which each % is doubled: commands of Envoy are not evaluated")
    action: HeaderAction = _ACTIONS.get(option.append_action, "append")
    if option.HasField("append"):  # the old field, which Envoy lets hold
        action = "append" if option.append.value else "overwrite"
    return HeaderValue(name.lower().encode(), value.replace("%%", "%").encode(), action, option.keep_empty_value)


def _removed(names: Iterable[str], problems: Problems, *, field: str) -> tuple[bytes, ...]:
    found = list(names)
    for index, name in enumerate(found):
        _check_name(name, problems, field=f"{field}[{index}]")
    return tuple(name.lower().encode() for name in found)


def _check_name(name: str, problems: Problems, *, field: str) -> None:
    if not _TOKEN.fullmatch(name) or name.lower() == "host":
        problems.add(field, name, "the name of a header other than host")
