"""Sidecar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshlib_control.config.kinds import EgressListener, IngressListener, Sidecar, SidecarOutboundTrafficPolicy, SidecarPort
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.policies import check_connection_pool
from meshlib_control.config.validate.server_tls import check_server_tls
from meshlib_control.config.validate.service_entry import (
    HTTP_PROTOCOLS,
    TLS_PROTOCOLS,
    UNIX,
    check_label_selector,
    check_port_name,
    check_protocol,
    check_socket,
)

_LOCAL = frozenset({"", "127.0.0.1", "0.0.0.0", "::1", "::"})
_EVERY = ("*", ".", "~")
_FORM = "write namespace/host, such as ./*, */*, shop/*.example.com, ~/*"


def check_sidecar(spec: Sidecar, namespace: str) -> Iterator[Problem]:
    """Istio's rules."""
    yield from under(("workloadSelector",), check_label_selector(spec.workload_selector))
    if not (spec.ingress or spec.egress or spec.outbound_traffic_policy or spec.inbound_connection_pool):
        yield Problem((), "MSH0143", "the Sidecar says nothing; give it egress, outboundTrafficPolicy or inboundConnectionPool")
    yield from under(("ingress",), _check_ingress(spec.ingress))
    yield from under(("inboundConnectionPool",), check_connection_pool(spec.inbound_connection_pool))
    yield from under(("egress",), _check_egress(spec.egress, namespace))
    yield from under(("outboundTrafficPolicy",), _check_outbound(spec.outbound_traffic_policy))


def _check_ingress(listeners: Sequence[IngressListener]) -> Iterator[Problem]:
    taken: set[int] = set()
    for index, listener in enumerate(listeners):
        yield from under((index,), _check_ingress_listener(listener))
        if listener.port.number in taken:
            message = f"the port {listener.port.number} is already taken by another listener"
            yield Problem((index, "port", "number"), "MSH0125", message)
        taken.add(listener.port.number)


def _check_ingress_listener(listener: IngressListener) -> Iterator[Problem]:
    yield from under(("port",), _check_port(listener.port))
    yield from under(("port", "number"), names.check_port(listener.port.number))
    yield from under(("bind",), _check_address(listener.bind))
    if listener.default_endpoint:
        yield from under(("defaultEndpoint",), _check_endpoint(listener.default_endpoint))
    if listener.tls is not None:
        yield from under(("tls",), check_server_tls(listener.tls))
        if (listener.port.protocol or "").lower() not in TLS_PROTOCOLS:
            yield Problem(("tls",), "MSH0137", "TLS settings are for ports of protocol HTTPS or TLS")
    pool = listener.connection_pool
    yield from under(("connectionPool",), check_connection_pool(pool))
    protocol = (listener.port.protocol or "http").lower()
    if pool is not None and pool.http is not None and protocol not in HTTP_PROTOCOLS:
        yield Problem(
            ("connectionPool", "http"), "MSH0151", f"limits of requests have no effect on a port of protocol {protocol}"
        )


def _check_port(port: SidecarPort) -> Iterator[Problem]:
    if port.name:
        yield from under(("name",), check_port_name(port.name))
    if port.target_port:
        yield Problem(("targetPort",), "MSH0125", "targetPort has no effect on a listener; leave it out")
    yield from under(("protocol",), check_protocol(port.protocol))


def _check_address(bind: str | None) -> Iterator[Problem]:
    if bind and not names.is_ip(bind):
        yield Problem((), "MSH0135", f"{bind!r} is not an IP address")


def _check_endpoint(endpoint: str) -> Iterator[Problem]:
    """``127.0.0.1:8080``, ``[::1]:8080``, ``:8080``, ``unix:///path``."""
    if endpoint.startswith(UNIX):
        yield from check_socket(endpoint)
        return
    host, colon, number = endpoint.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    address = host[1:-1] if bracketed else host
    if not colon or (":" in address) != bracketed or address not in _LOCAL:
        message = f"{endpoint!r} is not a local address: 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT, :PORT or unix://"
        yield Problem((), "MSH0134", message)
    elif not (number.isascii() and number.isdecimal()):
        yield Problem((), "MSH0125", f"{number!r} is not a port; write its number, 1 to 65535")
    else:
        yield from names.check_port(int(number))


