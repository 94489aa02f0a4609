"""One request to make, in the form that every client library can be turned into."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from meshlib.model.call import Headers, Overrides

Body = bytes | Iterable[bytes] | AsyncIterable[bytes]
"""Bytes can be sent again; anything that is iterated is sent once."""


class Request:
    """``authority`` is lower case with its port, whatever the URL said: it names the destination.

    ``host_header`` is what goes on the wire, as the caller wrote it (no port when it is the scheme's default).
    """

    __slots__ = (
        "authority",
        "body",
        "headers",
        "host_header",
        "length",
        "method",
        "overrides",
        "scheme",
        "target",
        "timeouts",
    )

    def __init__(
        self,
        method: str,
        scheme: str,
        authority: str,
        target: str,
        headers: Headers,
        body: Body = b"",
        *,
        host_header: str = "",
        length: int | None = None,
        timeouts: Timeouts | None = None,
        overrides: Overrides | None = None,
    ) -> None:
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.target = target  # origin form, percent-encoded
        self.headers = headers
        self.body = body
        self.host_header = host_header or authority
        self.length = len(body) if isinstance(body, bytes) else length  # None: only the end of the body will tell
        self.timeouts = timeouts or NO_TIMEOUTS
        self.overrides = overrides

    @property
    def replayable(self) -> bool:
        return isinstance(self.body, bytes)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.scheme}://{self.authority}{self.target}>"


class Timeouts:
    """The caller's own limits in seconds, as httpx counts them; None: no limit.

    ``read`` and ``write`` are between two pieces of data, ``pool`` is the wait for a free connection, ``total`` covers the call
    with its retries and its body.
    """

    __slots__ = ("connect", "pool", "read", "total", "write")

    def __init__(
        self,
        connect: float | None = None,
        read: float | None = None,
        write: float | None = None,
        pool: float | None = None,
        total: float | None = None,
    ) -> None:
        self.connect = connect
        self.read = read
        self.write = write
        self.pool = pool
        self.total = total

    def __repr__(self) -> str:
        return f"Timeouts(connect={self.connect}, read={self.read}, write={self.write}, pool={self.pool}, total={self.total})"


NO_TIMEOUTS = Timeouts()

DEFAULT_PORTS = {"http": 80, "https": 443}


def authority_of(host: str, port: int | None, scheme: str) -> str:
    """The canonical name of a destination: lower case, one trailing dot cut, always with a port; IPv6 in brackets."""
    name = host.lower()
    name = name.removesuffix(".")
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    return f"{name}:{port or DEFAULT_PORTS.get(scheme, 0)}"
