"""What an exception of asyncio's, of a socket's or of TLS's means for an exchange."""

from __future__ import annotations

import ssl

from meshlib.errors import TimeoutName
from meshlib.model.endpoint import Endpoint
from meshlib.runtime.tls.errors import IdentityMissing, is_refusal
from meshlib.runtime.tls.verify import CertificateRejected
from meshlib.wire.errors import CannotConnect, ConnectTimedOut, NoIdentity, Terminated, TimedOut, TlsFailed, WireError


def connect_failure(endpoint: Endpoint, error: BaseException, which: TimeoutName | None) -> WireError | None:
    """Why there is no connection; None: that is no failure of the network's.

    `which` of our timeouts passed, if any: the kernel's own ETIMEDOUT is a TimeoutError as well.
    """
    if isinstance(error, TimeoutError) and which is not None:
        message = f"no connection to {endpoint} was made in time ({which} timeout)"
        return ConnectTimedOut(message) if which == "connect" else TimedOut(message, which, sent=False)
    if isinstance(error, IdentityMissing):
        return NoIdentity(f"{endpoint} cannot be called: {reason_of(error)}")
    if isinstance(error, ssl.SSLError):
        return TlsFailed(f"no trusted connection to {endpoint}: {reason_of(error)}")
    if isinstance(error, OSError):
        return CannotConnect(f"cannot connect to {endpoint}: {error}")
    return None


def lost(error: BaseException | None, *, first: bool, replayable: bool) -> WireError:
    """Why a connection ended while an exchange was under way.

    `first`: of this connection, and nothing came back: then an alert may say that the peer never took the request.
    `replayable`: the body was written as a whole, or there was none.
    """
    if first and is_refusal(error):
        failed = TlsFailed(f"the peer refused this process's certificate: {reason_of(error)}")
        failed.sent = not replayable
        return failed
    return Terminated(f"the connection was lost: {error}" if error else "the connection was lost")


def reason_of(error: BaseException | None) -> str:
    """Without the number and the line of C that ssl puts around it."""
    if isinstance(error, ssl.SSLError) and not isinstance(error, CertificateRejected | IdentityMissing):
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the peer's certificate was refused: {error.verify_message}"
        reason = getattr(error, "reason", None)  # errors that were not made by OpenSSL have none
        if reason:
            return str(reason).lower().replace("_", " ")
    return str(error)
