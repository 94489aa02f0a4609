"""WorkloadGroup: what the instances of a workload have in common, and how it is found out whether they are ready."""
# ruff: noqa: RUF012 - msgspec copies an empty default for every instance

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from meshlib_control.config.kinds.common import Element, UInt32
from meshlib_control.config.kinds.service_entry import WorkloadEntry

NonNegative = Annotated[int, Meta(ge=0, le=2_147_483_647)]


class GroupMetadata(Element, frozen=True):
    """Of the entry that Istio makes for an instance."""

    labels: Annotated[dict[str, str], Meta(max_length=256)] = {}
    """Labels of the instances."""
    annotations: Annotated[dict[str, str], Meta(max_length=256)] = {}
    """Annotations."""


class ProbeHeader(Element, frozen=True):
    """A header of a probe."""

    name: str | None = None
    """Its name."""
    value: str | None = None
    """Its value."""


class HTTPProbe(Element, frozen=True):
    """Ready when the answer is 200 to 399."""

    port: UInt32
    """1 to 65535."""
    path: str | None = None
    """`/` unless given."""
    host: str | None = None
    """Which host is asked, and named in the request: the process itself unless given."""
    scheme: str | None = None
    """`HTTP`, or `HTTPS` without verification."""
    http_headers: tuple[ProbeHeader, ...] = ()
    """Further headers."""


class TCPProbe(Element, frozen=True):
    """Ready when a connection can be opened."""

    port: UInt32
    """1 to 65535."""
    host: str | None = None
    """Which host is asked: the process itself unless given."""


class ExecProbe(Element, frozen=True):
    """Ready when a command ends with 0."""

    command: tuple[Annotated[str, Meta(min_length=1)], ...]
    """The command, without shell."""


class GrpcProbe(Element, frozen=True):
    """Ready when gRPC's health service says so."""

    port: UInt32 | None = None
    """1 to 65535; has to be given."""
    service: str | None = None
    """The service that is asked about."""


class ReadinessProbe(Element, frozen=True):
    """How it is found out whether an instance is ready."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("httpGet", "tcpSocket", "exec", "grpc"),)

    initial_delay_seconds: NonNegative | None = None
    """Seconds before the first probe."""
    timeout_seconds: NonNegative | None = None
    """Seconds for one probe: 1 unless given."""
    period_seconds: NonNegative | None = None
    """Seconds between probes: 10 unless given."""
    success_threshold: NonNegative | None = None
    """Successes in a row that make it ready: 1 unless given."""
    failure_threshold: NonNegative | None = None
    """Failures in a row that make it unready: 3 unless given."""
    http_get: HTTPProbe | None = None
    """A request."""
    tcp_socket: TCPProbe | None = None
    """A connection."""
    exec: ExecProbe | None = None
    """A command."""
    grpc: GrpcProbe | None = None
    """gRPC's health service."""


class WorkloadGroup(Element, frozen=True):
    """What the instances of a workload have in common. A process joins one by naming it when it registers."""

    template: WorkloadEntry
    """What an instance has that says nothing else: labels, ports, service account, locality, weight."""
    metadata: GroupMetadata | None = None
    """Labels that instances have beside those of the template."""
    probe: ReadinessProbe | None = None
    """How it is found out whether an instance is ready."""