def _check_egress(listeners: Sequence[EgressListener], namespace: str) -> Iterator[Problem]:
    taken: set[int | str] = set()
    for index, listener in enumerate(listeners):
        if listener.port is not None:
            yield from under((index,), _check_bound(listener, listener.port))
            place = listener.port.number or listener.bind or ""
            if place in taken:
                message = f"{place} is already taken by another listener"
                yield Problem((index, "port", "number") if listener.port.number else (index, "bind"), "MSH0125", message)
            taken.add(place)
        elif index != len(listeners) - 1:
            yield Problem((index,), "MSH0137", "a listener without a port takes all the rest: only the last may have none")
        yield from under((index, "hosts"), _check_hosts(listener.hosts, namespace))


def _check_bound(listener: EgressListener, port: SidecarPort) -> Iterator[Problem]:
    yield from under(("port",), _check_port(port))
    if port.number:
        yield from under(("port", "number"), names.check_port(port.number))
        yield from under(("bind",), _check_address(listener.bind))
        return
    if not (listener.bind or "").startswith(UNIX):
        yield Problem(("port", "number"), "MSH0125", "port 0 is for sockets of the file system: give it a bind unix:///path")
    else:
        yield from under(("bind",), check_socket(listener.bind or ""))
    if listener.capture_mode == "IPTABLES":
        yield Problem(("captureMode",), "MSH0137", "connections to a socket of the file system cannot be captured")


def _check_hosts(hosts: Sequence[str], namespace: str) -> Iterator[Problem]:
    if not hosts:
        yield Problem((), "MSH0143", f"there are no hosts; {_FORM}")
    seen: set[tuple[str, str]] = set()
    for index, text in enumerate(hosts):
        owner, slash, host = text.partition("/")
        if not slash:
            yield Problem((index,), "MSH0121", f"{text!r} has no namespace; {_FORM}")
            continue
        yield from under((index,), _check_egress_host(owner, host))
        pair = (namespace if owner == "." else owner, host)
        if pair in seen or ((pair[0], "*") in seen and not pair[0].startswith("~")):
            yield Problem((index,), "MSH0151", f"{text} is in the list already, or covered by it")
        seen.add(pair)
    if ("*", "*") in seen and any(not owner.startswith("~") for owner, host in seen - {("*", "*")}):
        yield Problem((), "MSH0151", "*/* stands for everything; the other hosts add nothing")


def _check_egress_host(owner: str, host: str) -> Iterator[Problem]:
    if not owner or not host:
        yield Problem((), "MSH0121", f"{owner}/{host} lacks the namespace or the host; {_FORM}")
        return
    named = owner[1:] if owner.startswith("~") and owner != "~" else owner
    if named not in _EVERY and not names.is_dns_label(named):
        yield Problem((), "MSH0121", f"{owner!r} is not a namespace; {_FORM}")
    fault = names.host_fault(host)
    if fault:
        yield Problem((), "MSH0121", fault)


def _check_outbound(policy: SidecarOutboundTrafficPolicy | None) -> Iterator[Problem]:
    if policy is None or policy.egress_proxy is None:
        return
    if policy.mode != "ALLOW_ANY":
        yield Problem(("egressProxy",), "MSH0137", "an egressProxy needs mode ALLOW_ANY: otherwise nothing would go there")
        return
    proxy = policy.egress_proxy
    fault = names.fqdn_fault(proxy.host)
    if fault:
        yield Problem(("egressProxy", "host"), "MSH0121", fault)
    if proxy.port is None:
        yield Problem(("egressProxy", "port"), "MSH0125", "the port is missing; write port: {number: 8080}")
    else:
        yield from under(("egressProxy", "port", "number"), names.check_port(proxy.port.number))
