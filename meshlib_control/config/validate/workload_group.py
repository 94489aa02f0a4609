"""WorkloadGroup."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.kinds import HTTPProbe, ReadinessProbe, WorkloadGroup
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.service_entry import check_ports_and_labels, check_socket_entry

_SCHEMES = ("HTTP", "HTTPS")


def check_workload_group(spec: WorkloadGroup, _namespace: str) -> Iterator[Problem]:
    """Istio's rules.  The template is no whole WorkloadEntry: each instance has an address of its own."""
    yield from under(("template",), check_socket_entry(spec.template))
    yield from under(("template",), check_ports_and_labels(spec.template))
    if spec.metadata is not None:
        yield from under(("metadata", "labels"), names.check_labels(spec.metadata.labels))
    if spec.probe is not None:
        yield from under(("probe",), _check_probe(spec.probe))


def _check_probe(probe: ReadinessProbe) -> Iterator[Problem]:
    if probe.http_get is not None:
        yield from under(("httpGet",), _check_http(probe.http_get))
    elif probe.tcp_socket is not None:
        yield from under(("tcpSocket", "port"), names.check_port(probe.tcp_socket.port))
    elif probe.grpc is not None:
        yield from under(("grpc", "port"), names.check_port(probe.grpc.port or 0))
    elif probe.exec is None:
        yield Problem((), "MSH0143", "the probe asks nothing; give it httpGet, tcpSocket, exec or grpc")
    elif not probe.exec.command:
        yield Problem(("exec", "command"), "MSH0143", "there is no command")
    elif "" in probe.exec.command:
        yield Problem(("exec", "command", probe.exec.command.index("")), "MSH0143", "an argument is empty")


def _check_http(probe: HTTPProbe) -> Iterator[Problem]:
    yield from under(("port",), names.check_port(probe.port))
    if probe.scheme and probe.scheme not in _SCHEMES:
        yield Problem(("scheme",), "MSH0104", f"{probe.scheme} is not one of {', '.join(_SCHEMES)}")
    for index, header in enumerate(probe.http_headers):
        fault = names.header_name_fault(header.name or "")
        if fault:
            yield Problem(("httpHeaders", index, "name"), "MSH0126", fault)
