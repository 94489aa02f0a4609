"""ProxyConfig."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.kinds import ProxyConfig
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate.workloads import check_workload_selector


def check_proxy_config(spec: ProxyConfig, _namespace: str) -> Iterator[Problem]:
    """Istio's rules; that `concurrency` is not negative says its type."""
    yield from under(("selector",), check_workload_selector(spec.selector))
