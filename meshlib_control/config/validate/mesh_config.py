"""MeshConfig."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.kinds import MeshConfig
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.retries import check_retry
from meshlib_control.config.validate.strings import check_duration


def check_mesh_config(spec: MeshConfig, namespace: str) -> Iterator[Problem]:
    """The rules of the elements, and what a default may be."""
    fault = names.namespace_fault(spec.root_namespace)
    if fault:
        yield Problem(("rootNamespace",), "MSH0009", fault)
    yield from under(("defaultHttpRetryPolicy",), check_retry(spec.default_http_retry_policy))
    yield from under(("connectTimeout",), check_duration(spec.connect_timeout))
    for name, export_to in (
        ("defaultVirtualServiceExportTo", spec.default_virtual_service_export_to),
        ("defaultDestinationRuleExportTo", spec.default_destination_rule_export_to),
        ("defaultServiceExportTo", spec.default_service_export_to),
    ):
        if not export_to:
            yield Problem((name,), "MSH0128", "an empty list says nothing; write . for the own namespace or * for all")
        yield from under((name,), names.check_export_to(export_to, namespace, allow_none=name == "defaultServiceExportTo"))
