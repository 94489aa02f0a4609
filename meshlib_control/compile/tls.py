"""TLS of connections: what both ends are told, in the form that each kind of client reads.

* meshlib and grpcio take the certificate from a certificate provider that the process itself has (gRFC A29).
* Envoy takes it from a file that is watched (SDS); the roots come over ADS, with the trust domain that each may sign for.

No private key ever passes through here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import Message

from meshlib.xds.proto import core_pb2, tls_pb2
from meshlib.xds.types import pack
from meshlib_control.catalog.model import Instance, Port, Service
from meshlib_control.compile.hosts import is_address, is_wildcard
from meshlib_control.compile.names import TRUST_BUNDLE, ClusterName
from meshlib_control.compile.node import Flavour, Scope
from meshlib_control.compile.services import instance_port, is_http2, is_tls
from meshlib_control.compile.trust import identities, under_aliases
from meshlib_control.compile.world import World
from meshlib_control.config.kinds import ClientTLSSettings
from meshlib_control.config.mtls import MTLS_LABEL, MTLS_MODE

IDENTITY: Final = "default"
"""Name of the workload's own certificate, and of the provider instance that has it and the roots."""

IDENTITY_FILE: Final = "/var/run/meshlib/identity/sds.yaml"
"""Where an Envoy finds the secret `IDENTITY`, unless its node's metadata say otherwise (``IDENTITY_FILE``)."""

SYSTEM_ROOTS: Final = "/etc/ssl/certs/ca-certificates.crt"
"""Where the Envoy images have the public authorities (Debian's path): Envoy has no built-in ones."""

_TLS_SOCKET = "envoy.transport_sockets.tls"
_RAW_SOCKET = "envoy.transport_sockets.raw_buffer"
_VERSIONS = {"TLSv1_2": tls_pb2.TlsParameters.TLSv1_2, "TLSv1_3": tls_pb2.TlsParameters.TLSv1_3}
_SAN = tls_pb2.SubjectAltNameMatcher


@dataclass(frozen=True, slots=True)
class Destination:
    """A cluster, as far as its security depends on it.  `instances`: of the service, and of those the subset's."""

    name: ClusterName
    service: Service
    port: Port
    settings: ClientTLSSettings | None  # of the DestinationRule
    instances: tuple[Instance, ...]
    chosen: tuple[Instance, ...]
    dialled_by_caller: bool = False  # wherever the caller wanted to go: there is nothing to wrap in TLS here


@dataclass(frozen=True, slots=True)
class Security:
    """`context` None: plaintext.  `auto`: only to instances that speak mTLS."""

    context: tls_pb2.UpstreamTlsContext | None = None
    auto: bool = False


def security(world: World, scope: Scope, destination: Destination) -> Security | None:
    """What calls to a cluster are protected by.  None: as configured, clients of this flavour cannot protect them, so that
    they must not get the cluster at all.
    """
    if not world.trust.secure or (is_tls(destination.port) and scope.flavour == "meshlib"):
        return Security()  # or the application's own TLS, which passes as it is
    settings = destination.settings
    if settings is None:
        return _auto(world, scope, destination)
    if settings.mode == "DISABLE":
        return Security()
    if destination.dialled_by_caller and scope.flavour == "meshlib":
        return None
    if settings.mode == "ISTIO_MUTUAL":
        names = frozenset(settings.subject_alt_names) or _identities(world, destination)
        return Security(_mutual(world, scope, destination, names, sni=settings.sni or ""))
    context = _outside(world, scope, destination, settings)
    return Security(context) if context is not None else None


def as_called(world: World, port: Port, settings: ClientTLSSettings | None) -> Port:
    """The port as its callers have it: where a DestinationRule begins TLS, they speak HTTP without it."""
    if world.trust.secure and is_tls(port) and settings is not None and settings.mode in ("SIMPLE", "MUTUAL"):
        return replace(port, protocol="http")
    return port


