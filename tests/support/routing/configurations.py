"""Configurations of Istio's kinds at random, each in namespaces and domains of its own, so that one Envoy can have many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from meshlib_control.catalog.model import CatalogSnapshot, Instance, Port, Service, registered_host
from tests.support.routing.rules import Hosts, rules
from tests.support.routing.vocabulary import VERSIONS, Document, chance, some

NAMES = ("reviews", "ratings", "details")
PORT_SETS = ((80,), (80,), (9080,), (80, 8080), (8080, 9080))
CALLER_LABELS = {"app": "client", "version": "v1", "team": "a"}


@dataclass(slots=True)
class Configuration:
    """`documents`: the oldest first.  The caller is in `namespace`, with `CALLER_LABELS`."""

    index: int
    namespace: str
    other: str  # another namespace with services and rules
    documents: list[Document] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    instances: dict[str, tuple[Instance, ...]] = field(default_factory=dict)
    hosts: list[Hosts] = field(default_factory=list)
    unlisted: list[Hosts] = field(default_factory=list)  # that rules do not speak of

    def catalog(self) -> CatalogSnapshot:
        return CatalogSnapshot({service.host: service for service in self.services}, self.instances)

    def place(self, address: str, cluster: str = "||") -> str:
        """Whose an endpoint's address is; and of which version, if the cluster is a subset."""
        for document in self.documents:
            for endpoint in document["spec"].get("endpoints", ()):
                if endpoint["address"] == address:
                    return _placed(str(document["spec"]["hosts"]), endpoint["labels"], cluster)
        for host, instances in self.instances.items():
            for instance in instances:
                if instance.address == address:
                    return _placed(host, instance.labels, cluster)
        raise KeyError(address)

    def add(self, kind: str, name: str, spec: Document, namespace: str = "") -> None:
        metadata = {"name": name, "namespace": namespace or self.namespace}
        self.documents.append({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec})


def _placed(host: str, labels: Mapping[str, str], cluster: str) -> str:
    return f"{host} {labels['version']}" if cluster.split("|")[2] else host


def configuration(index: int, rng: Random, port: int) -> Configuration:
    """`port`: on which all endpoints listen, each on an address of its own in 127.0.0.0/8."""
    found = Configuration(index, f"n{index}", f"o{index}")
    places = _Places(index, port)
    for name in some(rng, NAMES, 3):
        _register(found, places, rng, name, found.namespace)
    for name in some(rng, NAMES, 2):
        _register(found, places, rng, name, found.other)
    _declare(found, places, rng)
    for known in list(found.hosts):
        if chance(rng, 0.8):
            _subsets(found, rng, known)
    for number in range(rng.randint(2, 5)):
        _virtual_service(found, rng, number)
    if chance(rng, 0.2):
        visible = rng.choice(
            (["./*"], ["./*", f"{found.other}/*"], [f"*/reviews.{found.other}.svc.cluster.local", "./*"], ["~/*"])
        )
        found.add("Sidecar", "default", {"egress": [{"hosts": visible}]})
    _mesh_config(found, rng)
    return found


class _Places:
    """Addresses for endpoints."""

    def __init__(self, index: int, port: int) -> None:
        self._base = f"127.{index // 250 + 1}.{index % 250}."
        self._last = 0
        self.port = port

    def next(self) -> str:
        self._last += 1
        return self._base + str(self._last)


def _register(found: Configuration, places: _Places, rng: Random, name: str, namespace: str) -> None:
    host = registered_host(name, namespace)
    versions = some(rng, VERSIONS, 3)
    numbers = rng.choice(PORT_SETS)
    ports = tuple(Port(number, name="http" if number == numbers[0] else f"http-{number}") for number in numbers)
    found.services.append(Service(host, namespace, ports))
    found.instances[host] = tuple(
        Instance(f"{host}-{version}-{number}", places.next(), places.port, labels={"app": name, "version": version})
        for version in versions
        for number in range(rng.choice((1, 1, 2)))
    )
    found.hosts.append(Hosts(host, name, namespace, numbers, tuple(versions)))


