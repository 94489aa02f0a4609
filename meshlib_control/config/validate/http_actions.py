"""What an HTTP route does with a request: redirect, answer, rewrite, fail on purpose, allow other origins."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from meshlib_control.config.grpc_statuses import GRPC_STATUSES
from meshlib_control.config.kinds import (
    CorsPolicy,
    FaultAbort,
    FaultDelay,
    HTTPDirectResponse,
    HTTPFaultInjection,
    HTTPRedirect,
    HTTPRewrite,
    StringMatch,
)
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate.strings import (
    check_duration,
    check_header_names,
    check_percent,
    check_string_match,
    regex_fault,
)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "*"})
_LARGEST_BODY = 1 << 20
_LARGE_BODY = 100 << 10


def check_redirect(redirect: HTTPRedirect | None) -> Iterator[Problem]:
    if redirect is None:
        return
    changes = (redirect.uri, redirect.prefix_rewrite, redirect.authority, redirect.scheme, redirect.port, redirect.derive_port)
    if not any(changes):
        yield Problem((), "MSH0143", "the redirect changes nothing; give it a uri, prefixRewrite, authority, scheme or port")
    if redirect.uri and redirect.prefix_rewrite:
        yield Problem(("prefixRewrite",), "MSH0141", "uri and prefixRewrite exclude each other")
    if redirect.redirect_code and not 300 <= redirect.redirect_code <= 399:
        yield Problem(("redirectCode",), "MSH0140", f"{redirect.redirect_code} is not a redirection; use 300 to 399")


def check_direct_response(response: HTTPDirectResponse | None) -> Iterator[Problem]:
    if response is None:
        return
    yield from under(("status",), _check_status(response.status))
    if response.body is not None:
        body = response.body
        size = len(body.string.encode()) if body.string is not None else len(base64.b64decode(body.bytes or ""))
        if size >= _LARGEST_BODY:
            yield Problem(
                ("body",), "MSH0105", f"{size} bytes; at most {_LARGEST_BODY} are allowed, since every client holds them"
            )
        elif size >= _LARGE_BODY:
            yield Problem(("body",), "MSH0151", f"{size} bytes that every client holds; serve them from a service instead")


def _check_status(status: int) -> Iterator[Problem]:
    if not 200 <= status <= 599:
        yield Problem((), "MSH0140", f"{status} is not a status that can be answered; use 200 to 599")


def check_rewrite(rewrite: HTTPRewrite | None) -> Iterator[Problem]:
    if rewrite is None:
        return
    regex = rewrite.uri_regex_rewrite
    if rewrite.uri and regex is not None:
        yield Problem(("uriRegexRewrite",), "MSH0141", "uri and uriRegexRewrite exclude each other")
    if not rewrite.uri and not rewrite.authority and regex is None:
        yield Problem((), "MSH0143", "the rewrite changes nothing; give it a uri, uriRegexRewrite or authority")
    if regex is not None:
        if not regex.match or not regex.rewrite:
            yield Problem(("uriRegexRewrite",), "MSH0141", "uriRegexRewrite needs both match and rewrite")
        fault = regex_fault(regex.match) if regex.match else None
        if fault:
            yield Problem(("uriRegexRewrite", "match"), "MSH0123", fault)


def check_fault(fault: HTTPFaultInjection | None) -> Iterator[Problem]:
    if fault is None:
        return
    if fault.delay is None and fault.abort is None:
        yield Problem((), "MSH0143", "the fault does nothing; give it a delay or an abort")
    yield from under(("delay",), check_delay(fault.delay))
    yield from under(("abort",), check_abort(fault.abort))


def check_delay(delay: FaultDelay | None) -> Iterator[Problem]:
    if delay is None:
        return
    yield from under(("percentage",), check_percent(delay.percentage))
    yield from under(("fixedDelay",), check_duration(delay.fixed_delay))
    if delay.exponential_delay is not None:
        yield Problem(("exponentialDelay",), "MSH0137", "exponentialDelay was never implemented; use fixedDelay")
    if delay.percent is not None and not 0 <= delay.percent <= 100:
        yield Problem(("percent",), "MSH0139", f"{delay.percent} is not a percentage; it goes from 0 to 100")


def check_abort(abort: FaultAbort | None) -> Iterator[Problem]:
    if abort is None:
        return
    yield from under(("percentage",), check_percent(abort.percentage))
    if abort.http_status is not None:
        yield from under(("httpStatus",), _check_status(abort.http_status))
    if abort.grpc_status is not None and abort.grpc_status not in GRPC_STATUSES:
        yield Problem(
            ("grpcStatus",), "MSH0140", f"{abort.grpc_status!r} is not the name of a gRPC status, such as UNAVAILABLE"
        )
    if abort.http2_error is not None:
        yield Problem(("http2Error",), "MSH0137", "http2Error was never implemented; use httpStatus")


def check_cors(policy: CorsPolicy | None) -> Iterator[Problem]:
    if policy is None:
        return
    for index, origin in enumerate(policy.allow_origins):
        yield from under(("allowOrigins", index), _check_origin(origin))
    for index, method in enumerate(policy.allow_methods):
        if method not in _METHODS:
            known = ", ".join(sorted(_METHODS))
            yield Problem(("allowMethods", index), "MSH0137", f"{method!r} is not a method; known are {known}")
    yield from under(("allowHeaders",), check_header_names(policy.allow_headers))
    yield from under(("exposeHeaders",), check_header_names(policy.expose_headers))
    yield from under(("maxAge",), check_duration(policy.max_age))
    if policy.max_age is not None and policy.max_age % 1:
        yield Problem(("maxAge",), "MSH0133", "maxAge is sent in whole seconds; write whole seconds")


def _check_origin(origin: StringMatch) -> Iterator[Problem]:
    if not (origin.exact or origin.prefix or origin.regex):
        yield Problem((), "MSH0124", "an origin needs a value; give it exact, prefix or regex")
    yield from check_string_match(origin)
