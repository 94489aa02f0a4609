"""Discovery responses as concatenations of bytes that are encoded once and shared by every stream.

Protobuf fields may come in any order and a message is the sum of its fields, so a response is ``resource frames + head``:
only the head, some 100 bytes, is made per stream.  Numbers are those of ``envoy/service/discovery/v3/discovery.proto``.
"""

from __future__ import annotations

from collections.abc import Iterable

_LENGTH_DELIMITED = 2


def varint(value: int) -> bytes:
    """Base 128, least significant group first."""
    if value < 0x80:
        return bytes((value,))
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def field(number: int, payload: bytes) -> bytes:
    """One length-delimited field; an empty payload is proto3's default and takes no bytes."""
    if not payload:
        return b""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(len(payload)) + payload


def text(number: int, value: str) -> bytes:
    """One string field."""
    return field(number, value.encode())


def packed_any(type_url: str, value: bytes) -> bytes:
    """A ``google.protobuf.Any``, without a tag of its own."""
    return text(1, type_url) + field(2, value)


def delta_frame(name: str, version: str, packed: bytes) -> bytes:
    """One entry of ``DeltaDiscoveryResponse.resources``."""
    return field(2, text(1, version) + field(2, packed) + text(3, name))


def sotw_frame(packed: bytes) -> bytes:
    """One entry of ``DiscoveryResponse.resources``."""
    return field(2, packed)


def delta_response(
    type_url: str, nonce: str, *, frames: Iterable[bytes] = (), removed: Iterable[str] = (), version: str = ""
) -> bytes:
    """A ``DeltaDiscoveryResponse``; `version` is for people only (``system_version_info``)."""
    head = [text(1, version), text(4, type_url), text(5, nonce), *(text(6, name) for name in removed)]
    return b"".join([*frames, *head])


def sotw_response(type_url: str, nonce: str, *, frames: Iterable[bytes] = (), version: str = "") -> bytes:
    """A ``DiscoveryResponse``."""
    return b"".join([*frames, text(1, version), text(4, type_url), text(5, nonce)])
