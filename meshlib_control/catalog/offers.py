"""What sources know, in one form, and how it becomes services and instances.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshlib_control.catalog.leases import LeaseTable, Record, Standing
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

    offers: Mapping[str, tuple[Offer, ...]] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    instances: Mapping[str, tuple[Instance, ...]] = field(default_factory=dict)


class RegistryOffers:
    """Offers and services from a lease table.  Remembers what it made, so that what did not change is the same object."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._made: dict[str, tuple[Record, Offer]] = {}

    def of(self, table: LeaseTable) -> list[Offer]:
        """Of living leases only."""
        made = {}
        for instance_id, lease in table.leases.items():
            if lease.record.standing is Standing.UP:
                known = self._made.get(instance_id)
                same = known is not None and known[0] is lease.record
                made[instance_id] = known if known is not None and same else (lease.record, _offer(lease.record, self._domain))
        self._made = made
        return [offer for _, offer in made.values()]

    def known(self, table: LeaseTable) -> dict[str, Service]:
        """Services whose instances have all gone are remembered as long as the marks of these are."""
        alive = {offer.host for _, offer in self._made.values()}
        services = {}
        for lease in table.leases.values():
            if lease.record.standing is not Standing.UP:
                offer = _offer(lease.record, self._domain)
                if offer.host not in alive:
                    services[offer.host] = _service(offer.host, [offer])
        return services


def _offer(record: Record, domain: str) -> Offer:
    registration = record.registration
    return Offer(
        host=registered_host(registration.service, registration.namespace, domain),
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
        ),
        service_port=registration.service_port,
        protocol=registration.protocol,
    )


def merge(offers: Iterable[Offer], known: Mapping[str, Service], *, before: Merged) -> Merged:
    """Services and instances by host.  `known`: services that exist whether or not anybody offers them.

    Where two sources offer the same address and port, the registration counts.
    """
    hosts: dict[str, list[Offer]] = {}
    for offer in offers:
        hosts.setdefault(offer.host, []).append(offer)
    grouped: dict[str, tuple[Offer, ...]] = {}
    services, instances = dict(known), {}
    for host, found in hosts.items():
        grouped[host] = tuple(found)
        if before.offers.get(host) == grouped[host]:
            services[host], instances[host] = before.services[host], before.instances[host]
            continue
        ordered = _distinct(found)
        services[host] = _service(host, ordered)
        instances[host] = tuple(offer.instance for offer in ordered)
    return Merged(grouped, services, instances)


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
