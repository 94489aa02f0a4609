"""Host names and authorities: completion, wildcards, ports."""

from __future__ import annotations

import pytest

from meshlib.model.listener import VIRTUAL_OUTBOUND
from meshlib_control.compile import names
from meshlib_control.compile.hosts import matches, most_specific, resolve, split_authority, with_port
from meshlib_control.compile.names import ClusterName, parse_cluster_name

KNOWN = {"reviews.shop.svc.cluster.local", "literal.shop"}


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("reviews", "reviews.default.svc.cluster.local"),
        ("Reviews", "reviews.default.svc.cluster.local"),
        ("reviews.shop", "reviews.shop.svc.cluster.local"),
        ("reviews.shop.svc", "reviews.shop.svc.cluster.local"),
        ("reviews.shop.svc.cluster.local", "reviews.shop.svc.cluster.local"),
        ("reviews.shop.svc.cluster.local.", "reviews.shop.svc.cluster.local"),
        ("reviews.other", "reviews.other"),
        ("literal.shop", "literal.shop"),
        ("api.example.com", "api.example.com"),
        ("*", "*"),
        ("*.example.com", "*.example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_short_names_are_completed(name: str, full: str) -> None:
    assert resolve(name, "default", domain="cluster.local", known=KNOWN) == full


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("a.test", "a.test", True),
        ("a.test", "b.test", False),
        ("*", "a.test", True),
        ("*.test", "a.test", True),
        ("*.test", "test", False),
        ("*.test", ".test", False),
        ("*.test", "*.a.test", True),
        ("*.a.test", "*.test", False),
        ("*.test", "*.test", True),
    ],
)
def test_wildcards(pattern: str, host: str, expected: bool) -> None:
    assert matches(pattern, host) == expected


def test_narrowest_pattern() -> None:
    patterns = ["*", "*.test", "*.a.test", "x.a.test"]
    assert most_specific(patterns, "x.a.test") == "x.a.test"
    assert most_specific(patterns, "y.a.test") == "*.a.test"
    assert most_specific(patterns, "y.test") == "*.test"
    assert most_specific(["*.test"], "other") is None


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("reviews:80", ("reviews", 80)),
        ("Reviews", ("reviews", 81)),
        ("reviews.default.svc.cluster.local.:80", ("reviews.default.svc.cluster.local", 80)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", 81)),
        ("10.0.0.1:8080", ("10.0.0.1", 8080)),
        ("reviews:0", None),
        ("reviews:65536", None),
        ("reviews:http", None),
        ("reviews:", None),
        ("reviews:²", None),
    ],
)
def test_authorities(authority: str, expected: tuple[str, int] | None) -> None:
    assert split_authority(authority, 81) == expected


def test_ports_are_appended_outside_of_brackets() -> None:
    assert with_port("::1", 80) == "[::1]:80"
    assert with_port("[::1]", 80) == "[::1]:80"
    assert with_port("a.test", 80) == "a.test:80"


def test_cluster_names() -> None:
    name = "outbound|80|v1|reviews.default.svc.cluster.local"
    assert parse_cluster_name(name) == ClusterName(80, "v1", "reviews.default.svc.cluster.local")
    assert str(parse_cluster_name(name)) == name
    for bad in ("inbound|80||a", "outbound|x||a", "outbound|80|a", "PassthroughCluster", "", "outbound|80|a|b|c"):
        assert parse_cluster_name(bad) is None, bad


def test_outbound_listener_has_the_name_that_the_library_asks_for() -> None:
    """The control service does not import meshlib.model, so the word is written twice."""
    assert names.VIRTUAL_OUTBOUND == VIRTUAL_OUTBOUND
