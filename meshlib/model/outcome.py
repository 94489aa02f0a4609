"""What an attempt came to."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from meshlib.model.call import Headers


class Reset(Enum):
    """Why there is no response.  Envoy's names; the second value is the response flag."""

    CONNECT_FAILURE = ("connection_failure", "UF")
    CONNECT_TIMEOUT = ("connection_timeout", "UF")
    POOL_TIMEOUT = ("pool_timeout", "UO")  # ours: the caller gave up waiting for a connection
    OVERFLOW = ("overflow", "UO")  # a limit of this process; never retried
    CONNECTION_TERMINATION = ("connection_termination", "UC")
    PROTOCOL_ERROR = ("protocol_error", "UPE")
    PER_TRY_TIMEOUT = ("upstream_per_try_timeout", "UT")
    TIMEOUT = ("response_timeout", "UT")  # route, caller's, or inherited: `Outcome.timeout` names it; never retried
    LOCAL = ("local_reset", "LR")  # our own side: the request body failed, the request could not be written as it is

    @property
    def details(self) -> str:
        return self.value[0]

    @property
    def flag(self) -> str:
        return self.value[1]


UNREACHED = frozenset({Reset.CONNECT_FAILURE, Reset.CONNECT_TIMEOUT})
"""No connection was made, so the attempt reached nobody."""


class Outcome:
    """Sent back into the flow after an `Attempt`: either a response head (`status`), or a `reset`.

    ``sent`` says whether any byte of the request may have reached the socket: False makes a repetition safe for every method.
    ``responded``: a byte of a response came back before the reset: then nothing makes it safe.
    ``complete``: the whole response is here, so nothing is held for its body.
    ``at`` is the flow's clock when it happened.
    ``grpc_status`` is read from the headers by the first who wants it (`policy.grpc`); False: nobody has yet.
    """

    __slots__ = (
        "at",
        "complete",
        "error",
        "grpc_status",
        "headers",
        "reset",
        "responded",
        "response",
        "sent",
        "status",
        "timeout",
    )

    def __init__(
        self,
        at: float,
        *,
        status: int = 0,
        headers: Headers = (),
        reset: Reset | None = None,
        sent: bool = True,
        responded: bool = False,
        error: BaseException | None = None,
        timeout: str = "",
        response: object = None,
        complete: bool = False,
    ) -> None:
        self.at = at
        self.status = status
        self.headers = headers
        self.grpc_status: bytes | Literal[False] | None = False
        self.reset = reset
        self.sent = sent
        self.responded = responded
        self.error = error  # the low-level exception, kept as the cause
        self.timeout = timeout  # an errors.TimeoutName
        self.complete = complete
        self.response = response  # the shell's own handle of the open response; flows pass it through

    def __repr__(self) -> str:
        return f"<Outcome {self.reset.name if self.reset else self.status} at={self.at:.3f}>"
