"""DestinationRule."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from meshlib_control.config.findings import Severity
from meshlib_control.config.kinds import DestinationRule, Subset
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.http_routes import check_subset_name
from meshlib_control.config.validate.policies import check_traffic_policy
from meshlib_control.config.validate.workloads import check_workload_selector


def check_destination_rule(spec: DestinationRule, namespace: str) -> Iterator[Problem]:
    """Istio's rules."""
    fault = names.host_fault(spec.host)
    if fault:
        yield Problem(("host",), "MSH0121", fault)
    yield from under(("trafficPolicy",), check_traffic_policy(spec.traffic_policy))
    for index, subset in enumerate(spec.subsets):
        yield from under(("subsets", index), _check_subset(subset))
    yield from _check_unique(spec.subsets)
    selected = spec.workload_selector is not None
    yield from under(("exportTo",), names.check_export_to(spec.export_to, namespace))
    if selected and spec.export_to and set(spec.export_to) - {".", namespace}:
        yield Problem(
            ("exportTo",), "MSH0128", f"with a workloadSelector it holds in {namespace} only; write . or leave it out"
        )
    yield from under(("workloadSelector",), check_workload_selector(spec.workload_selector))


def _check_subset(subset: Subset) -> Iterator[Problem]:
    return chain(
        under(("name",), check_subset_name(subset.name)),
        under(("labels",), names.check_labels(subset.labels)),
        under(("trafficPolicy",), check_traffic_policy(subset.traffic_policy)),
    )


def _check_unique(subsets: tuple[Subset, ...]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, subset in enumerate(subsets):
        if subset.name in first:
            message = f"{subset.name} is already defined by subsets[{first[subset.name]}], which holds"
            yield Problem(("subsets", index, "name"), "MSH0138", message, Severity.WARNING)
        first.setdefault(subset.name, index)
