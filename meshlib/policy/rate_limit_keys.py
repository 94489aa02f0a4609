"""What of a request decides the bucket that it is counted in.

Who sends a request chooses its headers and its path.  So that no other spelling of the same request has a bucket of its own,
values are compared without regard to case, paths in the reading that decodes the most, and a header that is there more than
once, or holds a list, counts as one value for all who do that: which of the values the application will use, nobody knows.
A value that is missing is a value like others.  Long ones are counted by their digest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address, ip_network

from meshlib.model.call import Call
from meshlib.model.identity import SpiffeId
from meshlib.model.inbound import Inspection
from meshlib.model.rate_limit import Attribute, Descriptor
from meshlib.policy.authorization_predicates import header_values
from meshlib.policy.matching import values_of

MISSING = ""
SEVERAL = "(several)"
"""Of a header with more than one value.  No value is like these two: they all begin with an equals sign or a number sign."""

_LONGEST = 128
_COMMAS = frozenset({b"user-agent", b"authorization", b"cookie", b"date", b"referer"})
"""Headers whose commas are their own (RFC 9110): one value all the same."""

Key = tuple[str, ...]
KeyOf = Callable[["Limited"], Key]


class Limited:
    """A request as limits see it: one that this process serves, or one that it is about to make.

    `paths`: further readings of its path; `path`: to be counted by, if not empty.
    """

    __slots__ = ("_call", "route", "service")

    paths: tuple[str, ...] = ()
    path = ""

    def __init__(self, call: Call | None, service: str = "", route: str = "") -> None:
        self._call = call
        self.service = service
        self.route = route

    @staticmethod
    def called(call: Call, route: str) -> Limited:
        """A call that is about to be made."""
        return Limited(call, call.authority, route)

    @staticmethod
    def served(inspection: Inspection) -> Limited:
        """A request that has come this far in the server's flow."""
        made = _Served(inspection)
        readings = inspection.readings
        if readings is not None:
            made.paths = (*readings.paths, readings.decoded)
            made.path = readings.decoded
        return made

    @property
    def caller(self) -> SpiffeId | None:
        """Of a served request: what the connection's other end has proved."""
        return None

    @property
    def claims(self) -> Mapping[str, object] | None:
        """Of a served request: those of its token, verified."""
        return None

    @property
    def remote_address(self) -> str:
        """Of a served request: the client's, as far as its proxies are trusted."""
        return ""

    def headers(self, name: bytes) -> Sequence[bytes]:
        """All values, as the application or the next hop gets them."""
        return values_of(self.as_call(), name)

    def as_call(self) -> Call:
        """What matches are evaluated on."""
        assert self._call is not None
        return self._call


class _Served(Limited):
    __slots__ = ("inspection", "path", "paths")

    def __init__(self, inspection: Inspection) -> None:
        super().__init__(None)
        self.inspection = inspection
        self.paths = ()
        self.path = ""

    def headers(self, name: bytes) -> Sequence[bytes]:
        return header_values(self.inspection, name)

    @property
    def caller(self) -> SpiffeId | None:
        peer = self.inspection.request.connection.peer
        return peer.id if peer is not None else None

    @property
    def claims(self) -> Mapping[str, object] | None:
        return self.inspection.claims if self.inspection.metadata else None

    @property
    def remote_address(self) -> str:
        return self.inspection.remote_address or self.inspection.request.connection.remote_address

    def as_call(self) -> Call:
        if self._call is None:  # most limits look at nothing of it
            found, request = self.inspection, self.inspection.request
            self._call = Call(request.method, found.authority, found.target.decode("ascii"), request.headers, host=found.host)
            self._call.filed = request.headers, request.fields
        return self._call


def compile_key(by: Sequence[Descriptor]) -> KeyOf:
    """The parts in their order; without any, all requests have the same key."""
    parts = tuple(_part(descriptor) for descriptor in by)
    if not parts:
        return lambda request: ()
    if len(parts) == 1:
        part = parts[0]
        return lambda request: (part(request),)
    return lambda request: tuple([part(request) for part in parts])


def _part(descriptor: Descriptor) -> Callable[[Limited], str]:
    if descriptor.kind == "header":
        name = descriptor.value[0].encode("ascii")
        return lambda request: _header(request.headers(name), name)
    if descriptor.kind == "claim":
        path = descriptor.value
        return lambda request: _claim(request.claims, path)
    if descriptor.kind == "constant":
        text = descriptor.value[0]
        return lambda request: text
    assert descriptor.attribute is not None
    return _ATTRIBUTES[descriptor.attribute]


def _header(values: Sequence[bytes], name: bytes) -> str:
    if not values:
        return MISSING
    if len(values) > 1 or (b"," in values[0] and name not in _COMMAS):
        return SEVERAL
    value = "=" + values[0].strip().decode("latin-1").lower()
    return value if len(value) <= _LONGEST else _short(value)


def _claim(claims: Mapping[str, object] | None, path: Sequence[str]) -> str:
    """Verified, so nobody chooses it for himself: compared as it is."""
    value: object = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        return MISSING
    return _short(f"={value}" if isinstance(value, str) else json.dumps(value, sort_keys=True))


def _path(request: Limited) -> str:
    path = request.path or request.as_call().path.partition("?")[0]
    return _short(path.lower())


def _caller(request: Limited) -> str:
    caller = request.caller
    return str(caller) if caller is not None else MISSING


def _namespace(request: Limited) -> str:
    caller = request.caller
    return f"{caller.trust_domain}/{caller.namespace}" if caller is not None else MISSING


def _address(request: Limited) -> str:
    """One machine may have all addresses of an IPv6 network (/64)."""
    try:
        address = ip_address(request.remote_address)
    except ValueError:
        return MISSING
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped is not None else str(ip_network((int(address), 64), strict=False))
    return str(address)


def _short(value: str) -> str:
    if len(value) <= _LONGEST:
        return value
    return f"#{blake2b(value.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


_ATTRIBUTES: Mapping[Attribute, Callable[[Limited], str]] = {
    Attribute.SERVICE: lambda request: request.service,
    Attribute.ROUTE: lambda request: request.route,
    Attribute.METHOD: lambda request: _short(request.as_call().method),
    Attribute.PATH: _path,
    Attribute.CALLER: _caller,
    Attribute.CALLER_NAMESPACE: _namespace,
    Attribute.REMOTE_ADDRESS: _address,
}