def speaks_mtls(world: World, service: Service, instance: Instance, port: int) -> bool:
    """Whether connections to `port` of an instance are to be mTLS where nothing else is said."""
    if not world.trust.secure or not _claims_mtls(instance):
        return False
    return world.peer_authentications.mode(service.namespace, instance.labels, port) != "DISABLE"


def _claims_mtls(instance: Instance) -> bool:
    """As it was registered; a label that says otherwise goes before."""
    label = instance.labels.get(MTLS_LABEL)
    return label == MTLS_MODE if label else instance.mtls


def tls_socket(context: Message) -> core_pb2.TransportSocket:
    return core_pb2.TransportSocket(name=_TLS_SOCKET, typed_config=pack(context))


def raw_socket() -> core_pb2.TransportSocket:
    return core_pb2.TransportSocket(name=_RAW_SOCKET, typed_config=pack(tls_pb2.RawBuffer()))


def downstream(world: World, scope: Scope) -> tls_pb2.DownstreamTlsContext:
    """A server that takes only clients with an identity of a trusted domain.  Who exactly may call, other filters say."""
    context = tls_pb2.DownstreamTlsContext()
    context.require_client_certificate.value = True
    _set_identity(context.common_tls_context, scope)
    _set_roots(context.common_tls_context, scope, frozenset())
    _set_version(context.common_tls_context, world, scope.flavour)
    if scope.flavour == "envoy":
        context.common_tls_context.alpn_protocols.extend(("h2", "http/1.1"))
    return context


def _auto(world: World, scope: Scope, destination: Destination) -> Security:
    """Istio's auto mTLS.  Not for hosts outside of the mesh, nor for those that the caller dials itself."""
    service = destination.service
    if not world.settings.auto_mtls or service.location == "MESH_EXTERNAL" or destination.dialled_by_caller:
        return Security()
    context = _mutual(world, scope, destination, _identities(world, destination))
    if scope.flavour != "grpc":
        return Security(context, auto=True)
    # grpcio has one kind of connection a cluster: mTLS unless that would cut off an instance that cannot do it.
    plain = any(
        not speaks_mtls(world, service, instance, instance_port(instance, destination.port)) for instance in destination.chosen
    )
    return Security() if plain else Security(context)


def _identities(world: World, destination: Destination) -> frozenset[str]:
    """Secure naming: who may answer for a service is who has registered for it, or who its ServiceEntry names."""
    service, trust = destination.service, world.trust
    declared = under_aliases(trust, (name for name in world.declared_names(service) if "://" in name))
    # Of an instance that speaks no mTLS and says no account nothing is to be expected.
    known = (instance for instance in destination.instances if instance.service_account or _claims_mtls(instance))
    accounts = {instance.service_account for instance in known}
    if declared and not any(accounts):
        return declared
    return declared | identities(trust, service.namespace, accounts)


def _mutual(
    world: World, scope: Scope, destination: Destination, names: frozenset[str], *, sni: str = ""
) -> tls_pb2.UpstreamTlsContext:
    name = destination.name
    context = tls_pb2.UpstreamTlsContext(sni=sni or f"outbound_.{name.port}_.{name.subset}_.{name.host}")
    common = context.common_tls_context
    _set_identity(common, scope)
    _set_roots(common, scope, names)
    _set_version(common, world, scope.flavour)
    _set_alpn(common, scope, destination.port)
    return context


