"""TLS of the control service's own ports, with certificates of its own authority that are never older than half their life.

gRPC asks for the configuration at each handshake, from threads of its own: renewal happens there and then, needs no task, and
takes effect without a restart, as does every change of the roots.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from meshlib_control.ca.authority import CertificateAuthority
from meshlib_control.ca.errors import IssuingStopped
from meshlib_control.ca.model import ControlIdentity

log = logging.getLogger(__name__)

RETRY = 10.0
"""Seconds between attempts to renew while the authority does not issue."""


@dataclass(frozen=True, slots=True)
class _Current:
    identity: ControlIdentity
    number: int  # grows with each


class ControlCredentials:
    """Credentials for any number of ports, all with the same certificate at a time."""

    def __init__(self, authority: CertificateAuthority, *, clock: Callable[[], float] = time.time) -> None:
        """Raises `IssuingStopped`."""
        self._authority = authority
        self._clock = clock
        self._lock = threading.Lock()
        self._current = _Current(authority.control_identity(), 1)
        self._failed = float("-inf")

    @property
    def identity(self) -> ControlIdentity:
        """The current one, renewed if it is time for that.  From any thread."""
        return self._renewed().identity

    def server(self, *, client_certificates: bool) -> Any:
        """Credentials of one port.  `client_certificates`: whether clients must show one (mTLS), or none is asked for."""
        configured = 0

        def configuration() -> Any:
            nonlocal configured
            try:
                current = self._renewed()
            except Exception:
                # gRPC would end the handshake; with the certificate that there is, it may well succeed.
                log.exception("the control service's certificate cannot be renewed")
                return None
            if current.number == configured:
                return None
            configured = current.number
            return _configuration(current.identity, client_certificates)

        initial = self._renewed()
        configured = initial.number
        return grpc.dynamic_ssl_server_credentials(
            _configuration(initial.identity, client_certificates),
            configuration,
            require_client_authentication=client_certificates,
        )

    def _renewed(self) -> _Current:
        with self._lock:
            current = self._current
            now = self._clock()
            if not self._due(current.identity, now) or 0 <= now - self._failed < RETRY:
                return current
            try:
                self._current = _Current(self._authority.control_identity(), current.number + 1)
            except IssuingStopped as error:
                self._failed = now
                log.warning("the control service's certificate is not renewed: %s", error)
            return self._current

    def _due(self, identity: ControlIdentity, now: float) -> bool:
        """At half its life, and at once when the roots have changed or another one comes first (a taint)."""
        if identity.roots_pem != self._authority.trust_bundle.pem.encode("ascii"):
            return True
        return not identity.not_before <= now < (identity.not_before + identity.not_after) / 2


def _configuration(identity: ControlIdentity, client_certificates: bool) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key_pem, identity.chain_pem)], root_certificates=identity.roots_pem if client_certificates else None
    )