def _declare(found: Configuration, places: _Places, rng: Random) -> None:
    """ServiceEntries: exact and wildcard hosts, with virtual addresses or without, private or public."""
    domain = f"c{found.index}.test"
    for number, host in enumerate(some(rng, (f"api.{domain}", f"*.wild.{domain}", f"*.{domain}", f"shop.{domain}"), 3)):
        namespace = rng.choice((found.namespace, found.other))
        ports = rng.choice(PORT_SETS)
        versions = some(rng, VERSIONS, 2)
        spec: Document = {
            "hosts": [host],
            "ports": [{"number": each, "name": f"http-{each}", "protocol": "HTTP"} for each in ports],
            "location": rng.choice(("MESH_INTERNAL", "MESH_EXTERNAL")),
            "resolution": rng.choice(("STATIC", "STATIC", "DNS")) if "*" not in host else "STATIC",
            "endpoints": [_endpoint(places, ports, version) for version in versions],
        }
        addresses: tuple[str, ...] = ()
        if chance(rng, 0.3):
            addresses = (f"240.{found.index // 250}.{found.index % 250}.{number + 1}",)
            spec["addresses"] = list(addresses)
        if chance(rng, 0.3):
            spec["exportTo"] = [rng.choice((".", "*", found.namespace))]
        found.add("ServiceEntry", f"entry-{number}", spec, namespace)
        found.hosts.append(Hosts(host, "", namespace, ports, tuple(versions), addresses))
    anywhere = f"anywhere{found.index}.test"
    port = {"number": 80, "name": "http", "protocol": "HTTP"}
    found.add("ServiceEntry", "anywhere", {"hosts": [anywhere], "ports": [port], "resolution": "NONE"})
    found.unlisted.append(Hosts(anywhere, "", found.namespace, (80,), ()))


def _endpoint(places: _Places, ports: tuple[int, ...], version: str) -> Document:
    return {"address": places.next(), "ports": {f"http-{each}": places.port for each in ports}, "labels": {"version": version}}


def _subsets(found: Configuration, rng: Random, known: Hosts) -> None:
    """A DestinationRule; sometimes by a name that needs completion, sometimes with a subset that nobody is in."""
    host = known.short if known.short and chance(rng, 0.5) else known.host
    labels = [(version, {"version": version}) for version in (*known.versions, "v3")]
    subsets = [{"name": name, "labels": dict(wanted)} for name, wanted in dict(labels).items()]
    spec: Document = {"host": host, "subsets": subsets}
    if chance(rng, 0.3):
        spec["trafficPolicy"] = {"loadBalancer": {"simple": rng.choice(("RANDOM", "ROUND_ROBIN", "LEAST_REQUEST"))}}
    if chance(rng, 0.2):
        spec["exportTo"] = [rng.choice((".", "*", found.namespace))]
    found.add("DestinationRule", f"rule-{len(found.documents)}", spec, known.namespace)


def _virtual_service(found: Configuration, rng: Random, number: int) -> None:
    domain = f"c{found.index}.test"
    namespace = rng.choice((found.namespace, found.namespace, found.other))
    target = rng.choice(found.hosts)
    hosts = {_written(rng, target, namespace)}
    if chance(rng, 0.3):
        hosts.add(_written(rng, rng.choice(found.hosts), namespace))
    if chance(rng, 0.15):
        hosts.add(
            rng.choice((f"*.{found.namespace}.svc.cluster.local", f"*.{domain}", f"x.wild.{domain}", f"virtual.{domain}"))
        )
    found.hosts += [
        Hosts(host, "", namespace, (80,), ()) for host in sorted(hosts) if host.endswith(".test") and "*" not in host
    ]
    delegates: list[Document] = []
    spec: Document = {"hosts": sorted(hosts), "http": rules(rng, found.hosts, namespace, delegates)}
    if chance(rng, 0.25):
        spec["exportTo"] = rng.choice((["."], ["*"], [found.namespace], [found.other], [found.namespace, found.other]))
    if chance(rng, 0.1):
        spec["gateways"] = ["mesh"]
    for place, delegate in enumerate(delegates):
        found.add("VirtualService", f"delegate-{number}-{place}", delegate, namespace)
    for place, rule in enumerate(rule for rule in spec["http"] if "delegate" in rule):
        rule["delegate"] = {"name": f"delegate-{number}-{place}"} | ({"namespace": namespace} if chance(rng, 0.5) else {})
    found.add("VirtualService", f"routes-{number}", spec, namespace)


def _written(rng: Random, target: Hosts, namespace: str) -> str:
    """A host as somebody in `namespace` may write it."""
    if target.short and target.namespace == namespace and chance(rng, 0.6):
        return target.short
    if target.addresses and chance(rng, 0.3):
        return target.addresses[0]
    return target.host


def _mesh_config(found: Configuration, rng: Random) -> None:
    spec: dict[str, Any] = {}
    if chance(rng, 0.5):
        spec["outboundTrafficPolicy"] = {"mode": "REGISTRY_ONLY"}
    if chance(rng, 0.5):
        mode = rng.choice(("NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"))
        spec["pathNormalization"] = {"normalization": mode}
    if spec:
        found.documents.append(
            {"apiVersion": "meshlib.io/v1", "kind": "MeshConfig", "metadata": {"name": "mesh"}, "spec": spec}
        )