def _outside(
    world: World, scope: Scope, destination: Destination, settings: ClientTLSSettings
) -> tls_pb2.UpstreamTlsContext | None:
    """SIMPLE and MUTUAL: certificates of the web's kind.  None: no name could be verified, or grpcio lacks the files."""
    host = destination.service.host
    declared = (name for name in world.declared_names(destination.service) if "://" not in name)
    sni = settings.sni or ("" if is_wildcard(host) or is_address(host) else host)
    names = settings.subject_alt_names or tuple(declared) or ((settings.sni or host,) if not is_wildcard(host) or sni else ())
    verified = not settings.insecure_skip_verify
    if (verified and not names) or (scope.flavour == "grpc" and not _is_for_grpc(settings)):
        return None
    context = tls_pb2.UpstreamTlsContext(sni=sni)
    common = context.common_tls_context
    if settings.mode == "MUTUAL":
        certificate = common.tls_certificates.add()
        certificate.certificate_chain.filename = settings.client_certificate or ""
        certificate.private_key.filename = settings.private_key or ""
    validation = common.validation_context
    if verified:
        _set_authorities(validation, scope.flavour, settings.ca_certificates or "")
        _set_host_names(validation, scope.flavour, names)
    else:
        validation.trust_chain_verification = tls_pb2.CertificateValidationContext.ACCEPT_UNTRUSTED
    _set_alpn(common, scope, destination.port)
    return context


def _is_for_grpc(settings: ClientTLSSettings) -> bool:
    """Grpcio verifies by the system's roots; it reads no files that a cluster names, and it always verifies."""
    return settings.mode == "SIMPLE" and not settings.ca_certificates and not settings.insecure_skip_verify


def _set_authorities(validation: tls_pb2.CertificateValidationContext, flavour: Flavour, file: str) -> None:
    if file or flavour == "envoy":
        validation.trusted_ca.filename = file or SYSTEM_ROOTS
    else:
        validation.system_root_certs.SetInParent()


def _set_host_names(validation: tls_pb2.CertificateValidationContext, flavour: Flavour, names: Iterable[str]) -> None:
    for name in sorted(names):
        if flavour == "grpc":
            validation.match_subject_alt_names.add(exact=name)
        else:
            matcher = validation.match_typed_subject_alt_names.add(san_type=_SAN.IP_ADDRESS if is_address(name) else _SAN.DNS)
            matcher.matcher.exact = name


def _set_identity(common: tls_pb2.CommonTlsContext, scope: Scope) -> None:
    """The workload's own certificate."""
    if scope.flavour == "envoy":
        source = common.tls_certificate_sds_secret_configs.add(name=IDENTITY).sds_config
        source.path_config_source.path = scope.identity_file or IDENTITY_FILE
        source.resource_api_version = core_pb2.V3
    else:
        provider = common.tls_certificate_provider_instance
        provider.instance_name, provider.certificate_name = IDENTITY, IDENTITY


def _set_roots(common: tls_pb2.CommonTlsContext, scope: Scope, names: frozenset[str]) -> None:
    """Roots of all trusted domains; `names`: SPIFFE IDs of which the peer must have one, none: any."""
    if scope.flavour != "envoy":
        provider = common.validation_context.ca_certificate_provider_instance
        provider.instance_name, provider.certificate_name = IDENTITY, TRUST_BUNDLE
        for name in sorted(names):
            common.validation_context.match_subject_alt_names.add(exact=name)
        return
    combined = common.combined_validation_context
    combined.default_validation_context.SetInParent()
    for name in sorted(names):
        # With its type: a DNS name that looks like an identity is none.
        combined.default_validation_context.match_typed_subject_alt_names.add(san_type=_SAN.URI).matcher.exact = name
    roots = combined.validation_context_sds_secret_config
    roots.name = TRUST_BUNDLE
    roots.sds_config.ads.SetInParent()
    roots.sds_config.resource_api_version = core_pb2.V3


def _set_version(common: tls_pb2.CommonTlsContext, world: World, flavour: Flavour) -> None:
    """Grpcio refuses the field."""
    version = _VERSIONS.get(world.settings.minimum_tls_version)
    if version is not None and flavour != "grpc":
        common.tls_params.tls_minimum_protocol_version = version


def _set_alpn(common: tls_pb2.CommonTlsContext, scope: Scope, port: Port) -> None:
    """Envoy says what it is configured to speak; the others know by themselves."""
    if scope.flavour == "envoy":
        common.alpn_protocols.append("h2" if is_http2(port) else "http/1.1")
