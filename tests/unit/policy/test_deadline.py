"""How long there is left, as callers say it: nothing that they write makes a time longer, or an error."""

from __future__ import annotations

import pytest

from meshlib.flow.server import read_context
from meshlib.model.inbound import ServerRequest
from meshlib.policy.deadline import parse_attempt, parse_grpc_timeout, parse_milliseconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600.0), (b"2M", 120.0), (b"3S", 3.0), (b"250m", 0.25), (b"4u", 4e-6), (b"5n", 5e-9), (b"0S", 0.0),
        (b"99999999H", 99999999 * 3600.0),  # the longest that may be said: 11,400 years
    ],
)  # fmt: skip
def test_L03_a_grpc_timeout(value: bytes, seconds: float) -> None:
    assert parse_grpc_timeout(value) == pytest.approx(seconds)


BAD = (
    b"99999999999H", b"100000000S", b"-1S", b"+1S", b"1", b"S", b"", b"1 S", b"1s", b"1.5S", b"0x1S", "\u0661S".encode(),
    b"1" * 10_000,
)  # fmt: skip


@pytest.mark.parametrize("value", BAD)
def test_L03_what_is_no_grpc_timeout(value: bytes) -> None:
    assert parse_grpc_timeout(value) is None


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"1500", 1.5), (b"0", None), (b"-1", None), (b"1e3", None), (b"9" * 13, None), (b"", None)]
)
def test_L03_milliseconds(value: bytes, seconds: float | None) -> None:
    assert parse_milliseconds(value) == seconds


def test_L03_the_shortest_of_all_counts() -> None:
    """A huge one beside it changes nothing; nor does one that is none."""
    for huge in (b"99999999H", b"99999999999H", b"-1S"):
        headers = [(b"host", b"a"), (b"grpc-timeout", huge), (b"x-envoy-expected-rq-timeout-ms", b"250")]
        assert read_context(ServerRequest("GET", b"/", headers), 100.0).deadline == pytest.approx(100.25)


def test_L03_a_number_of_attempts() -> None:
    assert [parse_attempt(value) for value in (b"3", b"0", b"-1", b"x", b"9" * 100)] == [3, 1, 1, 1, 1]
