"""ServiceEntry and WorkloadEntry."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.kinds import LabelSelector, ServiceEntry, ServicePort, WorkloadEntry
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names

UNIX = "unix://"

HTTP_PROTOCOLS = frozenset({"http", "http2", "http_proxy", "grpc", "grpc-web"})
TLS_PROTOCOLS = frozenset({"https", "tls"})
_TCP_PROTOCOLS = frozenset({"tcp", "mongo", "redis", "mysql", "hbone", "double-hbone"})
PROTOCOLS = HTTP_PROTOCOLS | TLS_PROTOCOLS | _TCP_PROTOCOLS | {"udp"}


def check_service_entry(spec: ServiceEntry, namespace: str) -> Iterator[Problem]:
    """Istio's rules."""
    yield from under(("hosts",), _check_hosts(spec))
    yield from _check_addresses(spec)
    yield from _check_ports(spec)
    yield from _check_resolution(spec)
    yield from _check_endpoints(spec)
    yield from under(("workloadSelector",), check_label_selector(spec.workload_selector))
    if spec.workload_selector is not None and spec.endpoints:
        yield Problem(("workloadSelector",), "MSH0136", "endpoints and workloadSelector exclude each other")
    yield from under(("exportTo",), names.check_export_to(spec.export_to, namespace, allow_none=True))


def check_workload_entry(spec: WorkloadEntry, _namespace: str = "") -> Iterator[Problem]:
    """Istio's rules for an instance that stands alone."""
    yield from _check_instance(spec, allow_names=True)


def _check_hosts(spec: ServiceEntry) -> Iterator[Problem]:
    if not spec.hosts:
        yield Problem((), "MSH0143", "there are no hosts; name at least one")
    for index, host in enumerate(spec.hosts):
        fault = (
            "* would be every host; name a host, or a suffix such as *.example.com" if host == "*" else names.host_fault(host)
        )
        if fault:
            yield Problem((index,), "MSH0121", fault)
        elif host.startswith("*") and not host.startswith("*."):
            yield Problem((index,), "MSH0151", f"{host}: a wildcard that is part of a label is not matched by all clients")


def _check_addresses(spec: ServiceEntry) -> Iterator[Problem]:
    for index, address in enumerate(spec.addresses):
        fault = names.address_fault(address)
        if fault:
            yield Problem(("addresses", index), "MSH0135", fault)
        elif "/" in address and spec.resolution not in ("NONE", "STATIC"):
            message = f"networks go with resolution NONE and STATIC only, not with {spec.resolution}"
            yield Problem(("addresses", index), "MSH0136", message)


def _check_ports(spec: ServiceEntry) -> Iterator[Problem]:
    port_names: set[str] = set()
    numbers: set[int] = set()
    for index, port in enumerate(spec.ports):
        yield from under(("ports", index), _check_port(port, spec))
        if port.name in port_names:
            yield Problem(("ports", index, "name"), "MSH0125", f"the name {port.name} is already taken by another port")
        if port.number in numbers:
            yield Problem(("ports", index, "number"), "MSH0125", f"the number {port.number} is already taken by another port")
        port_names.add(port.name)
        numbers.add(port.number)


def _check_port(port: ServicePort, spec: ServiceEntry) -> Iterator[Problem]:
    yield from under(("number",), names.check_port(port.number))
    yield from under(("name",), check_port_name(port.name))
    yield from under(("protocol",), check_protocol(port.protocol))
    if port.target_port:
        yield from under(("targetPort",), names.check_port(port.target_port))
        if spec.resolution == "NONE":
            yield Problem(
                ("targetPort",), "MSH0151", "targetPort has no effect with resolution NONE: calls go where they were addressed"
            )


def check_protocol(protocol: str | None) -> Iterator[Problem]:
    """In any case; none at all is found out by looking at what is sent."""
    if protocol and protocol.lower() not in PROTOCOLS:
        yield Problem((), "MSH0125", f"{protocol!r} is not a protocol; known are {', '.join(sorted(PROTOCOLS))}")


def check_port_name(name: str) -> Iterator[Problem]:
    if not names.is_dns_label(name):
        message = f"{name!r} is not the name of a port: letters, digits and inner dashes, at most 63 characters"
        yield Problem((), "MSH0125", message)


def _check_resolution(spec: ServiceEntry) -> Iterator[Problem]:
    match spec.resolution:
        case "NONE" if spec.endpoints:
            message = "with resolution NONE, the default, calls go where they were addressed; use STATIC or DNS for endpoints"
            yield Problem(("endpoints",), "MSH0136", message)
        case "DNS" | "DNS_ROUND_ROBIN":
            if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
                yield Problem(("endpoints",), "MSH0136", "DNS_ROUND_ROBIN resolves one name; use DNS for several endpoints")
            if not spec.endpoints:
                for index, host in enumerate(spec.hosts):
                    if host.startswith("*") and not names.host_fault(host):
                        message = f"{host} cannot be resolved; give endpoints, or hosts without wildcard"
                        yield Problem(("hosts", index), "MSH0136", message)
        case "DYNAMIC_DNS":
            yield from _check_dynamic(spec)
        case _:
            pass
    names_apart = all(_protocol(port) in HTTP_PROTOCOLS | TLS_PROTOCOLS for port in spec.ports)
    if len(spec.hosts) > 1 and spec.resolution != "NONE" and not names_apart:
        message = "plain TCP does not say which host is meant: with several hosts all ports must be HTTP or TLS"
        yield Problem(("hosts",), "MSH0136", message)


