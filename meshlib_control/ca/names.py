"""Whom the authority issues for, and the DNS name that goes with an identity."""

from __future__ import annotations

import re

from meshlib.lowlevel import SpiffeId
from meshlib_control.ca.errors import IdentityRefused

CONTROL_NAMESPACE = "meshlib-system"
CONTROL_ACCOUNT = "meshlib-control"

MAX_DNS_NAME = 253

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAMESPACE = re.compile(_LABEL)
"""As in Kubernetes.  No dots and no capitals, so that no two identities of a trust domain share a DNS name."""
SERVICE_ACCOUNT = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def control_id(trust_domain: str) -> SpiffeId:
    """The control service's own identity, which nobody else gets."""
    return SpiffeId.of_workload(trust_domain, CONTROL_NAMESPACE, CONTROL_ACCOUNT)


def workload_id(trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
    """Raises `IdentityRefused` for names that Kubernetes would not take: they would not stay apart as DNS names."""
    if not NAMESPACE.fullmatch(namespace):
        raise IdentityRefused(f"{namespace[:80]!r} is no namespace: expected a lower-case DNS label (RFC 1123)")
    if not SERVICE_ACCOUNT.fullmatch(service_account):
        raise IdentityRefused(f"{service_account[:80]!r} is no service account: expected lower-case DNS labels (RFC 1123)")
    identity = SpiffeId.of_workload(trust_domain, namespace, service_account)
    if len(dns_name(identity)) > MAX_DNS_NAME:
        raise IdentityRefused(f"the DNS name of {identity} would be longer than {MAX_DNS_NAME} bytes")
    return identity


def check_workload(identity: SpiffeId, trust_domain: str) -> None:
    """Raises `IdentityRefused` for what is not ``spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT``."""
    if identity.trust_domain != trust_domain:
        raise IdentityRefused(f"{identity} is of another trust domain; this authority vouches for {trust_domain} only")
    if workload_id(trust_domain, identity.namespace, identity.service_account) != identity:
        raise IdentityRefused(f"{identity} is no identity of a workload: expected /ns/NAMESPACE/sa/ACCOUNT")


def dns_name(identity: SpiffeId) -> str:
    """``ACCOUNT.NAMESPACE.TRUST_DOMAIN``: what clients compare that know no URIs (gRPC's)."""
    return f"{identity.service_account}.{identity.namespace}.{identity.trust_domain}"
