"""Reading protobuf fields strictly: whatever is set and not understood is a problem, at every depth.

Two kinds of "not understood": fields that our trimmed protos do not have (`parse`), and fields that they have since
other data planes need them, but that this one does not act on (`allow_only`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from meshlib.xds.types import type_url

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any
    from google.protobuf.duration_pb2 import Duration

    from meshlib.xds.invalid import Problems

M = TypeVar("M", bound=Message)

MAX_RESOURCE_BYTES: Final = 8 * 1024 * 1024
"""A resource above this is refused unread.  gRPC's own limit for a whole response is 4 MiB unless raised."""

MAX_SECONDS: Final = 10_000 * 365.25 * 86_400  # google.protobuf.Duration: ten thousand years


def parse(kind: type[M], data: bytes, *, field: str, problems: Problems) -> M | None:
    """The message, without unknown fields: each of those is a problem.  None when the bytes are no such message."""
    if len(data) > MAX_RESOURCE_BYTES:
        problems.describe(field, f"{len(data)} bytes", f"at most {MAX_RESOURCE_BYTES} bytes")
        return None
    try:
        message = kind.FromString(data)
    except DecodeError:
        problems.describe(field, f"{len(data)} bytes", f"a serialized {type_url(kind).rpartition('.')[2]}")
        return None
    # Discarding and measuring again runs in C: the walk in Python is only for telling where.
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        for path, number in _unknown(kind.FromString(data), field):
            problems.describe(path, f"field number {number}", "only fields that this data plane knows")
    return message


def _unknown(message: Message, path: str) -> Iterator[tuple[str, int]]:
    unknown = UnknownFieldSet(message)
    for position in range(len(unknown)):
        yield path, unknown[position].field_number
    for descriptor, value in message.ListFields():
        kind = descriptor.message_type
        if kind is None:
            continue
        inner = join_path(path, descriptor.name)
        if kind.GetOptions().map_entry:
            if kind.fields_by_name["value"].message_type is not None:
                for key in value:
                    yield from _unknown(value[key], f"{inner}[{key!r}]")
        elif descriptor.is_repeated:
            for index, item in enumerate(value):
                yield from _unknown(item, f"{inner}[{index}]")
        else:
            yield from _unknown(value, inner)


def unpack(packed: Any, kind: type[M], *, field: str, problems: Problems) -> M | None:
    """The content of an Any that must be a `kind`."""
    if packed.type_url != type_url(kind):
        problems.add(field, packed.type_url, type_url(kind))
        return None
    return parse(kind, packed.value, field=field, problems=problems)


def only_filter(configs: Mapping[str, Any], name: str, kind: type[M], *, field: str, problems: Problems) -> M | None:
    """The configuration of the filter `name` in a ``typed_per_filter_config``, where there may be no other."""
    for other in sorted(configs.keys() - {name}):
        problems.describe(f"{field}[{other!r}]", "set", f"only {name}")
    return unpack(configs[name], kind, field=f"{field}[{name!r}]", problems=problems) if name in configs else None


def allow_only(message: Message, names: frozenset[str], *, field: str, problems: Problems) -> None:
    """Every field that is set and not among `names` is a problem."""
    for descriptor, value in message.ListFields():
        if descriptor.name not in names:
            shown = "set" if descriptor.message_type is not None or descriptor.is_repeated else repr(value)
            problems.describe(join_path(field, descriptor.name), shown, "unset: this data plane does not support the field")


def seconds(duration: Duration, *, field: str, problems: Problems) -> float:
    """A duration of zero or more."""
    value = duration.seconds + duration.nanos / 1e9
    if not 0 <= value <= MAX_SECONDS or not -999_999_999 <= duration.nanos <= 999_999_999:
        problems.describe(field, f"{value:g}s", "a duration of zero or more")
        return 0.0
    return float(value)


def join_path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
