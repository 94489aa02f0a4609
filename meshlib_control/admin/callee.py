"""Whom a request is for where there is no catalog to ask: files have policies, and often nothing that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshlib_control.admin.problems import Problem
from meshlib_control.catalog.model import Service
from meshlib_control.compile.world import World
from meshlib_control.config.authorization import selector_of
from meshlib_control.config.model import ConfigResource

_KINDS: Final = ("AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication")


def callee(world: World, name: str, namespace: str, *, certain: bool) -> tuple[Service | None, str]:
    """The service, None if nothing declares it, and the namespace of its workloads.

    `namespace`: what a short name is of; unless that is `certain`, it is the caller's, and the files may know of one service
    of that name elsewhere, declared or selected by policies.  Raises `Problem` if they know of several.
    """
    service = world.services.called(name, namespace)
    if service is not None:
        return service, service.namespace
    label, dot, rest = name.partition(".")
    if dot:
        owner = rest.removesuffix(f".svc.{world.settings.domain}").removesuffix(".svc")
        return None, namespace if "." in owner else owner
    home = namespace if certain else _home(world, label, namespace)
    return world.services.called(name, home), home


def _home(world: World, name: str, namespace: str) -> str:
    declared = {
        service.namespace for host, found in world.services.hosts.items() if host.partition(".")[0] == name for service in found
    }
    selected = {policy.key.namespace for policy in _naming(world, name)} - {world.settings.root_namespace}
    homes = declared or selected
    if len(homes) > 1 and namespace not in homes:
        listed = ", ".join(sorted(homes))
        raise Problem(
            400, f"which {name}?", why=f"the files know it in the namespaces {listed}", next_step="Say which with --namespace."
        )
    if not homes:
        homes = {policy.key.namespace for policy in _policies(world)} - {world.settings.root_namespace}
    return homes.pop() if len(homes) == 1 else namespace


def assumed_labels(world: World, namespace: str, service: str) -> list[dict[str, str]]:
    """Labels that workloads of a service without known instances may have: those by which policies select them, which is to
    say selectors that name the service, as ``app: reviews`` does.  Without any, none.
    """
    found = {
        tuple(sorted(selector_of(policy).items())): selector_of(policy)
        for policy in _naming(world, service.lower().partition(".")[0])
        if policy.key.namespace in (world.settings.root_namespace, namespace)
    }
    return [found[key] for key in sorted(found)] or [{}]


def _naming(world: World, name: str) -> Iterator[ConfigResource]:
    return (policy for policy in _policies(world) if name in selector_of(policy).values())


def _policies(world: World) -> Iterator[ConfigResource]:
    return (policy for kind in _KINDS for policy in world.routing.config.of(kind))
