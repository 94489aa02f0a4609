"""A configuration resource, whatever its kind, and a set of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Key:
    """Names a resource.  Written ``VirtualService/default/reviews``."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class Places(Protocol):
    """Where the parts of a resource are written."""

    def locate(self, path: tuple[str | int, ...]) -> tuple[int, int]:
        """Line and column, from 1, of ``("spec", "http", 0)`` or the nearest parent."""
        ...


@dataclass(frozen=True, slots=True)
class ConfigResource:
    """One validated document.

    `spec` is the typed value (config.kinds), `document` the plain mapping it was parsed from, as stored and shown again.
    `created` orders resources by age ("oldest wins" in Istio's merges): the revision that first stored the key.
    """

    key: Key
    api_version: str
    spec: Any
    document: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    created: int = 0
    file: str = ""
    line: int = 0
    places: Places | None = field(default=None, compare=False, repr=False)  # only of what was just read from a file


class ConfigSet:
    """Immutable; resources by kind, each kind in order of (created, namespace, name)."""

    __slots__ = ("_by_key", "_by_kind", "revision")

    def __init__(self, resources: Iterable[ConfigResource] = (), revision: int = 0) -> None:
        self._by_key = {resource.key: resource for resource in resources}
        ordered = sorted(self._by_key.values(), key=lambda r: (r.created, r.key.namespace, r.key.name))
        kinds: dict[str, list[ConfigResource]] = {}
        for resource in ordered:
            kinds.setdefault(resource.key.kind, []).append(resource)
        self._by_kind = {kind: tuple(items) for kind, items in kinds.items()}
        self.revision = revision

    def of(self, kind: str) -> tuple[ConfigResource, ...]:
        return self._by_kind.get(kind, ())

    def get(self, key: Key) -> ConfigResource | None:
        return self._by_key.get(key)

    def __iter__(self) -> Iterator[ConfigResource]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key
