"""The public fakes say what is wrong with what they are given."""

from __future__ import annotations

import pytest

from meshlib.testing import FakeClock, service


def test_a_service_of_subsets() -> None:
    target = service("reviews:9080", {"v1": ["10.0.0.1:80"], "v2": ["[::1]:80"]}, weights={"v1": 9})
    assert set(target.clusters) == {"outbound|9080|v1|reviews", "outbound|9080|v2|reviews"}
    assert target.authority == "reviews:9080"


def test_what_is_no_endpoint() -> None:
    with pytest.raises(ValueError, match="endpoint 'foo': expected 'address:port'"):
        service("reviews", ["foo"])
    with pytest.raises(TypeError, match="expected a list"):
        service("reviews", "10.0.0.1:80")
    with pytest.raises(ValueError, match="do not exist: v9"):
        service("reviews", {"v1": []}, weights={"v9": 1})


def test_a_clock_that_is_moved() -> None:
    clock = FakeClock(5.0)
    clock.advance(2.5)
    assert (clock(), clock.monotonic(), clock.wall()) == (7.5, 7.5, 7.5)
