"""gRPC's health protocol, byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.wire.grpc_health import health_request, serving_status, status_name


@pytest.mark.parametrize(
    ("service", "data"),
    [("", b""), ("a", b"\x0a\x01a"), ("é", b"\x0a\x02\xc3\xa9"), ("x" * 300, b"\x0a\xac\x02" + b"x" * 300)],
)
def test_requests(service: str, data: bytes) -> None:
    assert health_request(service) == data


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 0),
        (b"\x08\x01", 1),
        (b"\x08\x02", 2),
        (b"\x08\x02\x08\x01", 1),  # the last one holds
        (b"\x12\x03abc\x08\x01", 1),  # a field of a newer version
        (b"\x10\x05\x08\x03", 3),
    ],
)
def test_responses(data: bytes, status: int) -> None:
    assert serving_status(data) == status


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x08\x80", b"\x12\x05ab", b"\x0d\x01\x00\x00\x00", b"<html>", b"\x08" + b"\x80" * 12]
)
def test_what_is_no_response(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut short|wire type"):
        serving_status(data)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_status_or_refused(data: bytes) -> None:
    try:
        assert serving_status(data) >= 0
    except ValueError:
        pass


def test_names() -> None:
    assert [status_name(status) for status in (0, 1, 2, 3, 9)] == ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN", "9"]
