"""TLS contexts → model.  What cannot be done exactly as it says is refused: there is no fallback to less (gRFC A29, A36)."""

from __future__ import annotations

from typing import Final

from meshlib.model.cluster import UpstreamTls
from meshlib.model.identity import SpiffeId
from meshlib.model.listener import TRUST_BUNDLE
from meshlib.xds.fields import allow_only, join_path, unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import core_pb2, tls_pb2

PROVIDER: Final = "default"
"""Certificate provider instance of this data plane, and the name of its certificate: there is one."""

_Validation = tls_pb2.CertificateValidationContext
_SAN = tls_pb2.SubjectAltNameMatcher
_VERSIONS = {
    tls_pb2.TlsParameters.TLS_AUTO: "",
    tls_pb2.TlsParameters.TLSv1_2: "TLSv1_2",
    tls_pb2.TlsParameters.TLSv1_3: "TLSv1_3",
}
_UPSTREAM_FIELDS = frozenset({"common_tls_context", "sni"})
_DOWNSTREAM_FIELDS = frozenset({"common_tls_context", "require_client_certificate"})
_MESH_FIELDS = frozenset({"tls_params", "tls_certificate_provider_instance", "validation_context"})
_OUTSIDE_FIELDS = frozenset({"tls_params", "tls_certificates", "validation_context"})
_PARAMETER_FIELDS = frozenset({"tls_minimum_protocol_version"})
_MESH_VALIDATION = frozenset({"ca_certificate_provider_instance", "match_subject_alt_names"})
_OUTSIDE_VALIDATION = frozenset(
    {"trusted_ca", "system_root_certs", "trust_chain_verification", "match_typed_subject_alt_names"}
)
_FILE = frozenset({"filename"})


def decode_upstream(socket: core_pb2.TransportSocket, problems: Problems, *, field: str) -> UpstreamTls:
    """How a cluster's connections are encrypted.  `socket` must be TLS."""
    where = join_path(field, "typed_config")
    context = unpack(socket.typed_config, tls_pb2.UpstreamTlsContext, field=where, problems=problems)
    if context is None:
        return UpstreamTls()
    allow_only(context, _UPSTREAM_FIELDS, field=where, problems=problems)
    common, inner = context.common_tls_context, join_path(where, "common_tls_context")
    if common.HasField("tls_certificate_provider_instance"):
        return UpstreamTls(
            identities=_mesh(common, problems, field=inner),
            sni=context.sni,
            minimum_version=_minimum_version(common, problems, field=inner),
        )
    return _outside(context, problems, field=where)


def decode_downstream(socket: core_pb2.TransportSocket, problems: Problems, *, field: str) -> str:
    """Check that a server's TLS is the mesh's mTLS: the one kind that there is.  Returns the minimum version."""
    where = join_path(field, "typed_config")
    context = unpack(socket.typed_config, tls_pb2.DownstreamTlsContext, field=where, problems=problems)
    if context is None:
        return ""
    allow_only(context, _DOWNSTREAM_FIELDS, field=where, problems=problems)
    if not context.require_client_certificate.value:
        problems.describe(join_path(where, "require_client_certificate"), "not true", "true: there is no TLS without a peer")
    common, inner = context.common_tls_context, join_path(where, "common_tls_context")
    names = _mesh(common, problems, field=inner)
    if names:
        problems.describe(join_path(inner, "validation_context"), "names of clients", "none: filters say who may call")
    return _minimum_version(common, problems, field=inner)


def is_raw(socket: core_pb2.TransportSocket, problems: Problems, *, field: str) -> bool:
    """Whether a transport socket is plaintext, said so by its type; its name is for people."""
    if socket.typed_config.type_url.rpartition(".")[2] != "RawBuffer":
        return False
    return unpack(socket.typed_config, tls_pb2.RawBuffer, field=join_path(field, "typed_config"), problems=problems) is not None


