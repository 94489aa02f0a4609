"""Which services there are, and by which names a namespace may call them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from meshlib_control.catalog.model import Instance, Port, Service
from meshlib_control.compile.hosts import ANY, is_wildcard, matches, most_specific
from meshlib_control.compile.mesh_settings import MeshSettings, is_exported

_TLS = frozenset({"https", "tls"})
_NOT_HTTP = frozenset({"tcp", "udp", "mongo", "mysql", "redis", "unknown"}) | _TLS
_HTTP2 = frozenset({"http2", "grpc", "grpc-web"})


def is_http(port: Port) -> bool:
    """Whether VirtualServices' `http` rules hold for the port."""
    return port.protocol not in _NOT_HTTP


def is_http2(port: Port) -> bool:
    return port.protocol in _HTTP2


def is_tls(port: Port) -> bool:
    """The application itself speaks TLS here: nothing can be routed, the call passes as it is."""
    return port.protocol in _TLS


def port_of(service: Service, number: int) -> Port | None:
    for port in service.ports:
        if port.number == number:
            return port
    return None


def instance_port(instance: Instance, port: Port) -> int:
    """Where the instance listens for the service's port: by the port's name, as the service says, its own, the same."""
    return instance.ports.get(port.name) or port.target or instance.port or port.number


class Sight(Protocol):
    """What limits which of the exported services are seen (`compile.sidecars.Egress`)."""

    def sees(self, service: Service, port: int | None = None, /) -> bool: ...


class Services:
    """All services, by host.  Where several namespaces declare a host, a caller's own comes first, then the oldest."""

    def __init__(self, services: Iterable[Service], settings: MeshSettings) -> None:
        self._domain = settings.domain
        self._by_host: dict[str, tuple[Service, ...]] = {}
        self._by_address: dict[str, tuple[Service, ...]] = {}
        self._listed: dict[str, list[str]] = {}  # by first label: hosts of catalogs that are asked for one service at a time
        for service in services:
            self._by_host[service.host] = (*self._by_host.get(service.host, ()), service)
            for address in service.addresses:
                self._by_address[address] = (*self._by_address.get(address, ()), service)
            if service.source == "consul":
                self._listed.setdefault(service.host.partition(".")[0], []).append(service.host)
        self._wildcards = tuple(host for host in self._by_host if is_wildcard(host))
        self._hosts = tuple(sorted(self._by_host))
        self.hosts: Mapping[str, tuple[Service, ...]] = self._by_host

    def find(self, host: str, namespace: str, sight: Sight | None = None) -> Service | None:
        """The service of exactly this host that `namespace` sees."""
        return _visible(self._by_host.get(host, ()), namespace, sight)

    def covering(self, host: str, namespace: str, sight: Sight | None = None) -> Service | None:
        """The service of this host, or of the narrowest wildcard that covers it."""
        found = self.find(host, namespace, sight)
        if found is None and (pattern := most_specific(self._wildcards, host)) is not None:
            return self.find(pattern, namespace, sight)
        return found

    def called(self, name: str, namespace: str, sight: Sight | None = None) -> Service | None:
        """The service that a process in `namespace` means by `name`: any of `aliases`, or a name under a wildcard."""
        if found := self.find(name, namespace, sight):
            return found
        if found := _visible(self._by_address.get(name, ()), namespace, sight):
            return found
        for host in self.completions(name, namespace):
            if found := self.find(host, namespace, sight):
                return found if name in self.aliases(found, namespace) else None
        return self.covering(name, namespace, sight)

    def wildcards(self, host: str) -> list[str]:
        """Hosts of services that cover `host`, the narrowest first."""
        return sorted((pattern for pattern in self._wildcards if matches(pattern, host)), key=len, reverse=True)

    def visible(self, namespace: str, sight: Sight | None = None) -> tuple[Service, ...]:
        """One service a host, ordered by host."""
        found = (_visible(self._by_host[host], namespace, sight) for host in self._hosts)
        return tuple(service for service in found if service is not None)

    def completions(self, name: str, namespace: str) -> tuple[str, ...]:
        """The full names that a short one may stand for."""
        own = (f"{name}.{namespace}.svc.{self._domain}",) if "." not in name else ()
        return (*own, f"{name}.svc.{self._domain}", f"{name}.{self._domain}")

    def namesakes(self, name: str, namespace: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Hosts that `name` may stand for although no service has them, each with the listed hosts of the same first label.

        A catalog that is asked for one service at a time lists names.  In which namespace a service is, only its instances say.
        """
        suffix = f".svc.{self._domain}"
        for host in (name, *self.completions(name, namespace)):
            label, dot, owner = host.removesuffix(suffix).partition(".")
            if host.endswith(suffix) and dot and "." not in owner and label in self._listed:
                yield host, tuple(self._listed[label])

    def aliases(self, service: Service, namespace: str) -> tuple[str, ...]:
        """Every name for `service` in `namespace`, without port: the host, absolute, short forms, virtual addresses."""
        return (*self.host_aliases(service.host, service.namespace, namespace), *service.addresses)

    def host_aliases(self, host: str, owner: str | None, namespace: str) -> tuple[str, ...]:
        """Every name for a host in `namespace`.  `owner`: the host's namespace; None: the one that its name shows."""
        if is_wildcard(host):
            return (host,) if host == ANY else (host, f"{host}.")
        names = [host, f"{host}."]
        short, _, shown = host.removesuffix(f".svc.{self._domain}").rpartition(".")
        if host.endswith(f".svc.{self._domain}") and short and shown == (owner or shown):
            if shown == namespace:
                names.append(short)
            names += [f"{short}.{shown}", f"{short}.{shown}.svc"]
        return tuple(names)


def _visible(services: tuple[Service, ...], namespace: str, sight: Sight | None) -> Service | None:
    fallback: Service | None = None
    for service in services:
        if is_exported(service.export_to, service.namespace, namespace) and (sight is None or sight.sees(service)):
            if service.namespace == namespace:
                return service
            fallback = fallback or service
    return fallback
