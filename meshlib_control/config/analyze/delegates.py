"""Rules that lead to other VirtualServices: whether those are there, seen, and within the conditions."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.analyze.landscape import Issue, Landscape
from meshlib_control.config.delegation import delegate_key, delegates_of, merged_route
from meshlib_control.config.kinds import HTTPRoute, VirtualService
from meshlib_control.config.model import ConfigResource, Key
from meshlib_control.config.problems import Path, Problem, under


def check_delegates(land: Landscape) -> Iterator[Issue]:
    known = {resource.key: resource for resource in land.virtual_services}
    used: set[Key] = set()
    for root in land.virtual_services:
        spec: VirtualService = root.spec
        for index, route in enumerate(spec.http):
            key = delegate_key(route, root.key)
            if key is not None and spec.hosts:
                used.add(key)
                path: Path = ("spec", "http", index, "delegate")
                for problem in under(path, _check(route, root, known.get(key), key, land)):
                    yield Issue(root, problem)
    for key, delegate in delegates_of(land.virtual_services).items():
        if key not in used:
            message = "it has no hosts, and no rule of another VirtualService leads to it: it does nothing"
            yield Issue(delegate, Problem(("spec",), "MSH0363", message))


def _check(
    route: HTTPRoute, root: ConfigResource, delegate: ConfigResource | None, key: Key, land: Landscape
) -> Iterator[Problem]:
    name: Path = ("name",)
    if delegate is None:
        yield Problem(name, "MSH0361", f"there is no VirtualService {key.namespace}/{key.name}: the rule is not used")
    elif delegate.spec.hosts:
        yield Problem(name, "MSH0361", f"{key.namespace}/{key.name} has hosts, so it is no delegate: the rule is not used")
    elif not land.sees(delegate, root.key.namespace):
        yield Problem(name, "MSH0206", f"{delegate.key} is not exported to {root.key.namespace}: the rule is not used")
    else:
        for index, own in enumerate(delegate.spec.http):
            if merged_route(route, own) is None:
                message = f"http[{index}] of {delegate.key} asks for what this rule's match excludes: it is not used"
                yield Problem((), "MSH0362", message)
