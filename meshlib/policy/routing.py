"""Call -> route: the virtual host's route list compiled once, walked in order, first match wins (Envoy ``RouteMatch``)."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.call import Call
from meshlib.model.route import PathMatch, Route, RouteMatch, VirtualHost, WeightedCluster
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


class CompiledRoute:
    """A route and its predicates; `path` or `rest` is None when there is nothing to test."""

    __slots__ = ("fraction", "path", "rest", "route")

    def __init__(self, route: Route) -> None:
        match = route.match
        self.route = route
        self.path = compile_path(match.path)
        self.rest = all_of(_conditions(match))
        self.fraction = match.fraction

    def matches(self, call: Call, path: str, roll: float) -> bool:
        """`path` is the call's without the query; `roll` in [0, 1) is the call's one die."""
        return (
            (self.path is None or self.path(path))
            and (self.rest is None or self.rest(call))
            and (self.fraction is None or roll < self.fraction)
        )


def _conditions(match: RouteMatch) -> list[CallTest]:
    tests = [compile_header(header) for header in match.headers]
    tests += [compile_query(query) for query in match.query]
    if match.grpc:
        tests.append(is_grpc)
    return tests


class Router:
    """The compiled route list of one virtual host."""

    __slots__ = ("_routes", "virtual_host")

    def __init__(self, virtual_host: VirtualHost) -> None:
        """Raises ValueError naming the route whose regex is not RE2."""
        self.virtual_host = virtual_host
        routes = []
        for index, route in enumerate(virtual_host.routes):
            try:
                routes.append(CompiledRoute(route))
            except ValueError as error:
                raise ValueError(f"route {index} ({route.name or 'unnamed'}): {error}") from error
        self._routes = tuple((item.path, item.rest, item.fraction, index) for index, item in enumerate(routes))

    def match(self, call: Call, rng: Rng) -> int:
        """Index of the first route that matches, -1 if none does."""
        path = call.path
        mark = path.find("?")
        if mark >= 0:
            path = path[:mark]
        for path_test, rest, fraction, index in self._routes:
            if (
                (path_test is None or path_test(path))
                and (rest is None or rest(call))
                and (fraction is None or rng.random() < fraction)
            ):
                return index
        return -1


class Split:
    """Weighted choice among clusters; the weights are relative to their sum, and zero is never picked."""

    __slots__ = ("_bounds", "_names", "_total")

    def __init__(self, clusters: tuple[WeightedCluster, ...]) -> None:
        used = [cluster for cluster in clusters if cluster.weight > 0] or list(clusters[:1])
        total = 0
        bounds = []
        for cluster in used:
            total += max(cluster.weight, 1)
            bounds.append(total)
        self._names = tuple(cluster.name for cluster in used)
        self._bounds = tuple(bounds)
        self._total = total

    def pick(self, rng: Rng) -> str:
        """The cluster's name.  One draw a call: retries keep the choice, as in Envoy."""
        if len(self._names) == 1:
            return self._names[0]
        drawn = rng.random() * self._total
        for name, bound in zip(self._names, self._bounds, strict=True):
            if drawn < bound:
                return name
        return self._names[-1]
