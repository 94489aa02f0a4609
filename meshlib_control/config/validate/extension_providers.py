"""MeshConfig's extension providers and registration grants."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshlib.xds.proto.ext_authz_pb2 import StatusCode
from meshlib_control.config.kinds.extension_provider import (
    EnvoyExtAuthzGrpc,
    EnvoyExtAuthzHttp,
    ExtensionProvider,
    RegistrationGrant,
    RequestBody,
)
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.strings import check_duration

ANYBODY = "*"

_CODE = "MSH0161"
_STATUSES = frozenset(status for status in StatusCode.values() if 400 <= status <= 599)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # of a header: RFC 9110 section 5.5


def check_extension_providers(providers: tuple[ExtensionProvider, ...]) -> Iterator[Problem]:
    """Istio's rules (pkg/config/validation, ValidateExtensionProvider...)."""
    first: dict[str, int] = {}
    for index, provider in enumerate(providers):
        if not provider.name:
            yield Problem((index, "name"), _CODE, "the name is empty; policies refer to it")
        elif provider.name in first:
            message = f"{provider.name} is the name of extensionProviders[{first[provider.name]}] already"
            yield Problem((index, "name"), _CODE, message)
        first.setdefault(provider.name, index)
        yield from under((index,), check_extension_provider(provider))


def check_extension_provider(provider: ExtensionProvider) -> Iterator[Problem]:
    """All but the name."""
    http, grpc = provider.envoy_ext_authz_http, provider.envoy_ext_authz_grpc
    if http is not None:
        yield from under(("envoyExtAuthzHttp",), _check_authorizer(http))
        if http.path_prefix and not http.path_prefix.startswith("/"):
            message = f"{http.path_prefix!r} does not start with a slash; it is put before the path of each request"
            yield Problem(("envoyExtAuthzHttp", "pathPrefix"), _CODE, message)
        yield from under(("envoyExtAuthzHttp",), _check_headers(http))
    elif grpc is not None:
        yield from under(("envoyExtAuthzGrpc",), _check_authorizer(grpc))
    else:
        message = "say how it is asked: envoyExtAuthzHttp or envoyExtAuthzGrpc"
        yield Problem(("envoyExtAuthzHttp",), _CODE, message)


def _check_authorizer(authorizer: EnvoyExtAuthzHttp | EnvoyExtAuthzGrpc) -> Iterator[Problem]:
    namespace, slash, host = authorizer.service.rpartition("/")
    fault = names.fqdn_fault(host) or (names.namespace_fault(namespace) if slash else None)
    if fault:
        yield Problem(("service",), _CODE, fault)
    yield from under(("port",), names.check_port(authorizer.port))
    yield from under(("timeout",), check_duration(authorizer.timeout))
    status = authorizer.status_on_error
    if status and not (status.isascii() and status.isdigit() and int(status) in _STATUSES):
        yield Problem(("statusOnError",), _CODE, f'{status!r} is not the status of an error; write one such as "503"')
    yield from _check_body(authorizer.include_request_body_in_check)


def _check_headers(authorizer: EnvoyExtAuthzHttp) -> Iterator[Problem]:
    for name, value in authorizer.include_additional_headers_in_check.items():
        fault = names.header_name_fault(name)
        if fault is None and not _VALUE.fullmatch(value):
            fault = f"the value of {name} has characters that no header may have"
        if fault:
            yield Problem(("includeAdditionalHeadersInCheck", name), "MSH0126", fault)
    for field, patterns in (
        ("includeHeadersInCheck", authorizer.include_headers_in_check),
        ("includeRequestHeadersInCheck", authorizer.include_request_headers_in_check),
        ("headersToUpstreamOnAllow", authorizer.headers_to_upstream_on_allow),
        ("headersToDownstreamOnDeny", authorizer.headers_to_downstream_on_deny),
        ("headersToDownstreamOnAllow", authorizer.headers_to_downstream_on_allow),
    ):
        for index, pattern in enumerate(patterns):
            if not pattern:
                yield Problem((field, index), "MSH0126", "the name of the header is empty")


def _check_body(body: RequestBody | None) -> Iterator[Problem]:
    if body is not None and not body.max_request_bytes:
        message = "maxRequestBytes says how much of the body is sent; give it, or leave includeRequestBodyInCheck out"
        yield Problem(("includeRequestBodyInCheck", "maxRequestBytes"), _CODE, message)


def check_registration_grants(grants: tuple[RegistrationGrant, ...]) -> Iterator[Problem]:
    """Names as the catalog has them; * stands alone."""
    for index, grant in enumerate(grants):
        if fault := names.namespace_fault(grant.namespace):
            yield Problem((index, "namespace"), "MSH0162", fault)
        for field, values in (("serviceAccounts", grant.service_accounts), ("services", grant.services)):
            if not values:
                yield Problem((index, field), "MSH0162", f"without {field} nothing is granted; * stands for all")
            for position, name in enumerate(values):
                if name != ANYBODY and (fault := names.resource_name_fault(name)):
                    yield Problem((index, field, position), "MSH0162", fault)
