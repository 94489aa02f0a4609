"""Names on the command line: kinds in all their spellings, resources, and what a shell may complete them to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import click

from meshlib_control.cli.failures import USAGE, Failure
from meshlib_control.settings import DEFAULT_ADMIN

if TYPE_CHECKING:
    from meshlib_control.admin import views

T = TypeVar("T")

COMPLETION_TIMEOUT = 1.0  # seconds; a Tab that takes longer is worse than none


def known_kinds() -> tuple[str, ...]:
    """``VirtualService`` ..., in order of name."""
    from meshlib_control.config import KINDS

    return tuple(sorted(KINDS))


def kind_named(text: str, kinds: Iterable[str]) -> str:
    """The kind that ``VirtualService``, ``virtualservices``, ``virtualservice`` and ``vs`` mean.  Raises `Failure`."""
    wanted = text.lower()
    kinds = tuple(kinds)
    for kind in kinds:
        if wanted in spellings(kind):
            return kind
    raise Failure(f"{text!r} is not a kind", why=f"known kinds are {', '.join(kinds)}", exit_code=USAGE)


def spellings(kind: str) -> frozenset[str]:
    """As kubectl takes them: singular, plural, and the initials."""
    lower = kind.lower()
    plural = lower[:-1] + "ies" if lower.endswith("y") else lower + "s"
    initials = "".join(letter for letter in kind if letter.isupper()).lower()
    return frozenset({lower, plural, initials})


def resource_named(kind: str | None, name: str | None, namespace: str) -> tuple[str, str, str]:
    """(kind, namespace, name) of ``vs reviews``, ``vs/reviews`` or ``VirtualService/default/reviews``.  Raises `Failure`."""
    parts = [part for part in (kind or "").split("/") if part] + ([name] if name else [])
    if len(parts) == 2:
        parts.insert(1, namespace)
    if len(parts) != 3:
        raise Failure(
            "which resource?",
            why="expected KIND NAME, KIND/NAME or KIND/NAMESPACE/NAME",
            next_step="`meshctl get` lists all",
            exit_code=USAGE,
        )
    return kind_named(parts[0], known_kinds()), parts[1], parts[2]


def resources_named(target: tuple[str, ...], namespace: str) -> list[tuple[str, str, str]]:
    """All of ``vs a b``, or of ``vs/a DestinationRule/prod/b``.  Raises `Failure`."""
    if "/" in target[0]:
        return [resource_named(text, None, namespace) for text in target]
    return [resource_named(target[0], name, namespace) for name in target[1:] or ("",)]


def complete_target(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """A kind first, then names of that kind."""
    typed = ctx.params.get("target") or ()
    if not typed:
        return complete_kind(ctx, parameter, incomplete)
    ctx.params["kind"] = typed[0]
    return complete_resource(ctx, parameter, incomplete)


def complete_kind(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [kind.lower() for kind in known_kinds() if kind.lower().startswith(incomplete.lower())]


def complete_resource(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of stored resources of the kind that was typed before."""
    try:
        kind = kind_named(ctx.params.get("kind") or "", known_kinds())
    except Failure:
        return []
    keys = [item.resource.split("/", 2) for item in _stored(ctx).items]
    namespace = ctx.params.get("namespace") or "default"
    return sorted(name for k, ns, name in keys if (k, ns) == (kind, namespace) and name.startswith(incomplete))


def complete_namespace(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    found = {item.resource.split("/", 2)[1] for item in _stored(ctx).items}
    return sorted(namespace for namespace in found if namespace.startswith(incomplete))


def complete_service(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from meshlib_control.admin import views

    found = _ask(ctx, "/v1/services", views.Services)
    return sorted(s.host for s in found.services if s.host.startswith(incomplete)) if found else []


def _stored(ctx: click.Context) -> views.Listing:
    from meshlib_control.admin import views

    return _ask(ctx, "/v1/config", views.Listing) or views.Listing(revision=0, items=[])


def _ask(ctx: click.Context, path: str, answer: type[T]) -> T | None:
    """Completion never fails: no control service, no suggestions."""
    from meshlib_control.cli.client import ControlClient

    server = ctx.params.get("server") or os.environ.get("MESHCTL_SERVER") or DEFAULT_ADMIN
    try:
        with ControlClient(server, timeout=COMPLETION_TIMEOUT) as client:
            return client.get(path, answer)
    except Failure:
        return None
