"""One kind's spec, or a part of one, checked alone: how agreement with Istio's validator is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from meshlib_control.config import kinds, unsupported
from meshlib_control.config.codes import CODES
from meshlib_control.config.findings import Finding
from meshlib_control.config.kinds import Element
from meshlib_control.config.problems import Problem, render
from meshlib_control.config.schema import Reading, read
from meshlib_control.config.unsupported import check_supported
from meshlib_control.config.validate import http_actions, http_routes, policies
from meshlib_control.config.validate.authorization_policy import check_authorization_policy
from meshlib_control.config.validate.destination_rule import check_destination_rule
from meshlib_control.config.validate.mesh_config import check_mesh_config
from meshlib_control.config.validate.peer_authentication import check_peer_authentication
from meshlib_control.config.validate.proxy_config import check_proxy_config
from meshlib_control.config.validate.request_authentication import check_request_authentication
from meshlib_control.config.validate.retries import check_retry
from meshlib_control.config.validate.service_entry import check_service_entry, check_workload_entry
from meshlib_control.config.validate.sidecar import check_sidecar
from meshlib_control.config.validate.virtual_service import check_virtual_service
from meshlib_control.config.validate.workload_group import check_workload_group

NAMESPACE = "default"

Check = Callable[[Any], Iterator[Problem]]


@dataclass(frozen=True, slots=True)
class Part:
    """`at`: where it stands below the kind's spec; `optional`: an empty one is none at all."""

    struct: type[Element]
    check: Check
    rows: tuple[unsupported.Row, ...] = ()
    at: str = ""
    optional: bool = False


def _in_namespace(check: Callable[[Any, str], Iterator[Problem]]) -> Check:
    return lambda spec: check(spec, NAMESPACE)


def _route(name: str, struct: type[Element], check: Check, *, optional: bool = False) -> Part:
    return Part(struct, check, unsupported.VIRTUAL_SERVICE, f"http[].{name}", optional)


def _policy(name: str, struct: type[Element], check: Check) -> Part:
    return Part(struct, check, unsupported.DESTINATION_RULE, f"trafficPolicy.{name}")


_HTTP_ROUTE = Part(kinds.HTTPRoute, http_routes.check_http_route, unsupported.VIRTUAL_SERVICE, "http[]")

PARTS = {
    "VirtualService": Part(kinds.VirtualService, _in_namespace(check_virtual_service), unsupported.VIRTUAL_SERVICE),
    "HTTPRoute": _HTTP_ROUTE,
    "RootHTTPRoute": _HTTP_ROUTE,
    "DelegateHTTPRoute": Part(
        kinds.HTTPRoute, partial(http_routes.check_http_route, delegate=True), unsupported.VIRTUAL_SERVICE, "http[]"
    ),
    "Destination": _route("route[].destination", kinds.Destination, http_routes.check_destination),
    "HTTPRetry": _route("retries", kinds.HTTPRetry, check_retry),
    "HTTPRewrite": _route("rewrite", kinds.HTTPRewrite, http_actions.check_rewrite, optional=True),
    "HTTPRedirect": _route("redirect", kinds.HTTPRedirect, http_actions.check_redirect, optional=True),
    "HTTPDirectResponse": _route("directResponse", kinds.HTTPDirectResponse, http_actions.check_direct_response, optional=True),
    "HTTPFaultInjection": _route("fault", kinds.HTTPFaultInjection, http_actions.check_fault, optional=True),
    "HTTPFaultInjectionAbort": _route("fault.abort", kinds.FaultAbort, http_actions.check_abort, optional=True),
    "HTTPFaultInjectionDelay": _route("fault.delay", kinds.FaultDelay, http_actions.check_delay, optional=True),
    "CORSPolicy": _route("corsPolicy", kinds.CorsPolicy, http_actions.check_cors, optional=True),
    "DestinationRule": Part(kinds.DestinationRule, _in_namespace(check_destination_rule), unsupported.DESTINATION_RULE),
    "TrafficPolicy": Part(kinds.TrafficPolicy, policies.check_traffic_policy, unsupported.DESTINATION_RULE, "trafficPolicy"),
    "ConnectionPool": _policy("connectionPool", kinds.ConnectionPool, policies.check_connection_pool),
    "LoadBalancer": _policy("loadBalancer", kinds.LoadBalancer, policies.check_load_balancer),
    "OutlierDetection": _policy("outlierDetection", kinds.OutlierDetection, policies.check_outlier_detection),
    "ClientTLSSettings": _policy("tls", kinds.ClientTLSSettings, policies.check_tls),
    "LocalityLbSetting": _policy("loadBalancer.localityLbSetting", kinds.LocalityLbSetting, policies.check_locality),
    "ServiceEntry": Part(kinds.ServiceEntry, _in_namespace(check_service_entry), unsupported.SERVICE_ENTRY),
    "WorkloadEntry": Part(kinds.WorkloadEntry, check_workload_entry, unsupported.WORKLOAD_ENTRY),
    "WorkloadGroup": Part(kinds.WorkloadGroup, _in_namespace(check_workload_group), unsupported.WORKLOAD_GROUP),
    "Sidecar": Part(kinds.Sidecar, _in_namespace(check_sidecar), unsupported.SIDECAR),
    "ProxyConfig": Part(kinds.ProxyConfig, _in_namespace(check_proxy_config), unsupported.PROXY_CONFIG),
    "PeerAuthentication": Part(kinds.PeerAuthentication, _in_namespace(check_peer_authentication)),
    "AuthorizationPolicy": Part(kinds.AuthorizationPolicy, _in_namespace(check_authorization_policy)),
    "RequestAuthentication": Part(kinds.RequestAuthentication, _in_namespace(check_request_authentication)),
    "MeshConfig": Part(kinds.MeshConfig, _in_namespace(check_mesh_config)),
}


def validate_part(part: str, spec: object) -> list[Finding]:
    """All that is wrong with `spec`, a plain value, as a `part`: a kind, or one of the parts in `PARTS`.  Raises `KeyError`.

    What is valid and not executed by this version has the code `codes.NOT_SUPPORTED`.
    """
    entry = PARTS[part]
    if entry.optional and not spec:
        return []
    reading = Reading()
    value = read(entry.struct, spec, reading)
    rules = [problem for problem in entry.check(value) if not reading.covers(problem.path)]
    problems = [*reading.problems, *rules, *check_supported(entry.rows, spec, at=entry.at)]
    return [
        Finding(problem.code, problem.severity or CODES[problem.code].severity, part, render(problem.path), problem.message)
        for problem in problems
    ]
