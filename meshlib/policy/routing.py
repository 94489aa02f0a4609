"""Call -> route: the virtual host's route list compiled once, walked in order, first match wins (Envoy ``RouteMatch``)."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable

from meshlib.model.call import Call
from meshlib.model.route import PathMatch, RouteMatch, VirtualHost, WeightedCluster
from meshlib.policy.matching import CallTest, all_of, compile_header, compile_query, compile_regex, is_grpc
from meshlib.policy.rng import Rng

PathTest = Callable[[str], bool]


def compile_path(match: PathMatch) -> PathTest | None:
    """A predicate over the path without its query.  None matches every path."""
    value = match.value
    if match.kind == "regex":
        test = compile_regex(value)
        return lambda path: test(path.encode("latin-1", "replace"))
    if not match.case_sensitive:
        folded = compile_path(PathMatch(match.kind, value.lower()))
        return None if folded is None else lambda path: folded(path.lower())
    if match.kind == "exact":
        return value.__eq__
    if match.kind == "separated":
        return lambda path: path == value or path.startswith(value + "/")
    if value in ("", "/"):
        return None  # every origin-form path starts with "/"
    return lambda path: path.startswith(value)


def first_segment(match: PathMatch) -> str | None:
    """The first path segment that every matching path must have; None when any may match."""
    if match.kind == "regex" or not match.case_sensitive or not match.value.startswith("/"):
        return None
    end = match.value.find("/", 1)
    if end >= 0:
        return match.value[1:end]
    return match.value[1:] if match.kind in ("exact", "separated") else None  # the prefix /foo matches /foobar, too


def compile_conditions(match: RouteMatch) -> list[CallTest]:
    """All but the path."""
    tests = [compile_header(header) for header in match.headers]
    tests += [compile_query(query) for query in match.query]
    if match.grpc:
        tests.append(is_grpc)
    return tests


def beginning(match: PathMatch) -> tuple[str, PathTest | None]:
    """What every matching path begins with, and what else holds for it; None: nothing else."""
    value, test = match.value, compile_path(match)
    if test is None or match.kind == "regex" or not match.case_sensitive:
        return "", test
    return value, None if match.kind == "prefix" else test


_Candidate = tuple[str, PathTest | None, CallTest | None, float | None, int]


class Router:
    """The compiled route list of one virtual host.

    Routes that can only match one first path segment are looked up by it, so a hundred of them cost what a few do; within
    what is left, and between it and the others, list order decides.
    """

    __slots__ = ("_anywhere", "_by_segment", "virtual_host")

    def __init__(self, virtual_host: VirtualHost) -> None:
        """Raises ValueError naming the route whose regex is not RE2."""
        self.virtual_host = virtual_host
        candidates: list[tuple[str | None, _Candidate]] = []
        for index, route in enumerate(virtual_host.routes):
            match = route.match
            try:
                candidate = (*beginning(match.path), all_of(compile_conditions(match)), match.fraction, index)
            except ValueError as error:
                raise ValueError(f"route {index} ({route.name or 'unnamed'}): {error}") from error
            candidates.append((first_segment(match.path), candidate))
        self._anywhere = tuple(candidate for segment, candidate in candidates if segment is None)
        self._by_segment = {
            wanted: tuple(candidate for segment, candidate in candidates if segment in (None, wanted))
            for wanted in {segment for segment, _ in candidates if segment is not None}
        }

    def match(self, call: Call, rng: Rng) -> int:
        """Index of the first route that matches, -1 if none does."""
        path = call.path
        mark = path.find("?")
        if mark >= 0:
            path = path[:mark]
        candidates = self._anywhere
        if self._by_segment:
            end = path.find("/", 1)
            candidates = self._by_segment.get(path[1:end] if end >= 0 else path[1:], candidates)
        for prefix, path_test, rest, fraction, index in candidates:
            if (
                path.startswith(prefix)
                and (path_test is None or path_test(path))
                and (rest is None or rest(call))
                and (fraction is None or rng.random() < fraction)
            ):
                return index
        return -1


class Split:
    """Weighted choice among clusters; the weights are relative to their sum, and zero is never picked."""

    __slots__ = ("_bounds", "_clusters", "_places", "_total")

    def __init__(self, clusters: tuple[WeightedCluster, ...]) -> None:
        used = [place for place, cluster in enumerate(clusters) if cluster.weight > 0] or [*range(len(clusters))][:1]
        total = 0
        bounds = []
        for place in used:
            total += max(clusters[place].weight, 1)
            bounds.append(total)
        self._clusters = clusters
        self._places: tuple[int, ...] = (*used, *used[-1:])  # the last one again: a product may be rounded up to the sum
        self._bounds = tuple(bounds)
        self._total = total

    def pick(self, rng: Rng) -> str:
        """The cluster's name.  One draw a call: retries keep the choice, as in Envoy."""
        return self._clusters[self.place(rng)].name

    def place(self, rng: Rng) -> int:
        """The same, by its place in the list: two shares of one cluster may differ."""
        if len(self._bounds) == 1:
            return self._places[0]
        return self._places[bisect(self._bounds, rng.random() * self._total)]
