"""Active health checks of a ResiliencePolicy."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshlib_control.config.kinds.resilience_policy import HealthCheck, HTTPProbe, ProbePayload, TCPProbe
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names

_STATUSES = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?\Z")


def parse_statuses(text: str) -> tuple[int, int] | None:
    """``204`` or ``200-399`` as a range [start, end); None: it is neither."""
    found = _STATUSES.match(text)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    return (first, last + 1) if first <= last else None


def check_health_check(check: HealthCheck) -> Iterator[Problem]:
    """One way to ask, with everything that it needs."""
    if check.http is None and check.tcp is None and check.grpc is None:
        yield Problem((), "MSH0143", "say how to ask: http, tcp or grpc")
    if check.http is not None:
        yield from under(("http",), _check_http(check.http))
    if check.tcp is not None:
        yield from under(("tcp",), _check_tcp(check.tcp))
    if check.port is not None:
        yield from under(("port",), names.check_port(check.port))


def _check_http(probe: HTTPProbe) -> Iterator[Problem]:
    if not probe.path.startswith("/"):
        yield Problem(("path",), "MSH0137", f"{probe.path!r} is not a path; it starts with /")
    if not probe.expected_statuses:
        yield Problem(("expectedStatuses",), "MSH0143", "no status would be healthy; leave it out for 200")
    for index, statuses in enumerate(probe.expected_statuses):
        if parse_statuses(statuses) is None:
            message = f'{statuses!r} is not a status; write "204", or a range as "200-399", between 100 and 599'
            yield Problem(("expectedStatuses", index), "MSH0140", message)
    for name in probe.headers:
        fault = names.header_name_fault(name)
        if fault:
            yield Problem(("headers", name), "MSH0126", fault)


def _check_tcp(probe: TCPProbe) -> Iterator[Problem]:
    if probe.send is not None:
        yield from under(("send",), _check_payload(probe.send))
    for index, payload in enumerate(probe.receive):
        yield from under(("receive", index), _check_payload(payload))


def _check_payload(payload: ProbePayload) -> Iterator[Problem]:
    if not payload.string and not payload.bytes:
        yield Problem((), "MSH0143", "it is empty; give string or bytes")
