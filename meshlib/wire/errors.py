"""What can go wrong on one connection, in the terms that a retry decision needs.

::

    WireError                 reset                    meaning
    ├── CannotConnect         CONNECT_FAILURE          refused, unreachable, name not found
    │   ├── ConnectTimedOut   CONNECT_TIMEOUT
    │   └── TlsFailed         CONNECT_FAILURE          no connection that both sides trust
    ├── LimitReached          OVERFLOW                 the cluster's connection or pending limit; Envoy never retries it
    │   └── PoolTimedOut      POOL_TIMEOUT             no connection became free in the caller's pool timeout
    ├── Terminated            CONNECTION_TERMINATION   the connection ended before the response did
    ├── ProtocolViolation     PROTOCOL_ERROR           the peer's bytes are not an HTTP/1.1 response to our request
    │   └── BodyTruncated     PROTOCOL_ERROR           an orderly end before the announced end of the body
    ├── TimedOut              TIMEOUT, PER_TRY_TIMEOUT `which` names the timeout
    └── RequestFailed         LOCAL                    our own side: body source failed, wrong length, pool closed
        └── NoIdentity        LOCAL                    no certificate to prove who we are, or no root to trust

``sent`` and ``responded`` are the two facts that decide whether a repetition is safe.  They are never guessed in the
optimistic direction: ``sent`` is True as soon as a byte of the request may have reached the socket.
"""

from __future__ import annotations

from meshlib.errors import TimeoutName
from meshlib.model.outcome import Outcome, Reset


class WireError(Exception):
    """One exchange failed.

    ``sent``: a byte of this request may have reached the socket.  ``responded``: a byte of a response to it came back.
    ``reused``: the connection had carried a request before, so an idle close by the peer is a likely cause.
    """

    reset = Reset.PROTOCOL_ERROR
    which: TimeoutName | None = None

    def __init__(self, message: str, *, sent: bool = True, responded: bool = False, reused: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.responded = responded
        self.reused = reused

    def outcome(self, at: float) -> Outcome:
        """The same, as a flow wants it; `at` is the flow's clock."""
        return Outcome(at, reset=self.reset, sent=self.sent, responded=self.responded, error=self, timeout=self.which or "")


class CannotConnect(WireError):
    """No connection was made."""

    reset = Reset.CONNECT_FAILURE

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class ConnectTimedOut(CannotConnect):
    """No connection was made within the connect timeout."""

    reset = Reset.CONNECT_TIMEOUT
    which: TimeoutName | None = "connect"


class TlsFailed(CannotConnect):
    """The TLS handshake failed: one side did not accept what the other proved, or could not.

    `sent` is False also when a request was written before the peer's refusal of our certificate arrived: a server that
    refuses a handshake has read nothing of the request.  Only a body that cannot be made again counts as sent.
    """


class LimitReached(WireError):
    """``max_connections`` or ``max_pending_requests`` of the cluster."""

    reset = Reset.OVERFLOW

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class PoolTimedOut(LimitReached):
    """No connection became free within the pool timeout."""

    reset = Reset.POOL_TIMEOUT
    which: TimeoutName | None = "pool"


class Terminated(WireError):
    """The connection ended before the response was complete."""

    reset = Reset.CONNECTION_TERMINATION


class ProtocolViolation(WireError):
    """The peer sent something that is not a response to our request.  The connection is unusable."""

    def __init__(self, message: str, *, sent: bool = True, responded: bool = True, reused: bool = False) -> None:
        super().__init__(message, sent=sent, responded=responded, reused=reused)


class BodyTruncated(ProtocolViolation):
    """The connection was closed in an orderly way, but before the announced end of the body (RFC 9112 section 8)."""


class TimedOut(WireError):
    """A timeout passed while the exchange was under way; the connection is closed."""

    reset = Reset.TIMEOUT

    def __init__(self, message: str, which: TimeoutName, *, sent: bool = True, responded: bool = False) -> None:
        super().__init__(message, sent=sent, responded=responded)
        self.which = which
        if which == "per_try":
            self.reset = Reset.PER_TRY_TIMEOUT


class RequestFailed(WireError):
    """Our own side could not complete the request; ``__cause__`` is the body source's own exception, if there is one."""

    reset = Reset.LOCAL


class NoIdentity(RequestFailed):
    """This process cannot prove who it is, or does not know whom to trust.  Nothing was sent, and no endpoint is to blame."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)
