"""MeshConfig."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshlib_control.config.kinds import CertificateAuthority, MeshConfig
from meshlib_control.config.problems import Problem, under
from meshlib_control.config.validate import names
from meshlib_control.config.validate.extension_providers import check_extension_providers, check_registration_grants
from meshlib_control.config.validate.policies import check_locality, check_one_preference, check_zone_awareness
from meshlib_control.config.validate.retries import check_retry
from meshlib_control.config.validate.strings import check_duration

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")  # SPIFFE-ID section 2.1
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def check_mesh_config(spec: MeshConfig, namespace: str) -> Iterator[Problem]:
    """The rules of the elements, and what a default may be."""
    fault = names.namespace_fault(spec.root_namespace)
    if fault:
        yield Problem(("rootNamespace",), "MSH0009", fault)
    yield from under(("defaultHttpRetryPolicy",), check_retry(spec.default_http_retry_policy))
    yield from under(("connectTimeout",), check_duration(spec.connect_timeout))
    yield from under(("localityLbSetting",), check_locality(spec.locality_lb_setting))
    yield from under(("zoneAwareLbSetting",), check_zone_awareness(spec.zone_aware_lb_setting))
    yield from check_one_preference(spec.locality_lb_setting, spec.zone_aware_lb_setting)
    for name, export_to in (
        ("defaultVirtualServiceExportTo", spec.default_virtual_service_export_to),
        ("defaultDestinationRuleExportTo", spec.default_destination_rule_export_to),
        ("defaultServiceExportTo", spec.default_service_export_to),
    ):
        if not export_to:
            yield Problem((name,), "MSH0128", "an empty list says nothing; write . for the own namespace or * for all")
        yield from under((name,), names.check_export_to(export_to, namespace, allow_none=name == "defaultServiceExportTo"))
    yield from _check_trust(spec)
    yield from under(("extensionProviders",), check_extension_providers(spec.extension_providers))
    yield from under(("registrationGrants",), check_registration_grants(spec.registration_grants))


def _check_trust(spec: MeshConfig) -> Iterator[Problem]:
    if spec.trust_domain is not None:
        yield from under(("trustDomain",), _check_trust_domain(spec.trust_domain))
    for index, alias in enumerate(spec.trust_domain_aliases):
        yield from under(("trustDomainAliases", index), _check_trust_domain(alias))
    for index, authority in enumerate(spec.ca_certificates):
        yield from under(("caCertificates", index), _check_authority(authority))


def _check_trust_domain(name: str) -> Iterator[Problem]:
    if not _TRUST_DOMAIN.fullmatch(name):
        message = f"{name!r} is not a trust domain: lower-case letters, digits, dots, dashes and underscores, at most 255"
        yield Problem((), "MSH0144", message)


def _check_authority(authority: CertificateAuthority) -> Iterator[Problem]:
    if not authority.trust_domains:
        message = "roots sign for certain trust domains; name them, or every workload of theirs could be anybody"
        yield Problem(("trustDomains",), "MSH0144", message)
    for index, name in enumerate(authority.trust_domains):
        yield from under(("trustDomains", index), _check_trust_domain(name))
    if _PRIVATE_KEY.search(authority.pem):
        yield Problem(("pem",), "MSH0144", "there is a private key in it: remove it here, and replace it where it is used")
    elif fault := _pem_fault(authority.pem):
        yield Problem(("pem",), "MSH0144", fault)


def _pem_fault(pem: str) -> str:
    """What keeps `pem` from being certificates of authorities."""
    from cryptography import x509  # 50 ms, for one field that few configurations have

    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
        for certificate in certificates:
            if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                return f"{certificate.subject.rfc4514_string() or 'a certificate'} is not an authority's (CA:FALSE)"
    except x509.ExtensionNotFound:
        return "one of the certificates does not say that it is an authority's (no basic constraints)"
    except ValueError as error:
        return f"this is not a list of certificates in PEM: {error}"
    return ""
