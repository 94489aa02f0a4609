"""Who is asking: what of a client decides the resources that it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Flavour = Literal["meshlib", "envoy", "grpc"]


@dataclass(frozen=True, slots=True)
class Node:
    """One client of the control service."""

    flavour: Flavour = "meshlib"
    id: str = ""
    service: str = ""
    namespace: str = "default"
    service_account: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """Clients with equal scopes get equal resources: the key of every cache, so it is hashable and as small as it can be.

    `labels` holds only those that some configuration asks for (``sourceLabels``), sorted.
    """

    flavour: Flavour
    namespace: str
    labels: tuple[tuple[str, str], ...] = ()