def _mesh(common: tls_pb2.CommonTlsContext, problems: Problems, *, field: str) -> frozenset[str]:
    """With this process's own identity.  Returns the identities of which the peer must have one."""
    allow_only(common, _MESH_FIELDS, field=field, problems=problems)
    own, where = common.tls_certificate_provider_instance, join_path(field, "tls_certificate_provider_instance")
    if (own.instance_name, own.certificate_name or PROVIDER) != (PROVIDER, PROVIDER):
        problems.add(where, f"{own.instance_name}/{own.certificate_name}", f"the certificate provider {PROVIDER}")
    validation, inner = common.validation_context, join_path(field, "validation_context")
    allow_only(validation, _MESH_VALIDATION, field=inner, problems=problems)
    roots = validation.ca_certificate_provider_instance
    if (roots.instance_name, roots.certificate_name) != (PROVIDER, TRUST_BUNDLE):
        found = f"{roots.instance_name}/{roots.certificate_name}"
        expected = f"{TRUST_BUNDLE} of the certificate provider {PROVIDER}"
        problems.add(join_path(inner, "ca_certificate_provider_instance"), found, expected)
    names: set[str] = set()
    for index, matcher in enumerate(validation.match_subject_alt_names):
        name = _exact(matcher, problems, field=join_path(inner, f"match_subject_alt_names[{index}]"))
        try:
            names.add(str(SpiffeId.parse(name)))
        except ValueError as error:
            problems.describe(join_path(inner, f"match_subject_alt_names[{index}].exact"), str(error), "a SPIFFE ID")
    return frozenset(names)


def _outside(context: tls_pb2.UpstreamTlsContext, problems: Problems, *, field: str) -> UpstreamTls:
    """As with any server of the web: certificates of files, names of hosts."""
    common, inner = context.common_tls_context, join_path(field, "common_tls_context")
    allow_only(common, _OUTSIDE_FIELDS, field=inner, problems=problems)
    certificate, key = _certificate(common, problems, field=join_path(inner, "tls_certificates"))
    validation, where = common.validation_context, join_path(inner, "validation_context")
    allow_only(validation, _OUTSIDE_VALIDATION, field=where, problems=problems)
    verify = validation.trust_chain_verification != _Validation.ACCEPT_UNTRUSTED
    ca_file = _file(validation.trusted_ca, problems, field=join_path(where, "trusted_ca"))
    names = tuple(
        _host_name(matcher, problems, field=join_path(where, f"match_typed_subject_alt_names[{index}]"))
        for index, matcher in enumerate(validation.match_typed_subject_alt_names)
    )
    if verify and not ca_file and not validation.HasField("system_root_certs"):
        problems.describe(where, "nothing to verify by", "trusted_ca, system_root_certs, or trust_chain_verification")
    if verify and not names and not context.sni:
        problems.describe(where, "no name to verify", "match_typed_subject_alt_names or an sni")
    return UpstreamTls(
        mesh=False,
        sni=context.sni,
        dns_names=names,
        ca_file=ca_file,
        certificate_file=certificate,
        key_file=key,
        verify=verify,
        minimum_version=_minimum_version(common, problems, field=inner),
    )


def _certificate(common: tls_pb2.CommonTlsContext, problems: Problems, *, field: str) -> tuple[str, str]:
    if not common.tls_certificates:
        return "", ""
    if len(common.tls_certificates) > 1:
        problems.describe(field, f"{len(common.tls_certificates)} certificates", "at most one")
    pair = common.tls_certificates[0]
    chain = _file(pair.certificate_chain, problems, field=f"{field}[0].certificate_chain")
    key = _file(pair.private_key, problems, field=f"{field}[0].private_key")
    if not chain or not key:
        problems.describe(f"{field}[0]", "incomplete", "files of a certificate and of its key")
    return chain, key


def _file(source: core_pb2.DataSource, problems: Problems, *, field: str) -> str:
    """Only files: what is inline, a key above all, has passed through the control service."""
    allow_only(source, _FILE, field=field, problems=problems)
    return source.filename


def _host_name(matcher: tls_pb2.SubjectAltNameMatcher, problems: Problems, *, field: str) -> str:
    if matcher.san_type not in (_SAN.DNS, _SAN.IP_ADDRESS) or matcher.oid:
        problems.add(join_path(field, "san_type"), matcher.san_type, "DNS or IP_ADDRESS")
    return _exact(matcher.matcher, problems, field=join_path(field, "matcher"))


def _exact(matcher: core_pb2.StringMatcher, problems: Problems, *, field: str) -> str:
    if not matcher.exact or matcher.ignore_case:
        problems.describe(field, matcher.WhichOneof("match_pattern") or "empty", "exact, and with regard to case")
    return matcher.exact


def _minimum_version(common: tls_pb2.CommonTlsContext, problems: Problems, *, field: str) -> str:
    where = join_path(field, "tls_params")
    allow_only(common.tls_params, _PARAMETER_FIELDS, field=where, problems=problems)
    version = _VERSIONS.get(common.tls_params.tls_minimum_protocol_version)
    if version is None:
        shown = common.tls_params.tls_minimum_protocol_version
        problems.add(join_path(where, "tls_minimum_protocol_version"), shown, "TLS_AUTO, TLSv1_2 or TLSv1_3")
        return ""
    return version
