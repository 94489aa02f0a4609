"""Who calls: the identity in the caller's certificate, which gRPC has verified against the mesh's own roots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib import SpiffeId
from meshlib_control.errors import ControlServiceError

IsBanned = Callable[[SpiffeId], bool]


class NotAllowed(ControlServiceError):
    """The caller is known, or is not, and may not do this."""


class Callers:
    """Tells who is at the other end of a call.

    `trust_domain` empty: a service without identities, where nobody is asked (``--insecure-dev``).
    """

    def __init__(self, trust_domain: str = "", is_banned: IsBanned = lambda identity: False) -> None:
        self.trust_domain = trust_domain
        self._is_banned = is_banned

    def caller(self, context: Any) -> SpiffeId | None:
        """None in a service without identities.  Raises `NotAllowed` for anybody who is not a workload of the mesh."""
        if not self.trust_domain:
            return None
        # gRPC fills this in only from a verified certificate with exactly one URI SAN that is a SPIFFE ID.
        found: list[bytes] = list(context.auth_context().get("peer_spiffe_id") or ())
        if len(found) != 1:
            raise NotAllowed("the client's certificate has no SPIFFE ID: get one from this service's CA")
        try:
            identity = SpiffeId.parse(found[0].decode())
        except ValueError as error:
            raise NotAllowed(f"the client's certificate: {error}") from error
        self.admit(identity)
        return identity

    def admit(self, identity: SpiffeId) -> None:
        """Raises `NotAllowed` unless this is a workload of our trust domain that is not banned."""
        if identity.trust_domain != self.trust_domain or not identity.namespace:
            raise NotAllowed(f"{identity} is no workload of the trust domain {self.trust_domain}")
        if self._is_banned(identity):
            raise NotAllowed(f"{identity} is banned: see `meshctl ca bans`")


def check_claims(identity: SpiffeId | None, *, namespace: str, service_account: str) -> None:
    """Raises `NotAllowed` when a client claims to be somebody else than its certificate says; empty claims are none."""
    if identity is None:
        return
    for name, claimed, proved in (
        ("namespace", namespace, identity.namespace),
        ("service account", service_account, identity.service_account),
    ):
        if claimed and claimed != proved:
            raise NotAllowed(f"{identity} claims the {name} {claimed!r}")
