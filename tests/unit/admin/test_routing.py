"""Compiled routes as people read them."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from meshlib.xds.proto.route_pb2 import Route, RouteConfiguration, RouteMatch
from meshlib_control.admin.routing import clusters_of, describe_action, describe_match, route_views


@pytest.mark.parametrize(
    ("match", "text"),
    [
        ('prefix: "/"', "prefix /"),
        ('path: "/exact"', "path /exact"),
        ('path_separated_prefix: "/api"', "path /api and below"),
        ('safe_regex { regex: "/v[12]/.*" }', "path like /v[12]/.*"),
        ('prefix: "/" case_sensitive { value: false }', "prefix /, in any case"),
        (
            'prefix: "/" headers { name: "end-user" string_match { exact: "jason" } }',
            "prefix /, header end-user is jason",
        ),
        (
            'prefix: "/" headers { name: ":method" string_match { prefix: "G" } invert_match: true }',
            "prefix /, method is not prefix G",
        ),
        ('prefix: "/" headers { name: "x" present_match: true }', "prefix /, header x is present"),
        ('prefix: "/" headers { name: "x" present_match: true invert_match: true }', "prefix /, header x is absent"),
        ('prefix: "/" headers { name: "x" present_match: false }', "prefix /, header x is absent"),
        (
            'prefix: "/" headers { name: "n" range_match { start: 1 end: 9 } }',
            "prefix /, header n is in [1, 9)",
        ),
        (
            'prefix: "/" query_parameters { name: "q" string_match { safe_regex { regex: "a+" } } }',
            "prefix /, parameter q is like a+",
        ),
    ],
)
def test_matches(match: str, text: str) -> None:
    assert describe_match(text_format.Parse(match, RouteMatch())) == text


SPLIT = """
route { weighted_clusters { clusters { name: "a" weight { value: 3 } } clusters { name: "b" weight { value: 1 } } } }
"""


@pytest.mark.parametrize(
    ("route", "text"),
    [
        ('route { cluster: "c" }', "c"),
        (SPLIT, "75 % a, 25 % b"),
        ('route { cluster: "c" request_mirror_policies { cluster: "m" } }', "c, copied to m"),
        ("direct_response { status: 404 }", "answer 404"),
        ('redirect { host_redirect: "other" path_redirect: "/x" }', "redirect to other/x"),
        ("non_forwarding_action {}", "pass on to the application"),
    ],
)
def test_actions(route: str, text: str) -> None:
    assert describe_action(text_format.Parse(route, Route())) == text


CONFIGURATION = """
virtual_hosts {
  name: "reviews"
  retry_policy { retry_on: "connect-failure" num_retries { value: 2 } }
  routes {
    name: "slow" match { prefix: "/slow" }
    route {
      cluster: "a" timeout { seconds: 2 nanos: 500000000 }
      retry_policy { retry_on: "5xx" per_try_timeout { seconds: 1 } }
    }
  }
  routes { match { prefix: "/" } route { weighted_clusters { clusters { name: "b" weight { value: 1 } } } timeout {} } }
}
"""


def test_rows_have_timeouts_and_retries_with_those_of_the_virtual_host_inherited() -> None:
    configuration = text_format.Parse(CONFIGURATION, RouteConfiguration())
    slow, rest = route_views("reviews:80", configuration)
    assert (slow.name, slow.timeout, slow.retries) == ("slow", "2.5s", "1 on 5xx, 1s each")
    assert (rest.virtual_host, rest.timeout, rest.retries) == ("reviews", "none", "2 on connect-failure")


def test_clusters_are_those_that_any_route_names() -> None:
    configuration = text_format.Parse(CONFIGURATION, RouteConfiguration())
    assert list(clusters_of(configuration)) == ["a", "b"]
