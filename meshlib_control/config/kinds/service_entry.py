"""ServiceEntry and WorkloadEntry: hosts and instances that are written down instead of registering themselves."""
# ruff: noqa: RUF012 - msgspec copies an empty default for every instance

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from meshlib_control.config.kinds.common import Element, UInt32

Address = Annotated[str, Meta(max_length=256)]
Label = Annotated[str, Meta(max_length=63)]
Locality = Annotated[str, Meta(max_length=2048)]
Ports = Annotated[dict[str, UInt32], Meta(max_length=128)]


class WorkloadEntry(Element, frozen=True):
    """One instance. Inside a ServiceEntry it is an item of `endpoints`, alone it is a resource that selectors can choose."""

    address: Address | None = None
    """An IP address; a host name where the service's resolution is DNS."""
    ports: Ports = {}
    """Name of the service's port to the number that the instance listens on."""
    labels: Annotated[dict[str, str], Meta(max_length=256)] = {}
    """Labels for subsets."""
    network: Locality | None = None
    """The network that the instance is in."""
    locality: Locality | None = None
    """`region/zone/subzone`."""
    weight: UInt32 | None = None
    """Share of the requests relative to the other instances: 1 unless given."""
    service_account: Annotated[str, Meta(max_length=253)] | None = None
    """The account that the instance's certificate names."""


class ServicePort(Element, frozen=True):
    """A port that callers address."""

    number: UInt32
    """1 to 65535."""
    name: Annotated[str, Meta(max_length=256)]
    """Unique in the resource; endpoints refer to it."""
    protocol: Annotated[str, Meta(max_length=256)] | None = None
    """HTTP, HTTP2, GRPC, HTTPS, TLS, TCP ..., in any case; HTTP unless given."""
    target_port: UInt32 | None = None
    """The port that instances listen on: `number` unless given."""


class LabelSelector(Element, frozen=True):
    """Instances by their labels."""

    labels: Annotated[dict[str, Label], Meta(max_length=256)] = {}
    """All of these labels."""


class ServiceEntry(Element, frozen=True):
    """A host that does not register itself."""

    hosts: Annotated[tuple[str, ...], Meta(max_length=256)]
    """Its names; `*.suffix` is allowed where the resolution permits."""
    addresses: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=256)] = ()
    """Virtual addresses that mean this host."""
    ports: Annotated[tuple[ServicePort, ...], Meta(max_length=256)] = ()
    """The ports that callers address."""
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    """Whether its instances are part of the mesh."""
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    """`STATIC`: the addresses below; `DNS`: the names below, or the host itself, all answers in use;
    `DNS_ROUND_ROBIN`: the first answer."""
    endpoints: Annotated[tuple[WorkloadEntry, ...], Meta(max_length=4096)] = ()
    """Its instances."""
    workload_selector: LabelSelector | None = None
    """Its instances by their labels: the WorkloadEntry resources of the namespace that have them."""
    export_to: tuple[str, ...] = ()
    """Namespaces that see the resource: `.` its own, `*` all; the mesh's default unless given."""
    subject_alt_names: tuple[str, ...] = ()
    """Names of which a certificate of its instances must have one: SPIFFE IDs within the mesh, host names outside."""
