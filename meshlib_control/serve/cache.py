"""Compiled resources, each version serialized once, shared by all clients of a scope.

Only what somebody asks for is compiled: a name is generated when the first client of the scope subscribes to it, renewed
while anyone holds it and forgotten with the last.  Versions are hashes of the content, so a restart, a second replica or
an update that changes nothing sends nothing.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from meshlib.xds import wire
from meshlib.xds.proto.endpoint_pb2 import ClusterLoadAssignment
from meshlib.xds.types import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET
from meshlib_control.compile.node import Node, Scope

W = TypeVar("W")
W_contra = TypeVar("W_contra", contravariant=True)

TYPES = (SECRET, CLUSTER, ENDPOINTS, LISTENER, ROUTE)
"""Make before break: what is named comes before what names it."""

_NOTHING: frozenset[str] = frozenset()
_TOLERATED = 1000  # resources that may be kept a while although nobody subscribes to them any more

Generate = Callable[[str, frozenset[str] | None], Mapping[str, Message]]
"""``generate(type_url, names)`` for one scope and the newest world; None: everything."""


class Affected(Protocol):
    """What an update touches; see `compile.affected`."""

    @property
    def everything(self) -> bool: ...

    @property
    def endpoint_clusters(self) -> frozenset[str]: ...

    @property
    def clusters(self) -> frozenset[str]: ...


class Compiler(Protocol[W_contra]):
    """The compile package as seen from here."""

    def scope_of(self, world: W_contra, node: Node, /) -> Scope: ...

    def generate(
        self, world: W_contra, scope: Scope, type_url: str, names: frozenset[str] | None, /
    ) -> Mapping[str, Message]: ...

    def is_pending(self, world: W_contra, scope: Scope, name: str, /) -> bool:
        """Whether what is behind this name is yet to be found out: whoever asks for it waits."""
        ...

    def affected(self, old_world: W_contra, new_world: W_contra, /) -> Affected: ...


class Packed:
    """One version of one resource.  `empty`: an assignment without a single endpoint."""

    __slots__ = ("_delta", "_sotw", "any", "empty", "name", "version")

    def __init__(self, name: str, type_url: str, message: Message) -> None:
        value = message.SerializeToString(deterministic=True)
        self.name = name
        self.version = hashlib.blake2b(value, digest_size=8).hexdigest()
        self.any = wire.packed_any(type_url, value)
        self.empty = isinstance(message, ClusterLoadAssignment) and not any(part.lb_endpoints for part in message.endpoints)
        self._delta = b""
        self._sotw = b""

    @property
    def delta_frame(self) -> bytes:
        if not self._delta:
            self._delta = wire.delta_frame(self.name, self.version, self.any)
        return self._delta

    @property
    def sotw_frame(self) -> bytes:
        if not self._sotw:
            self._sotw = wire.sotw_frame(self.any)
        return self._sotw


class _Names:
    """A set of names that at least one client subscribes to.  Replicas of a service call the same others: they share it."""

    __slots__ = ("clients", "names")

    def __init__(self, names: frozenset[str]) -> None:
        # One string object per name in this process, however many sets it is in.
        self.names = frozenset(map(sys.intern, names))
        self.clients = 0


class _Shelf:
    """The resources of one type in one scope."""

    __slots__ = ("complete", "packed", "retired", "size", "stale", "subscribed")

    def __init__(self) -> None:
        self.packed: dict[str, Packed | None] = {}  # None: asked for, and does not exist
        self.subscribed: dict[frozenset[str], _Names] = {}
        self.complete = 0  # wildcard subscriptions: while there is one, `packed` has every name of the scope
        self.size = 0  # of all sets together
        self.stale = 0  # at most so many names of `packed` are of no interest to anybody any more
        # Gone since the last or the last but one update; needed until every client's routes have let go of them.
        self.retired: tuple[dict[str, Packed], dict[str, Packed]] = ({}, {})

    def held(self) -> frozenset[str]:
        """Names that somebody subscribes to by name."""
        return _NOTHING.union(*self.subscribed)


class ScopeResources:
    """What clients of one scope get."""

    def __init__(self, scope: Scope, generate: Generate, is_pending: Callable[[str], bool]) -> None:
        self.scope = scope
        self.is_pending = is_pending  # of the name of what is not there, or of an assignment without endpoints
        self.clients = 0  # streams that are bound to this object
        self._generate = generate
        self._shelves: dict[str, _Shelf] = {}

    def subscribe(self, type_url: str, names: frozenset[str], *, instead_of: frozenset[str] = frozenset()) -> frozenset[str]:
        """A client subscribes to `names` now.  What nobody had before is generated.  Returns the shared set to keep."""
        shelf = self._shelves.setdefault(type_url, _Shelf())
        entry = shelf.subscribed.get(names)
        if entry is None:
            missing = names - shelf.packed.keys()
            if missing:
                shelf.packed.update(self._generated(type_url, missing))
            entry = _Names(names)
            if names:
                shelf.subscribed[entry.names] = entry
                shelf.size += len(names)
        entry.clients += 1
        if instead_of:
            self.unsubscribe(type_url, instead_of)
        return entry.names

    def unsubscribe(self, type_url: str, names: frozenset[str]) -> None:
        """A client does not want the set `names` any more."""
        if not names:
            return
        shelf = self._shelves[type_url]
        entry = shelf.subscribed[names]
        entry.clients -= 1
        if entry.clients:
            return
        del shelf.subscribed[names]
        shelf.size -= len(names)
        shelf.stale += len(names)
        # Seldom enough that the work is in proportion to what was subscribed to in the meantime.
        if shelf.stale > shelf.size + _TOLERATED and not shelf.complete:
            held = shelf.held()
            shelf.packed = {name: packed for name, packed in shelf.packed.items() if name in held}
            shelf.stale = 0

    def subscribe_all(self, type_url: str) -> None:
        """A client subscribes to everything of this type."""
        shelf = self._shelves.setdefault(type_url, _Shelf())
        if not shelf.complete:
            shelf.packed.update(self._generated(type_url, None))
        shelf.complete += 1

    def unsubscribe_all(self, type_url: str) -> None:
        """The opposite of `subscribe_all`."""
        shelf = self._shelves[type_url]
        shelf.complete -= 1
        if not shelf.complete:
            held = shelf.held()
            shelf.packed = {name: packed for name, packed in shelf.packed.items() if name in held}

    def outdated(self, type_url: str, names: AbstractSet[str], claimed: Mapping[str, str]) -> set[str]:
        """Those of `names` whose newest version is not the claimed one."""
        packed = self._shelves[type_url].packed
        if not claimed:
            return set(names)
        return {name for name in names if (new := packed.get(name)) is None or new.version != claimed.get(name)}

    def get(self, type_url: str, name: str) -> Packed | None:
        """The newest version; None: it does not exist.  Only for names that are subscribed to."""
        shelf = self._shelves.get(type_url)
        return shelf.packed.get(name) if shelf is not None else None

    def retired(self, type_url: str, name: str) -> Packed | None:
        """The last version of what was removed a short while ago."""
        shelf = self._shelves.get(type_url)
        if shelf is None:
            return None
        return shelf.retired[0].get(name) or shelf.retired[1].get(name)

    def everything(self, type_url: str) -> Iterator[str]:
        """The names that exist.  Only under `subscribe_all`."""
        return (name for name, packed in self._shelves[type_url].packed.items() if packed is not None)

    def refresh(self, type_url: str, names: frozenset[str] | None = None) -> frozenset[str]:
        """Generate anew what is subscribed to (of `names`, if given) and return the names whose content changed."""
        shelf = self._shelves.get(type_url)
        if shelf is None:
            return frozenset()
        before = shelf.packed
        after = self._renewed(shelf, type_url, names)
        for name, packed in after.items():
            old = before.get(name)
            if packed is not None and old is not None and packed.version == old.version:
                after[name] = old  # its frames are made already
        changed = {name for name, packed in after.items() if packed is not before.get(name)}
        gone = {name: old for name, old in before.items() if old is not None and after.get(name) is None}
        if changed or gone:
            shelf.retired = (gone, shelf.retired[0])
        shelf.packed = after
        if names is None:
            shelf.stale = 0
        return frozenset(changed | gone.keys())

    def _renewed(self, shelf: _Shelf, type_url: str, names: frozenset[str] | None) -> dict[str, Packed | None]:
        if names is not None:
            known = frozenset(name for name in names if name in shelf.packed)
            return {**shelf.packed, **self._generated(type_url, known)} if known else dict(shelf.packed)
        after = self._generated(type_url, None) if shelf.complete else {}
        others = shelf.held() - after.keys()
        return {**after, **self._generated(type_url, others)} if others else after

    def _generated(self, type_url: str, names: frozenset[str] | None) -> dict[str, Packed | None]:
        found: dict[str, Packed | None] = dict.fromkeys(names or ())
        for name, message in self._generate(type_url, names).items():
            if names is None or name in names:
                found[name] = Packed(name, type_url, message)
        return found


@dataclass(frozen=True, slots=True)
class Update:
    """What is left to do after a new world was taken: renew what clients hold.

    One step at a time, so that an event loop can breathe in between.  Each returns (resources, type URL, changed names);
    one that raises leaves that type of that scope as it was.
    """

    everything: bool  # clients may belong to other scopes now
    steps: Sequence[Callable[[], tuple[ScopeResources, str, frozenset[str]]]]


class ResourceCache(Generic[W]):
    """All scopes over one world."""

    def __init__(self, compiler: Compiler[W], world: W, label: str = "") -> None:
        self._compiler = compiler
        self.world = world
        self.label = label  # of `world`, for people
        self._scopes: dict[Scope, ScopeResources] = {}

    def resources_for(self, node: Node) -> ScopeResources:
        """The resources of whoever is like `node`, in the newest world."""
        scope = self._compiler.scope_of(self.world, node)
        resources = self._scopes.get(scope)
        if resources is None:
            resources = ScopeResources(scope, self._generator(scope), self._pending(scope))
            self._scopes[scope] = resources
        return resources

    def update(self, world: W, label: str = "") -> Update:
        """Take a new world; whatever is compiled on demand comes from it at once."""
        affected = self._compiler.affected(self.world, world)
        self.world, self.label = world, label
        self._scopes = {scope: resources for scope, resources in self._scopes.items() if resources.clients}
        changed: dict[str, frozenset[str] | None] = {}
        if affected.everything:
            changed = dict.fromkeys(TYPES)
        else:
            some = {CLUSTER: affected.clusters, ENDPOINTS: affected.endpoint_clusters}
            changed.update((type_url, names) for type_url, names in some.items() if names)
        steps = [
            partial(_refresh, resources, type_url, names)
            for resources in self._scopes.values()
            for type_url, names in changed.items()
        ]
        return Update(affected.everything, steps)

    def _generator(self, scope: Scope) -> Generate:
        return lambda type_url, names: self._compiler.generate(self.world, scope, type_url, names)

    def _pending(self, scope: Scope) -> Callable[[str], bool]:
        return lambda name: self._compiler.is_pending(self.world, scope, name)


def _refresh(
    resources: ScopeResources, type_url: str, names: frozenset[str] | None
) -> tuple[ScopeResources, str, frozenset[str]]:
    return resources, type_url, resources.refresh(type_url, names)
