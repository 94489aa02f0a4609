"""What sources know, in one form, and how it becomes services and instances.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from meshlib_control.catalog.leases import Lease, LeaseTable, Record, Standing, changed_records
from meshlib_control.catalog.model import Instance, InstanceHealth, Port, Service, registered_host

Source = Literal["registry", "consul"]
DEFAULT_PORT = 80


@dataclass(frozen=True, slots=True)
class Offer:
    """One instance, and what it says about its service.  `service_port` is the one that callers name, 0 if not said."""

    host: str
    namespace: str
    instance: Instance
    service_port: int = 0
    protocol: str = "http"
    source: Source = "registry"
    registered_as: str = ""  # Consul only: the instance id of the registration that this is the reflection of


ByHost = Mapping[str, tuple[Offer, ...]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What all sources say at one moment.

    A host in `services` but not in `instances` is known by name only: nobody looks at its instances.
    `left`: instances that went on purpose.
    """

    services: Mapping[str, Service] = field(default_factory=dict)
    instances: Mapping[str, tuple[Instance, ...]] = field(default_factory=dict)
    left: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Merged:
    """`offers` is what the rest was made of, so that the next merge can tell what is still the same."""

    offers: ByHost = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    instances: Mapping[str, tuple[Instance, ...]] = field(default_factory=dict)


class RegistryIndex:
    """What a lease table offers, by host.  Works on differences: of twenty thousand leases one is different, as a rule."""

    def __init__(self, domain: str) -> None:
        self.offers: dict[str, tuple[Offer, ...]] = {}  # of living leases; a host that did not change keeps its tuple
        self.known: dict[str, Service] = {}  # services whose instances have all gone, remembered as long as their marks
        self.left: frozenset[str] = frozenset()  # instances that deregistered
        self._domain = domain
        self._leases: Mapping[str, Lease] = {}
        self._alive: dict[str, dict[str, Offer]] = {}  # by host and instance
        self._marks: dict[str, Record] = {}

    def update(self, table: LeaseTable) -> None:
        before, after = self._leases, table.leases
        touched = set()
        for instance_id in changed_records(before, after):
            if instance_id in before:
                touched.add(self._remove(instance_id, before[instance_id].record))
            if instance_id in after:
                touched.add(self._add(instance_id, after[instance_id].record))
        self._leases = after
        for host in touched:
            offers = self._alive.get(host)
            if offers:
                self.offers[host] = tuple(offers.values())
            else:
                self.offers.pop(host, None)
        if touched:
            self.left = frozenset(name for name, record in self._marks.items() if record.standing is Standing.LEFT)
            gone = [_offer(record, self._domain) for record in self._marks.values()]
            self.known = {offer.host: _service(offer.host, [offer]) for offer in gone if offer.host not in self.offers}

    def _add(self, instance_id: str, record: Record) -> str:
        offer = _offer(record, self._domain)
        if record.standing is Standing.UP:
            self._alive.setdefault(offer.host, {})[instance_id] = offer
        else:
            self._marks[instance_id] = record
        return offer.host

    def _remove(self, instance_id: str, record: Record) -> str:
        host = _host(record, self._domain)
        self._marks.pop(instance_id, None)
        alive = self._alive.get(host, {})
        alive.pop(instance_id, None)
        if not alive:
            self._alive.pop(host, None)
        return host


def _host(record: Record, domain: str) -> str:
    return registered_host(record.registration.service, record.registration.namespace, domain)


def _offer(record: Record, domain: str) -> Offer:
    registration = record.registration
    return Offer(
        host=_host(record, domain),
        namespace=registration.namespace,
        instance=Instance(
            id=registration.instance_id,
            address=registration.address,
            port=registration.port,
            labels=registration.labels,
            locality=registration.locality,
            weight=registration.weight,
            health=InstanceHealth.HEALTHY if record.ready else InstanceHealth.UNHEALTHY,
            service_account=registration.service_account,
            mtls=registration.mtls,
            ports=registration.ports,
        ),
        service_port=registration.service_port,
        protocol=registration.protocol,
    )


def grouped(offers: Iterable[Offer]) -> dict[str, tuple[Offer, ...]]:
    """By host."""
    hosts: dict[str, list[Offer]] = {}
    for offer in offers:
        hosts.setdefault(offer.host, []).append(offer)
    return {host: tuple(found) for host, found in hosts.items()}


def without_reflections(offers: ByHost, leases: Container[str]) -> ByHost:
    """Consul's offers without those that are registered here: the registration itself is known, and its end too."""
    return {
        host: tuple(offer for offer in found if offer.registered_as not in leases)
        if any(offer.registered_as for offer in found)
        else found
        for host, found in offers.items()
    }


def merge(sources: Sequence[ByHost], known: Mapping[str, Service], *, before: Merged) -> Merged:
    """Services and instances by host.  `known`: services that exist whether or not anybody offers them.

    Where two sources offer the same address and port, the registration counts.
    """
    combined: dict[str, tuple[Offer, ...]] = {}
    for source in sources:
        for host, offers in source.items():
            combined[host] = combined[host] + offers if host in combined else offers
    combined = {host: offers for host, offers in combined.items() if offers}
    services, instances = dict(known), {}
    for host, offers in combined.items():
        if before.offers.get(host) == offers:
            services[host], instances[host] = before.services[host], before.instances[host]
            continue
        ordered = _distinct(offers)
        services[host] = _service(host, ordered)
        instances[host] = tuple(offer.instance for offer in ordered)
    return Merged(combined, services, instances)


def _distinct(offers: Iterable[Offer]) -> list[Offer]:
    places: dict[tuple[str, int], Offer] = {}
    for offer in offers:
        where = (offer.instance.address, offer.instance.port)
        if where not in places or (places[where].source, offer.source) == ("consul", "registry"):
            places[where] = offer
    return sorted(places.values(), key=lambda offer: offer.instance.id)


def _service(host: str, offers: list[Offer]) -> Service:
    by_name = any(not _is_literal(offer.instance.address) for offer in offers)
    return Service(
        host=host,
        namespace=offers[0].namespace,
        ports=service_ports(offers),
        resolution="DNS" if by_name else "STATIC",
        source="registry" if any(offer.source == "registry" for offer in offers) else "consul",
    )


def service_ports(offers: Iterable[Offer]) -> tuple[Port, ...]:
    """The ports that callers may name: those that instances give, else 80; and any port that all of them listen on.

    The last makes ``http://reviews:9080`` work as long as every instance of reviews listens on 9080.
    """
    offers = list(offers)
    named: dict[int, Counter[str]] = {}
    for offer in offers:
        if offer.service_port:
            named.setdefault(offer.service_port, Counter())[offer.protocol] += 1
    everyone: Counter[str] = Counter(offer.protocol for offer in offers)
    if not named:
        named[DEFAULT_PORT] = everyone
    listened = {offer.instance.port for offer in offers}
    if len(listened) == 1:
        named.setdefault(listened.pop(), everyone)
    return tuple(Port(number, _most_common(protocols)) for number, protocols in sorted(named.items()))


def _most_common(protocols: Counter[str]) -> str:
    """Of equally common ones the first by name, so that replicas agree."""
    return min(protocols, key=lambda name: (-protocols[name], name), default="http")


def _is_literal(address: str) -> bool:
    return ":" in address or address.replace(".", "").isdigit()
