"""Who is asking: what of a client decides the resources that it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Flavour = Literal["meshlib", "envoy", "grpc"]


_PROTOCOLS: Final[Mapping[str, Literal["http", "http2", "tcp"]]] = {
    "": "http",
    "http": "http",
    "http2": "http2",
    "grpc": "http2",
    "tcp": "tcp",
}


@dataclass(frozen=True, slots=True)
class ServedPort:
    """A port that a workload is called on.

    `application`: for Envoy, which has the port itself: where the application listens, on 127.0.0.1.
    """

    number: int
    application: int = 0
    protocol: Literal["http", "http2", "tcp"] = "http"

    @classmethod
    def parse(cls, text: str) -> ServedPort:
        """``9080``, ``9080:8080`` (the application's second), ``9080:8080/grpc``.  Raises ValueError saying what is wrong."""
        numbers, _, protocol = text.partition("/")
        parts = numbers.split(":")
        if not 1 <= len(parts) <= 2 or not all(part.isascii() and part.isdigit() and 0 < int(part) < 65536 for part in parts):
            raise ValueError(f"{text!r} is not a served port: expected PORT or PORT:APPLICATION, each 1 to 65535")
        if protocol not in _PROTOCOLS:
            raise ValueError(f"{text!r} is not a served port: the protocol is http, http2, grpc or tcp")
        return cls(int(parts[0]), int(parts[1]) if len(parts) == 2 else 0, _PROTOCOLS[protocol])


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
    ports: tuple[ServedPort, ...] = ()
    identity_file: str = ""  # of Envoy: see Scope
    group: str = ""  # the WorkloadGroup that it says it has joined


@dataclass(frozen=True, slots=True)
class Scope:
    """Clients with equal scopes get equal resources: the key of every cache, so it is hashable and as small as it can be.

    `labels` holds only those that some configuration asks for (``sourceLabels``, ``failoverPriority``), sorted.
    """

    flavour: Flavour
    namespace: str
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[ServedPort, ...] = ()  # of Envoy, which subscribes to all listeners; others ask for each by name
    # Of Envoy: its SDS file with the secret "default", the certificate and key. Keys never come from the control service.
    identity_file: str = ""
    locality: str = ""  # empty unless some rule that the scope sees orders endpoints by it
    cors: str = ""  # the service that its workloads answer browsers for; empty for all others
