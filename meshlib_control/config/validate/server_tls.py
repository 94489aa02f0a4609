"""ServerTLSSettings of a Sidecar's listener."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib_control.config.kinds import ServerTLSSettings
from meshlib_control.config.problems import Problem

_OF_GATEWAYS = (
    ("httpsRedirect", "https_redirect"),
    ("subjectAltNames", "subject_alt_names"),
    ("credentialName", "credential_name"),
    ("credentialNames", "credential_names"),
    ("tlsCertificates", "tls_certificates"),
)
_FILES = (("serverCertificate", "server_certificate"), ("privateKey", "private_key"))
_NEEDED = {
    "SIMPLE": _FILES,
    "OPTIONAL_MUTUAL": (*_FILES, ("caCertificates", "ca_certificates")),
    "MUTUAL": (*_FILES, ("caCertificates", "ca_certificates")),
}


def check_server_tls(tls: ServerTLSSettings) -> Iterator[Problem]:
    """What Istio takes at a workload, which is less than at a gateway."""
    for field, attribute in _OF_GATEWAYS:
        if getattr(tls, attribute):
            yield Problem((field,), "MSH0137", f"{field} is for gateways; a workload's certificate is in files")
    if tls.mode in ("ISTIO_MUTUAL", "AUTO_PASSTHROUGH"):
        message = f"{tls.mode} is for gateways; the mesh's own mTLS is a matter of PeerAuthentication"
        yield Problem(("mode",), "MSH0137", message)
        return
    from_gateway = tls.credential_name or tls.credential_names or tls.tls_certificates
    for field, attribute in () if from_gateway else _NEEDED.get(tls.mode, ()):
        if not getattr(tls, attribute):
            yield Problem((field,), "MSH0103", f"{field} is missing; mode {tls.mode} needs it")
