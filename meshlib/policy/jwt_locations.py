"""Where in a request tokens are, and how they are taken out.

All tokens of all locations are found: one that nobody verified must not reach an application that might take it for the one
that was.  Stricter than Envoy, which looks at the first cookie and parameter of a name only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from meshlib.model.authentication import JwtProvider
from meshlib.model.inbound import Inspection

BEARER: Final = (("authorization", "Bearer "),)
ACCESS_TOKEN: Final = ("access_token",)
"""Where tokens are looked for when a provider names no location at all (RFC 6750)."""


class Location(Protocol):
    """One place."""

    def find(self, inspection: Inspection) -> tuple[bytes, ...]:
        """The tokens there; most requests have none."""
        ...

    def remove(self, inspection: Inspection) -> None:
        """Keep the application from seeing them."""
        ...


def locations(provider: JwtProvider) -> tuple[Location, ...]:
    """In Envoy's order: headers, parameters, cookies."""
    headers, params = provider.from_headers, provider.from_params
    if not (headers or params or provider.from_cookies):
        headers, params = BEARER, ACCESS_TOKEN
    return (
        *(_Header(name.encode("latin-1"), prefix.encode()) for name, prefix in headers),
        *(_Parameter(name) for name in params),
        *(_Cookie(name.encode()) for name in provider.from_cookies),
    )


def header_values(inspection: Inspection, name: bytes) -> tuple[bytes, ...]:
    """The values of a header as filters before this one have left them."""
    if name in inspection.header_changes:
        changed = inspection.header_changes[name]
        return () if changed is None else (changed,)
    request = inspection.request
    value = request.fields.get(name)
    if value is None:
        return ()
    if len(request.fields) == len(request.headers):  # no header is repeated
        return (value,)
    return tuple(item for key, item in request.headers if key == name)


class _Header:
    __slots__ = ("_name", "_prefix", "_size")

    def __init__(self, name: bytes, prefix: bytes) -> None:
        self._name = name
        self._prefix = prefix
        self._size = len(prefix)

    def find(self, inspection: Inspection) -> tuple[bytes, ...]:
        request = inspection.request
        if not inspection.header_changes and len(request.fields) == len(request.headers):  # nearly every request
            value = request.fields.get(self._name)
            if value is None:
                return ()
            if value.startswith(self._prefix):
                return (value[self._size :].strip(),)
        return tuple(self._unwrapped(header_values(inspection, self._name)))

    def _unwrapped(self, values: tuple[bytes, ...]) -> Iterator[bytes]:
        """The prefix may be anywhere: Envoy finds ``x Bearer <token>`` too, and what it refuses there is to be refused."""
        for value in values:
            at = value.find(self._prefix)
            if at >= 0:
                yield value[at + self._size :].strip()

    def remove(self, inspection: Inspection) -> None:
        inspection.header_changes[self._name] = None


class _Parameter:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def find(self, inspection: Inspection) -> tuple[bytes, ...]:
        query = inspection.query
        if not query or (self._name not in query and "%" not in query):
            return ()
        parts = (part.partition("=") for part in query.split("&"))
        return tuple(unquote_to_bytes(value) for name, _, value in parts if self._is(name))

    def remove(self, inspection: Inspection) -> None:
        kept = "&".join(part for part in inspection.query.split("&") if not self._is(part.partition("=")[0]))
        inspection.query = kept
        path = inspection.target.partition(b"?")[0]
        inspection.target = path + b"?" + kept.encode("ascii") if kept else path

    def _is(self, name: str) -> bool:
        return name == self._name or ("%" in name and unquote_to_bytes(name) == self._name.encode())


class _Cookie:
    """Cookies stay where they are: they are sent again anyway, and hold more than tokens."""

    __slots__ = ("_name",)

    def __init__(self, name: bytes) -> None:
        self._name = name

    def find(self, inspection: Inspection) -> tuple[bytes, ...]:
        found: list[bytes] = []
        for header in header_values(inspection, b"cookie"):
            for pair in header.split(b";"):
                name, equals, value = pair.strip().partition(b"=")
                if equals and name == self._name:
                    found.append(_unquoted(value))
        return tuple(found)

    def remove(self, inspection: Inspection) -> None:
        return None


def _unquoted(value: bytes) -> bytes:
    return value[1:-1] if len(value) >= 2 and value[:1] == value[-1:] == b'"' else value
