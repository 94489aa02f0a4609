"""Whom to believe: roots of all trusted domains, each for its own (SPIFFE's rule, and Envoy's SPIFFE validator's)."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.xds.proto import tls_pb2
from meshlib.xds.types import pack
from meshlib_control.compile.names import TRUST_BUNDLE
from meshlib_control.compile.node import Scope
from meshlib_control.compile.world import World

_VALIDATOR = "envoy.tls.cert_validator.spiffe"


def secret_names(world: World, scope: Scope) -> Iterator[str]:
    """Names of all secrets.  There are no others: keys stay with the workloads that made them, and grpcio has files."""
    if world.trust.secure and world.trust.roots and scope.flavour != "grpc":
        yield TRUST_BUNDLE


def secret(world: World, scope: Scope, name: str) -> tls_pb2.Secret | None:
    """The secret of this name; None: there is none."""
    if name not in secret_names(world, scope):
        return None
    trust = world.trust
    roots = dict(trust.roots)
    own = roots.get(trust.domain)
    if own is not None:
        # Identities under another name of the domain come from the same authority.
        roots = dict.fromkeys(trust.domains, own) | roots
    config = tls_pb2.SPIFFECertValidatorConfig()
    for domain in sorted(roots):
        config.trust_domains.add(name=domain).trust_bundle.inline_string = roots[domain]
    result = tls_pb2.Secret(name=name)
    validator = result.validation_context.custom_validator_config
    validator.name = _VALIDATOR
    validator.typed_config.CopyFrom(pack(config))
    return result
