"""What a VirtualService rule does to a request: redirect, answer, rewrite, change headers, fail on purpose (Istio's rules)."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Final

from meshlib.xds.proto import core_pb2, route_pb2
from meshlib.xds.types import pack
from meshlib_control.compile.retry_policy import duration
from meshlib_control.config.grpc_statuses import GRPC_STATUSES
from meshlib_control.config.kinds import (
    FaultAbort,
    FaultDelay,
    HeaderOperations,
    Headers,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPRedirect,
    HTTPRewrite,
    Percent,
)

FAULT: Final = "envoy.filters.http.fault"

_Redirect = route_pb2.RedirectAction
_CODES: Final = {
    301: _Redirect.MOVED_PERMANENTLY,
    302: _Redirect.FOUND,
    303: _Redirect.SEE_OTHER,
    307: _Redirect.TEMPORARY_REDIRECT,
    308: _Redirect.PERMANENT_REDIRECT,
}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = ("host", ":authority")
_PARTS_PER_PERCENT: Final = 10_000


def set_redirect(action: route_pb2.RedirectAction, redirect: HTTPRedirect, port: int) -> None:
    """`port`: the one that was called, which FROM_REQUEST_PORT means.  A scheme's own port is not written out."""
    action.host_redirect = redirect.authority or ""
    if redirect.prefix_rewrite:
        action.prefix_rewrite = redirect.prefix_rewrite
    elif redirect.uri:
        action.path_redirect = redirect.uri
    if redirect.scheme:
        action.scheme_redirect = redirect.scheme
    wanted = port if redirect.derive_port == "FROM_REQUEST_PORT" else redirect.port or 0
    if wanted != _DEFAULT_PORTS.get(redirect.scheme or "http"):
        action.port_redirect = wanted
    action.response_code = _CODES[redirect.redirect_code or 301]


def set_direct_response(action: route_pb2.DirectResponseAction, answer: HTTPDirectResponse) -> None:
    action.status = answer.status
    if answer.body is None:
        return
    if answer.body.bytes is not None:
        action.body.inline_bytes = b64decode(answer.body.bytes)
    else:
        action.body.inline_string = answer.body.string or ""


def set_rewrite(action: route_pb2.RouteAction, rewrite: HTTPRewrite | None, headers: Headers | None) -> None:
    """The authority comes from the rewrite, else from a Host header that the rule sets, else from one that it adds."""
    authority = host_header(headers)
    if rewrite is not None:
        regex = rewrite.uri_regex_rewrite
        if regex is not None:
            action.regex_rewrite.pattern.regex = regex.match or ""
            action.regex_rewrite.substitution = regex.rewrite or ""
        elif rewrite.uri:
            action.prefix_rewrite = rewrite.uri
        authority = rewrite.authority or authority
    if authority:
        action.host_rewrite_literal = authority


def host_header(headers: Headers | None) -> str:
    """What header operations want the Host header to be; empty: nothing."""
    if headers is None or headers.request is None:
        return ""
    for operations in (headers.request.set, headers.request.add):
        for name in sorted(operations):
            if name.lower() in _AUTHORITY and operations[name]:
                return operations[name]
    return ""


def set_headers(level: route_pb2.Route | route_pb2.WeightedCluster.ClusterWeight, headers: Headers | None) -> None:
    """Appended to what is there.  In order of names, so that equal rules give equal bytes."""
    if headers is None:
        return
    if headers.request is not None:
        level.request_headers_to_add.extend(_options(headers.request))
        level.request_headers_to_remove.extend(name for name in headers.request.remove if _is_header(name))
    if headers.response is not None:
        level.response_headers_to_add.extend(_options(headers.response))
        level.response_headers_to_remove.extend(name for name in headers.response.remove if _is_header(name))


def _options(operations: HeaderOperations) -> list[core_pb2.HeaderValueOption]:
    option = core_pb2.HeaderValueOption
    return [
        *_values(operations.set, option.OVERWRITE_IF_EXISTS_OR_ADD),
        *_values(operations.add, option.APPEND_IF_EXISTS_OR_ADD),
    ]


def _values(
    headers: Mapping[str, str], action: core_pb2.HeaderValueOption.HeaderAppendAction
) -> list[core_pb2.HeaderValueOption]:
    return [
        core_pb2.HeaderValueOption(header=core_pb2.HeaderValue(key=name, value=headers[name]), append_action=action)
        for name in sorted(headers)
        if _is_header(name)
    ]


def _is_header(name: str) -> bool:
    """Istio passes over what Envoy would refuse."""
    return not name.startswith(":") and name.lower() != "host"


def set_fault(route: route_pb2.Route, injection: HTTPFaultInjection | None) -> None:
    """A delay without a time, and an abort without a status, do nothing; neither does one without a percentage."""
    if injection is None:
        return
    fault = route_pb2.HTTPFault()
    if injection.delay is not None:
        _set_delay(fault.delay, injection.delay)
    if injection.abort is not None:
        _set_abort(fault.abort, injection.abort)
    if not fault.delay.HasField("fixed_delay"):
        fault.ClearField("delay")
    if fault.abort.WhichOneof("error_type") is None:
        fault.ClearField("abort")
    if fault.HasField("delay") or fault.HasField("abort"):
        route.typed_per_filter_config[FAULT].CopyFrom(pack(fault))


def _set_delay(made: route_pb2.FaultDelay, delay: FaultDelay) -> None:
    if delay.fixed_delay:
        made.fixed_delay.CopyFrom(duration(delay.fixed_delay))
    if delay.percentage is not None:
        set_percentage(made.percentage, delay.percentage)
    elif delay.percent:
        made.percentage.numerator = delay.percent


def _set_abort(made: route_pb2.FaultAbort, abort: FaultAbort) -> None:
    if abort.http_status is not None:
        made.http_status = abort.http_status
    elif abort.grpc_status is not None:
        made.grpc_status = GRPC_STATUSES.index(abort.grpc_status)
    if abort.percentage is not None:
        set_percentage(made.percentage, abort.percentage)


def set_percentage(made: core_pb2.FractionalPercent, percentage: Percent) -> None:
    """In parts of a million, as Istio writes it."""
    made.numerator = int((percentage.value or 0.0) * _PARTS_PER_PERCENT)
    made.denominator = core_pb2.FractionalPercent.MILLION
