"""Which kinds exist.  A new kind is one more descriptor in `_KINDS`, its struct in `kinds/` and its rules in `validate/`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from meshlib_control.config import unsupported
from meshlib_control.config.kinds import (
    AuthorizationPolicy,
    DestinationRule,
    Element,
    MeshConfig,
    PeerAuthentication,
    ProxyConfig,
    RateLimitPolicy,
    RequestAuthentication,
    ResiliencePolicy,
    ServiceEntry,
    Sidecar,
    VirtualService,
    WorkloadEntry,
    WorkloadGroup,
)
from meshlib_control.config.problems import Problem
from meshlib_control.config.validate.authorization_policy import check_annotations, check_authorization_policy
from meshlib_control.config.validate.destination_rule import check_destination_rule
from meshlib_control.config.validate.mesh_config import check_mesh_config
from meshlib_control.config.validate.peer_authentication import check_peer_authentication
from meshlib_control.config.validate.proxy_config import check_proxy_config
from meshlib_control.config.validate.rate_limit_policy import check_rate_limit_policy
from meshlib_control.config.validate.request_authentication import check_request_authentication
from meshlib_control.config.validate.resilience_policy import check_resilience_policy
from meshlib_control.config.validate.service_entry import check_service_entry, check_workload_entry
from meshlib_control.config.validate.sidecar import check_sidecar
from meshlib_control.config.validate.virtual_service import check_virtual_service
from meshlib_control.config.validate.workload_group import check_workload_group

ISTIO_NETWORKING = "networking.istio.io"
ISTIO_SECURITY = "security.istio.io"
OWN_GROUP = "meshlib.io"


@dataclass(frozen=True, slots=True)
class Kind:
    """`check(spec, namespace)` gives problems with paths below ``spec``; `check_annotations(spec, annotations)` those below
    ``metadata.annotations``.

    `only_name`: there is one resource of the kind, named so, for all namespaces.
    """

    name: str
    group: str
    versions: tuple[str, ...]  # the first is the one to write
    spec: type[Element]
    check: Callable[[Any, str], Iterator[Problem]]
    unsupported: tuple[unsupported.Row, ...] = ()
    only_name: str = ""
    check_annotations: Callable[[Any, Mapping[str, str]], Iterator[Problem]] | None = None

    @property
    def api_versions(self) -> tuple[str, ...]:
        """``networking.istio.io/v1`` ..."""
        return tuple(f"{self.group}/{version}" for version in self.versions)


_ISTIO_VERSIONS = ("v1", "v1beta1", "v1alpha3")
_SECURITY_VERSIONS = ("v1", "v1beta1")

_KINDS = (
    Kind(
        "VirtualService",
        ISTIO_NETWORKING,
        _ISTIO_VERSIONS,
        VirtualService,
        check_virtual_service,
        unsupported.VIRTUAL_SERVICE,
    ),
    Kind(
        "DestinationRule",
        ISTIO_NETWORKING,
        _ISTIO_VERSIONS,
        DestinationRule,
        check_destination_rule,
        unsupported.DESTINATION_RULE,
    ),
    Kind(
        "ServiceEntry",
        ISTIO_NETWORKING,
        _ISTIO_VERSIONS,
        ServiceEntry,
        check_service_entry,
        unsupported.SERVICE_ENTRY,
    ),
    Kind(
        "WorkloadEntry",
        ISTIO_NETWORKING,
        _ISTIO_VERSIONS,
        WorkloadEntry,
        check_workload_entry,
        unsupported.WORKLOAD_ENTRY,
    ),
    Kind(
        "WorkloadGroup",
        ISTIO_NETWORKING,
        _ISTIO_VERSIONS,
        WorkloadGroup,
        check_workload_group,
        unsupported.WORKLOAD_GROUP,
    ),
    Kind("Sidecar", ISTIO_NETWORKING, _ISTIO_VERSIONS, Sidecar, check_sidecar, unsupported.SIDECAR),
    Kind("ProxyConfig", ISTIO_NETWORKING, ("v1beta1",), ProxyConfig, check_proxy_config, unsupported.PROXY_CONFIG),
    Kind(
        "PeerAuthentication",
        ISTIO_SECURITY,
        _SECURITY_VERSIONS,
        PeerAuthentication,
        check_peer_authentication,
    ),
    Kind(
        "RequestAuthentication",
        ISTIO_SECURITY,
        _SECURITY_VERSIONS,
        RequestAuthentication,
        check_request_authentication,
    ),
    Kind(
        "AuthorizationPolicy",
        ISTIO_SECURITY,
        _SECURITY_VERSIONS,
        AuthorizationPolicy,
        check_authorization_policy,
        check_annotations=check_annotations,
    ),
    Kind("ResiliencePolicy", OWN_GROUP, ("v1",), ResiliencePolicy, check_resilience_policy),
    Kind("RateLimitPolicy", OWN_GROUP, ("v1",), RateLimitPolicy, check_rate_limit_policy),
    Kind("MeshConfig", OWN_GROUP, ("v1",), MeshConfig, check_mesh_config, unsupported.MESH_CONFIG, only_name="mesh"),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _KINDS})