def _check_dynamic(spec: ServiceEntry) -> Iterator[Problem]:
    if spec.endpoints:
        yield Problem(("endpoints",), "MSH0136", "DYNAMIC_DNS resolves the name that was called; endpoints have no meaning")
    if spec.workload_selector is not None:
        yield Problem(
            ("workloadSelector",), "MSH0136", "DYNAMIC_DNS resolves the name that was called; a selector has no meaning"
        )
    if spec.location != "MESH_EXTERNAL":
        yield Problem(("location",), "MSH0136", "DYNAMIC_DNS is for hosts outside of the mesh: MESH_EXTERNAL")
    for index, host in enumerate(spec.hosts):
        if not host.startswith("*"):
            yield Problem(("hosts", index), "MSH0136", f"DYNAMIC_DNS is for wildcards; use DNS for {host}")
    for index, port in enumerate(spec.ports):
        if _protocol(port) not in HTTP_PROTOCOLS | TLS_PROTOCOLS:
            yield Problem(
                ("ports", index, "protocol"), "MSH0136", "DYNAMIC_DNS needs HTTP or TLS, which say what host is meant"
            )


def _protocol(port: ServicePort) -> str:
    return (port.protocol or "").lower()


def _check_endpoints(spec: ServiceEntry) -> Iterator[Problem]:
    known = {port.name for port in spec.ports}
    for index, endpoint in enumerate(spec.endpoints):
        path = ("endpoints", index)
        yield from under(path, _check_instance(endpoint, allow_names=spec.resolution != "STATIC"))
        if not endpoint.address and endpoint.network and spec.resolution in ("DNS", "DNS_ROUND_ROBIN"):
            yield Problem((*path, "address"), "MSH0134", f"the address is missing, so {spec.resolution} has no name to resolve")
        for name in endpoint.ports:
            if name not in known:
                listed = ", ".join(sorted(known)) or "none"
                yield Problem((*path, "ports", name), "MSH0134", f"{name} is not a port of this ServiceEntry; it has {listed}")
        if _is_unix(endpoint):
            if len(spec.ports) != 1:
                yield Problem(
                    (*path, "address"), "MSH0134", "a socket serves one port, so the ServiceEntry must have exactly one"
                )
            if spec.resolution in ("DNS", "DNS_ROUND_ROBIN"):
                yield Problem(
                    (*path, "address"), "MSH0134", f"a socket has no name to resolve; use STATIC instead of {spec.resolution}"
                )


def _is_unix(entry: WorkloadEntry) -> bool:
    return (entry.address or "").startswith(UNIX)


def _check_instance(entry: WorkloadEntry, *, allow_names: bool) -> Iterator[Problem]:
    address = entry.address or ""
    if not address and not entry.network:
        yield Problem(("address",), "MSH0134", "the address is missing")
    elif _is_unix(entry):
        yield from check_socket_entry(entry)
    elif address and not names.is_ip(address):
        if not allow_names:
            yield Problem(("address",), "MSH0134", f"{address!r} is not an IP address; use resolution DNS for names")
        elif names.fqdn_fault(address):
            yield Problem(("address",), "MSH0134", f"{address!r} is neither an IP address nor a host name; ports go into ports")
    yield from check_ports_and_labels(entry)


def check_ports_and_labels(entry: WorkloadEntry) -> Iterator[Problem]:
    """Of an instance, or of a template for instances."""
    for name, number in entry.ports.items():
        yield from under(("ports", name), check_port_name(name))
        yield from under(("ports", name), names.check_port(number))
    yield from under(("labels",), names.check_labels(entry.labels))


def check_socket_entry(entry: WorkloadEntry) -> Iterator[Problem]:
    """What an instance at a socket of the file system must keep; nothing for others."""
    if not _is_unix(entry):
        return
    yield from under(("address",), check_socket(entry.address or ""))
    if entry.ports:
        yield Problem(("ports",), "MSH0134", "a socket has no ports")


def check_socket(address: str) -> Iterator[Problem]:
    """``unix:///path``, or ``unix://@name`` for one of the abstract namespace."""
    path = address.removeprefix(UNIX)
    if not path.startswith("@") and (not path.startswith("/") or path.endswith("/")):
        yield Problem((), "MSH0134", f"{address} is not an absolute path of a socket: unix:///path/to/socket")


def check_label_selector(selector: LabelSelector | None) -> Iterator[Problem]:
    """Labels are compared as they are; without any, the selector is Istio's for nothing or everything, which it warns of."""
    if selector is None:
        return
    if not selector.labels:
        yield Problem((), "MSH0151", "a selector without labels selects nothing")
    for key, value in selector.labels.items():
        if not key or "*" in key or "*" in value:
            yield Problem(
                ("labels", key), "MSH0142", "labels are compared as they are; wildcards and empty keys are not allowed"
            )
