"""``grpc.health.v1`` as bytes: two messages of one field each, not worth generated code and its import.

Wire format: protobuf's encoding guide.  ``HealthCheckRequest.service`` is field 1, a string; ``HealthCheckResponse.status`` is
field 1, an enum.
"""

from __future__ import annotations

from typing import Final

CHECK: Final = "/grpc.health.v1.Health/Check"

SERVING: Final = 1

_STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")

_SERVICE: Final = 1 << 3 | 2  # the field, as a length and bytes
_STATUS: Final = 1 << 3  # the field, as a number


def health_request(service: str) -> bytes:
    """``HealthCheckRequest``; an empty `service` asks for the server as a whole."""
    name = service.encode()
    return bytes((_SERVICE,)) + _varint(len(name)) + name if name else b""


def serving_status(response: bytes) -> int:
    """``HealthCheckResponse.status``; UNKNOWN (0) if it has none.  Raises ValueError for what is no such message."""
    status, position = 0, 0
    while position < len(response):
        tag, position = _read_varint(response, position)
        value, position = _read_varint(response, position)
        if tag & 7 == 2:  # a field of a newer version, by its length
            position += value
        elif tag & 7 != 0:
            raise ValueError(f"field with wire type {tag & 7}")
        elif tag == _STATUS:
            status = value
    if position > len(response):
        raise ValueError("cut short")
    return status


def status_name(status: int) -> str:
    """For people."""
    return _STATUSES[status] if status < len(_STATUSES) else str(status)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return number, position
        shift += 7
    raise ValueError("cut short")
