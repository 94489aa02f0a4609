"""PeerAuthentication."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.kinds import PeerAuthentication
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.workloads import check_workload_selector


def check_peer_authentication(spec: PeerAuthentication, _namespace: str) -> Iterator[Problem]:
    """Istio's rules."""
    yield from under(("selector",), check_workload_selector(spec.selector))
    if spec.port_level_mtls is None:
        return
    path = ("portLevelMtls",)
    if not spec.port_level_mtls:
        yield Problem(path, "MSH0143", "there are no ports; name at least one, or leave portLevelMtls out")
    elif spec.selector is None or not spec.selector.match_labels:
        message = "ports belong to certain workloads; give a selector with matchLabels that chooses them"
        yield Problem(path, "MSH0142", message)
    for number in spec.port_level_mtls:
        yield from under((*path, number), _check_port(number))


def _check_port(text: str) -> Iterator[Problem]:
    if text.isascii() and text.isdigit() and len(text) <= 5:
        yield from names.check_port(int(text))
    else:
        yield Problem((), "MSH0125", f"{text!r} is not a port; write its number, 1 to 65535")
