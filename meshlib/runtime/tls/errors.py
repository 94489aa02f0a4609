"""What TLS adds to the ways in which a connection fails."""

from __future__ import annotations

import ssl

_REFUSALS = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
)


class IdentityMissing(ssl.SSLError):
    """This process has nothing to prove its identity with, or nobody to trust: nothing is sent, nothing is accepted."""

    def __init__(self, message: str) -> None:
        super().__init__(1, message)


def is_refusal(error: BaseException | None) -> bool:
    """Did the peer end the handshake because of our certificate?

    In TLS 1.3 a client is done with its handshake before the server has seen the client's certificate, so the refusal arrives
    as an alert in the place of the first response.  A server that sends it has not finished its own handshake: it has read
    nothing of the application's (0-RTT is off), so a request that was written meanwhile was not processed.  Without the alert
    (a connection that just ends) nobody knows.
    """
    return isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in _REFUSALS
