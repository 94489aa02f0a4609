"""Reports on the wire (meshlib.registry.v1)."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from google.protobuf.message import Message

from meshlib.model.report import ClusterReport, EndpointReport, LimitReport, Report
from meshlib.xds.proto import registry_pb2

REPORT: Final = "/meshlib.registry.v1.Registry/Report"


def encode_report(report: Report, instance_id: str) -> bytes:
    """A `ReportRequest`."""
    message = registry_pb2.ReportRequest(instance_id=instance_id, truncated=report.truncated)
    for cluster in report.clusters:
        told = message.clusters.add()
        _fill(told, cluster)
        for endpoint in cluster.endpoints:
            _fill(told.endpoints.add(), endpoint)
    for limit in report.limits:
        _fill(message.limits.add(), limit)
    return message.SerializeToString()


def _fill(message: Message, report: ClusterReport | EndpointReport | LimitReport) -> None:
    """Fields have the same names on the wire."""
    for field in fields(report):
        if field.name != "endpoints":
            setattr(message, field.name, getattr(report, field.name))
