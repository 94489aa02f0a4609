"""Snapshots without a stream: resources come from a function, and are decoded and joined as those of a control service are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from meshlib.model.snapshot import Snapshot
from meshlib.testing.static import LocalControl
from meshlib.xds.decode import decode
from meshlib.xds.invalid import ResourceInvalid
from meshlib.xds.join import Roots, join
from meshlib.xds.states import ResourceKey, ResourceState, Status

Generate = Callable[[str, Collection[str]], Mapping[str, bytes]]
"""Type URL and names -> the resources that there are, as bytes."""


@dataclass(frozen=True, slots=True)
class _Received:
    content: bytes | None
    state: ResourceState


class CompiledControl(LocalControl):
    """What a `Mesh` takes in the place of a control service's address.

    A resource that is not understood is refused as on a stream (NACK): the last good one stays.  `refused` says which and why.
    """

    def __init__(self, generate: Generate) -> None:
        super().__init__(Snapshot())
        self._generate = generate
        self._received: dict[ResourceKey, _Received] = {}
        self._authorities: dict[str, None] = {}
        self._ports: dict[int, None] = {}

    @property
    def state(self) -> str:
        return "compiled in this process"

    @property
    def refused(self) -> dict[str, str]:
        """Resources whose newest version was not understood, by name: why."""
        states = {name: received.state for (_, name), received in self._received.items()}
        return {name: state.error for name, state in states.items() if state.status is Status.NACKED}

    def refresh(self) -> None:
        """Ask for everything anew; what has changed is published."""
        self._join(dict.fromkeys(self._received))

    def request(self, authority: str) -> None:
        if authority not in self._authorities:
            self._authorities[authority] = None
            self._join({})

    def serve_port(self, port: int) -> None:
        if port not in self._ports:
            self._ports[port] = None
            self._join({})

    def _join(self, stale: dict[ResourceKey, None]) -> None:
        """Until nothing that is wanted is missing.  `stale`: what has to be asked for again."""
        roots = Roots(tuple(self._authorities), tuple(self._ports))
        while True:
            states = {key: received.state for key, received in self._received.items() if key not in stale}
            joined = join(states, roots, self.current)
            wanted = {(type_url, name) for type_url, names in joined.wanted.items() for name in names}
            missing = wanted - states.keys()
            if not missing:
                break
            self._fetch(missing)
            for key in missing:
                stale.pop(key, None)
        self._received = {key: received for key, received in self._received.items() if key in wanted}
        if joined.snapshot is not self.current:
            for listener in self._listeners:
                listener(joined.snapshot)
            self.current = joined.snapshot

    def _fetch(self, keys: Collection[ResourceKey]) -> None:
        by_type: dict[str, list[str]] = {}
        for type_url, name in sorted(keys):
            by_type.setdefault(type_url, []).append(name)
        for type_url, names in by_type.items():
            found = self._generate(type_url, names)
            for name in names:
                self._receive((type_url, name), found.get(name))

    def _receive(self, key: ResourceKey, content: bytes | None) -> None:
        before = self._received.get(key)
        if before is not None and before.content == content:
            return
        last_good = before.state.value if before is not None else None
        if content is None:
            # As on a stream: what is gone stays in force where the join keeps it, and is known to be gone.
            state = ResourceState(Status.DOES_NOT_EXIST, last_good, error="it does not exist")
        else:
            try:
                state = ResourceState(Status.ACKED, decode(key[0], content)[1])
            except ResourceInvalid as error:
                state = ResourceState(Status.NACKED, last_good, error=str(error))
        self._received[key] = _Received(content, state)

    # --- the rest of what a Mesh asks its source of snapshots

    def announce(self, port: int, *, mtls: bool, ready: Callable[[], bool]) -> None:
        """Who is declared is known."""

    def withdraw(self) -> None:
        """Who is declared stays so."""
