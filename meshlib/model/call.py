"""One call, as policies see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshlib.errors import RequestError, TimeoutName
from meshlib.model.route import RETRY_CONDITIONS

if TYPE_CHECKING:
    from meshlib.model.inbound import RequestContext

Headers = Sequence[tuple[bytes, bytes]]
"""Raw header pairs in the order of the wire; names in any case."""

_STATUS = re.compile(r"[1-5][0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one call says in the place of the operator's policy; None leaves the policy's value.

    Times in seconds.  A timeout here can only tighten the route's.  `stop` and `wait` are tenacity strategies.

    Raises errors.RequestError for a condition in `retry_on` that does not exist: it would silently never hold.
    """

    timeout: float | None = None  # the whole call with its retries
    per_try_timeout: float | None = None
    retries: int | None = None  # tries after the first; 0: none at all
    retry_on: frozenset[str] | None = None  # Envoy's conditions ("connect-failure", "5xx" ...) and statuses ("503")
    stop: Callable[[Any], bool] | None = None
    wait: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        for token in sorted(self.retry_on or ()):
            if token not in RETRY_CONDITIONS and not _STATUS.fullmatch(token):
                known = ", ".join(sorted(RETRY_CONDITIONS))
                raise RequestError(f"retry_on: {token!r} is not a condition; there are {known}, and statuses such as 503")

    @property
    def has_strategies(self) -> bool:
        return self.stop is not None or self.wait is not None


class Call:
    """What matching and balancing may look at.  A plain slotted class: one is made for every request.

    ``path`` is the origin-form target with its query; the flow makes it canonical, and so it goes on the wire.  ``host`` is
    what the Host header says, which need not have the port (Envoy's ``:authority``).  ``headers`` are replaced by others, and
    never changed in place; ``filed`` is those that were last asked for by name, with their index (`policy.matching`).
    ``deadline`` is on the clock that the
    flow is driven with (monotonic seconds); it is the tightest of what the caller and the request being served allow.
    """

    __slots__ = (
        "authority",
        "deadline",
        "deadline_name",
        "filed",
        "headers",
        "host",
        "inherited_attempt",
        "method",
        "overrides",
        "path",
        "replayable",
        "serving",
        "started",
    )

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
        deadline_name: TimeoutName = "total",
        overrides: Overrides | None = None,
        inherited_attempt: int = 1,
        serving: RequestContext | None = None,
        host: str = "",
    ) -> None:
        self.method = method
        self.authority = authority  # lower case, with port: "reviews:80"
        self.host = host or authority
        self.path = path
        self.headers = headers
        self.filed: tuple[Headers, Mapping[bytes, bytes]] | None = None
        self.started = started
        self.replayable = replayable  # the body can be sent again from its start
        self.deadline = deadline
        self.deadline_name: TimeoutName = deadline_name  # "total" or "deadline": whose it is, for the error
        self.overrides = overrides
        self.inherited_attempt = inherited_attempt  # of the request being served meanwhile: above 1, it is itself a retry
        self.serving = serving  # that request, which is told when its failure has been retried here; None: there is none

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.authority}{self.path}>"
