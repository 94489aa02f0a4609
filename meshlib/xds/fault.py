"""A route's fault filter configuration → model (Envoy ``envoy.extensions.filters.http.fault.v3.HTTPFault``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.any_pb2 import Any

from meshlib.model.route import Fault
from meshlib.xds.fields import only_filter, seconds
from meshlib.xds.invalid import Problems
from meshlib.xds.matchers import decode_fraction
from meshlib.xds.proto import route_pb2

FILTER: Final = "envoy.filters.http.fault"


def decode_filters(configs: Mapping[str, Any], problems: Problems, *, field: str) -> Fault | None:
    """``typed_per_filter_config``: faults, and no other filter."""
    message = only_filter(configs, FILTER, route_pb2.HTTPFault, field=field, problems=problems)
    return _fault(message, problems, field=f"{field}[{FILTER!r}]") if message is not None else None


def _fault(message: route_pb2.HTTPFault, problems: Problems, *, field: str) -> Fault:
    delay = seconds(message.delay.fixed_delay, field=f"{field}.delay.fixed_delay", problems=problems)
    if message.HasField("delay") and not delay:
        problems.describe(f"{field}.delay", "no fixed_delay", "a fixed_delay above 0s")
    abort = message.abort
    http = abort.http_status if abort.WhichOneof("error_type") == "http_status" else 0
    grpc = abort.grpc_status if abort.WhichOneof("error_type") == "grpc_status" else None
    if message.HasField("abort"):
        if grpc is None and not 200 <= http < 600:
            problems.add(f"{field}.abort.http_status", http, "200 to 599, or a grpc_status")
        if grpc is not None and grpc > _LAST_STATUS:
            problems.add(f"{field}.abort.grpc_status", grpc, f"0 to {_LAST_STATUS}")
    return Fault(
        delay=delay,
        delay_fraction=decode_fraction(message.delay.percentage, problems, field=f"{field}.delay.percentage"),
        http_status=http,
        grpc_status=grpc,
        abort_fraction=decode_fraction(abort.percentage, problems, field=f"{field}.abort.percentage"),
    )


_LAST_STATUS = 16
