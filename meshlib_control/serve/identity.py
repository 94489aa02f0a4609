"""Who calls: the identity in the caller's certificate, which gRPC has verified against the mesh's own roots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib import SpiffeId
from meshlib_control.ca.errors import CallerRefused
from meshlib_control.errors import ControlServiceError

Identify = Callable[[Any], SpiffeId]
"""A call's context → who makes it.  Raises `CallerRefused`."""


class NotAllowed(ControlServiceError):
    """The caller is known, or is not, and may not do this."""


class Callers:
    """Tells who is at the other end of a call.

    `identify` None: a service without identities, where nobody is asked (``--insecure-dev``).
    """

    def __init__(
        self, identify: Identify | None = None, is_banned: Callable[[SpiffeId], bool] = lambda identity: False
    ) -> None:
        self._identify = identify
        self._is_banned = is_banned

    def caller(self, context: Any) -> SpiffeId | None:
        """None in a service without identities.  Raises `NotAllowed` for anybody who is not a workload of the mesh."""
        if self._identify is None:
            return None
        try:
            identity = self._identify(context)
        except CallerRefused as error:
            raise NotAllowed(str(error)) from error
        if not identity.namespace:
            raise NotAllowed(f"{identity} is no workload: expected /ns/NAMESPACE/sa/SERVICE_ACCOUNT")
        if self._is_banned(identity):
            raise NotAllowed(f"{identity} is banned: see `meshctl ca status`")
        return identity


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
