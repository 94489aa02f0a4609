"""One call, as policies see it."""

from __future__ import annotations

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]
"""Raw header pairs in the order of the wire; names in any case."""


class Call:
    """What matching and balancing may look at.  A plain slotted class: one is made for every request.

    ``path`` is the origin-form target with its query, exactly as it goes on the wire.  ``deadline`` is on the clock that the
    flow is driven with (monotonic seconds); it is the tightest of what the caller and the request being served allow.
    """

    __slots__ = ("authority", "deadline", "deadline_name", "headers", "method", "path", "replayable", "started")

    def __init__(
        self,
        method: str,
        authority: str,
        path: str,
        headers: Headers,
        *,
        started: float = 0.0,
        replayable: bool = True,
        deadline: float | None = None,
        deadline_name: str = "total",
    ) -> None:
        self.method = method
        self.authority = authority  # lower case, with port: "reviews:80"
        self.path = path
        self.headers = headers
        self.started = started
        self.replayable = replayable  # the body can be sent again from its start
        self.deadline = deadline
        self.deadline_name = deadline_name  # "total" or "deadline": whose it is, for the error

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.authority}{self.path}>"
