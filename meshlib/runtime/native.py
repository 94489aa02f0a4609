"""The native call: URL in, whole response out, with nothing in between."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any

from meshlib.errors import RequestError
from meshlib.flow.record import CallRecord
from meshlib.model.call import Headers, Overrides
from meshlib.model.request import NO_TIMEOUTS, Body, Request, Timeouts, authority_of

HeaderInput = Mapping[str, str] | Iterable[tuple[str, str]]


class ResponseHeaders:
    """Response headers: pairs in wire order, looked up in any case."""

    __slots__ = ("raw",)

    def __init__(self, raw: Headers) -> None:
        self.raw = raw

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of `name`."""
        for value in self.all(name):
            return value
        return default

    def all(self, name: str) -> Iterator[str]:
        """Every value of `name`, in order."""
        wanted = name.lower().encode("latin-1")
        return (value.decode("latin-1") for key, value in self.raw if key == wanted or key.lower() == wanted)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((key.decode("latin-1"), value.decode("latin-1")) for key, value in self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:
        return f"ResponseHeaders({list(self)})"


class Response:
    """A whole response.  `info` says what the call went through."""

    __slots__ = ("_raw_headers", "content", "http_version", "info", "reason", "status_code")

    def __init__(
        self, status_code: int, headers: Headers, content: bytes, info: CallRecord, *, reason: bytes, http_version: bytes
    ) -> None:
        self.status_code = status_code
        self.content = content
        self.info = info
        self.reason = reason
        self.http_version = http_version  # b"HTTP/1.1"
        self._raw_headers = headers

    @property
    def headers(self) -> ResponseHeaders:
        return ResponseHeaders(self._raw_headers)

    @property
    def text(self) -> str:
        """The body as UTF-8; what is not is replaced."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON.  Raises ValueError when it is none."""
        import json

        return json.loads(self.content)

    def __repr__(self) -> str:
        return f"<Response {self.status_code} {len(self.content)} bytes, {self.info!r}>"


# RFC 3986 section 3.2.2
_NETLOC = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(:(?P<port>[0-9]{1,5}))?")

_AUTHORITIES: dict[str, tuple[str, str, str]] = {}
_MAX_AUTHORITIES = 4096


def split_url(url: str) -> tuple[str, str, str, str]:
    """(scheme, authority with port, host header, target).  Raises RequestError."""
    slash = url.find("/", url.find("://") + 3)
    base, target = (url[:slash], url[slash:]) if slash >= 0 else (url, "/")
    found = _AUTHORITIES.get(base)
    if found is None:
        found = _split_base(base)
        if len(_AUTHORITIES) < _MAX_AUTHORITIES:
            _AUTHORITIES[base] = found
    return (*found, target)


def _split_base(base: str) -> tuple[str, str, str]:
    scheme, separator, netloc = base.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("http", "https"):
        raise RequestError(f"URL {base!r}: expected http://host[:port]/path")
    if "?" in netloc or "#" in netloc or "@" in netloc or not netloc:
        raise RequestError(f"URL {base!r}: expected a host, with a '/' before any query, and no user name")
    found = _NETLOC.fullmatch(netloc)
    port = int(found["port"] or 0) if found is not None else 0
    if found is None or port > 65535 or (found["port"] and not port):
        raise RequestError(f"URL {base!r}: {netloc!r} is not host or host:port, in ASCII")
    return scheme, authority_of(found["host"], port or None, scheme), netloc


def build_request(
    method: str,
    url: str,
    headers: HeaderInput | None,
    content: Body | str | None,
    timeout: float | Timeouts | None,
    overrides: Overrides | None,
) -> Request:
    """A Request from what people write.  Raises RequestError."""
    scheme, authority, host, target = split_url(url)
    if headers is None:
        raw: list[tuple[bytes, bytes]] = []
    else:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        try:
            raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in pairs]
        except UnicodeEncodeError as error:
            raise RequestError(f"headers: {error.object!r} cannot be sent; header values are Latin-1") from None
    return Request(
        method,
        scheme,
        authority,
        target,
        raw,
        content if type(content) is bytes else _body(content),
        host_header=host,
        timeouts=NO_TIMEOUTS if timeout is None else _timeouts(timeout),
        overrides=overrides,
    )


def _timeouts(timeout: object) -> Timeouts:
    if isinstance(timeout, Timeouts):
        return timeout
    if not isinstance(timeout, int | float) or timeout != timeout:
        raise RequestError(f"timeout must be seconds or meshlib.Timeouts, not {timeout!r}")
    return Timeouts(total=timeout)


def _body(content: object) -> Body:
    """Raises RequestError for what is no body: its end would be waited for in vain."""
    if content is None:
        return b""
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)  # of its own, so that every try sends the same
    if isinstance(content, Mapping) or not isinstance(content, Iterable | AsyncIterable):
        raise RequestError(f"content must be bytes, str or an iterable of bytes, not {type(content).__name__}")
    return content
