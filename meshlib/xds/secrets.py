"""Secret → roots of the trusted domains.  Certificates only: a private key is never taken from the control service."""

from __future__ import annotations

import base64
import binascii
import re

from meshlib.model.identity import SpiffeId, TrustBundles
from meshlib.xds.fields import allow_only, join_path, unpack
from meshlib.xds.invalid import Problems
from meshlib.xds.proto import core_pb2, tls_pb2

MAX_ROOTS = 256
"""Certificates of one trust domain."""

_FIELDS = frozenset({"name", "validation_context"})
_VALIDATION_FIELDS = frozenset({"custom_validator_config"})
_SOURCES = frozenset({"inline_string", "inline_bytes"})
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\s*([A-Za-z0-9+/=\s]+?)\s*-----END CERTIFICATE-----")
_BOUNDARY = re.compile(rb"-----(?:BEGIN|END) ([^-\n]+)-----")


def decode_secret(secret: tls_pb2.Secret, problems: Problems) -> TrustBundles:
    """The roots by trust domain.  A malformed one makes the whole bundle unusable (gRFC A87): what was there before stays."""
    allow_only(secret, _FIELDS, field="", problems=problems)
    field = "validation_context"
    allow_only(secret.validation_context, _VALIDATION_FIELDS, field=field, problems=problems)
    where = f"{field}.custom_validator_config.typed_config"
    packed = secret.validation_context.custom_validator_config.typed_config
    config = unpack(packed, tls_pb2.SPIFFECertValidatorConfig, field=where, problems=problems)
    roots: dict[str, tuple[bytes, ...]] = {}
    for index, domain in enumerate(config.trust_domains if config is not None else ()):
        path = f"{where}.trust_domains[{index}]"
        _check_name(domain.name, problems, field=join_path(path, "name"))
        if domain.name in roots:
            problems.add(join_path(path, "name"), domain.name, "each trust domain once")
        roots[domain.name] = _certificates(domain.trust_bundle, problems, field=join_path(path, "trust_bundle"))
    if not roots and config is not None:
        problems.describe(join_path(where, "trust_domains"), "none", "at least the own trust domain")
    return TrustBundles(roots)


def _check_name(name: str, problems: Problems, *, field: str) -> None:
    try:
        SpiffeId(name)
    except ValueError as error:
        problems.describe(field, str(error), "a trust domain")


def _certificates(source: core_pb2.DataSource, problems: Problems, *, field: str) -> tuple[bytes, ...]:
    allow_only(source, _SOURCES, field=field, problems=problems)
    pem = source.inline_bytes or source.inline_string.encode()
    others = {kind for kind in _BOUNDARY.findall(pem) if kind != b"CERTIFICATE"}
    if others:
        named = ", ".join(sorted(kind.decode("latin-1") for kind in others))
        problems.describe(field, named, "certificates only")  # the content is not shown: it may be a key
        return ()
    found = tuple(_der(body) for body in _CERTIFICATE.findall(pem))
    if not 0 < len(found) <= MAX_ROOTS or len(found) != pem.count(b"-----BEGIN CERTIFICATE-----") or not all(found):
        problems.describe(field, f"{len(pem)} bytes", f"1 to {MAX_ROOTS} certificates in PEM")
        return ()
    return found


def _der(body: bytes) -> bytes:
    """A certificate's DER; empty: it is none."""
    from cryptography import x509  # only for processes with identities: it costs 30 ms

    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
        x509.load_der_x509_certificate(der)
    except (binascii.Error, ValueError):
        return b""
    return der
