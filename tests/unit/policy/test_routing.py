"""Route lists and weighted splits."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from meshlib.model.call import Call
from meshlib.model.route import Forward, HeaderMatch, PathMatch, Route, RouteMatch, StringMatch, VirtualHost, WeightedCluster
from meshlib.policy.routing import Router, Split, compile_path

FORWARD = Forward((WeightedCluster("c"),))


def route(name: str, path: PathMatch, *headers: HeaderMatch, fraction: float | None = None) -> Route:
    return Route(name, RouteMatch(path, headers, fraction=fraction), FORWARD)


def match(routes: list[Route], path: str, *headers: tuple[bytes, bytes], seed: int = 1) -> str:
    index = Router(VirtualHost("v", ("*",), tuple(routes))).match(Call("GET", "a:80", path, headers), random.Random(seed))
    return routes[index].name if index >= 0 else ""


def test_the_first_match_in_list_order_wins() -> None:
    routes = [
        route("jason", PathMatch("prefix", "/"), HeaderMatch("end-user", StringMatch("exact", "jason"))),
        route("short", PathMatch("prefix", "/a")),
        route("long", PathMatch("prefix", "/a/b")),
        route("rest", PathMatch("prefix", "/")),
    ]
    assert match(routes, "/a/b") == "short"
    assert match(routes, "/x") == "rest"
    assert match(routes, "/a", (b"end-user", b"jason")) == "jason"


def test_paths_are_matched_without_the_query() -> None:
    routes = [route("exact", PathMatch("exact", "/a"))]
    assert match(routes, "/a?x=/b") == "exact"
    assert match(routes, "/ab?x") == ""


def test_looking_routes_up_by_their_first_segment_changes_nothing() -> None:
    """Against a plain walk of the list, over random route lists and paths."""
    rng = random.Random(11)
    words = ["", "a", "b", "ab", "c"]

    def some_path() -> str:
        return "/" + "/".join(rng.choice(words) for _ in range(rng.randrange(4)))

    kinds: list[Literal["exact", "prefix", "separated"]] = ["exact", "prefix", "separated"]
    for _ in range(500):
        routes = []
        for index in range(8):
            kind = rng.choice(kinds)
            value = some_path().rstrip("/") or "/a" if kind == "separated" else some_path()
            routes.append(route(str(index), PathMatch(kind, value, case_sensitive=rng.random() < 0.8)))
        path = some_path()
        walked = ""
        for candidate in routes:
            test = compile_path(candidate.match.path)
            if test is None or test(path):
                walked = candidate.name
                break
        assert match(routes, path) == walked


def test_a_fraction_of_requests() -> None:
    routes = [route("some", PathMatch("prefix", "/"), fraction=0.2), route("rest", PathMatch("prefix", "/"))]
    taken = sum(match(routes, "/", seed=seed) == "some" for seed in range(5000))
    assert 850 < taken < 1150
    assert match([route("none", PathMatch("prefix", "/"), fraction=0.0)], "/") == ""


def test_a_bad_regex_names_its_route() -> None:
    with pytest.raises(ValueError, match=r"route 1 \(broken\)"):
        Router(VirtualHost("v", ("*",), (route("ok", PathMatch("prefix", "/")), route("broken", PathMatch("regex", "[")))))


@pytest.mark.parametrize("weights", [(90, 10), (1, 2, 3), (50, 50), (1, 0, 1)])
def test_a_split_is_within_three_sigma(weights: tuple[int, ...]) -> None:
    split = Split(tuple(WeightedCluster(str(index), weight) for index, weight in enumerate(weights)))
    rng = random.Random(7)
    count = 10_000
    picks = [split.pick(rng) for _ in range(count)]
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        sigma = (share * (1 - share) * count) ** 0.5
        assert abs(picks.count(str(index)) - share * count) <= 3 * sigma


def test_a_single_destination_gets_all_whatever_its_weight() -> None:
    assert Split((WeightedCluster("only", 0),)).pick(random.Random(1)) == "only"
