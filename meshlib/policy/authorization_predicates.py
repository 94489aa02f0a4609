"""What policies can ask of a request, as predicates: headers, host, addresses.

A doubt must never work for a request.  So a matcher is read in one of two ways, by where it stands: one that grants (in ALLOW,
and below a negation in the other actions) holds only if it certainly does, one that restricts (in DENY, LOG and CUSTOM, and
below a negation in ALLOW) unless it certainly does not.  In doubt are the identity of a peer that proved none (plaintext under
PERMISSIVE; Istio bulletin 2021-004), an address that the server does not tell, a value that a regular expression cannot see
into, and how a path or host is read (`readings`).

Of repeated headers, what ALLOW asks must hold for each value, and what it forbids for none; the other actions are satisfied by
any one value, as Envoy is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from meshlib.model.authorization import Action, Address, IpBlock
from meshlib.model.inbound import Inspection
from meshlib.model.route import HeaderMatch, StringMatch
from meshlib.policy.authorization_text import BYTES, TEXT, compile_texts
from meshlib.policy.readings import host_rule

Test = Callable[[Inspection], bool]


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a matcher stands.  `allow`: in a policy that lets in; `restricts`: if it holds, that works against the request."""

    allow: bool
    restricts: bool

    @classmethod
    def of(cls, action: Action) -> Reading:
        allow = action is Action.ALLOW
        return cls(allow, restricts=not allow)

    @property
    def negated(self) -> Reading:
        return Reading(self.allow, restricts=not self.restricts)

    @property
    def every(self) -> bool:
        """Must a header's test hold for all of its values?"""
        return self.allow and not self.restricts


# --- headers

_SINGLE = frozenset(
    {
        # Their commas are their own (RFC 9110): "Mozilla/5.0 (KHTML, like Gecko)", "Sun, 06 Nov 1994 08:49:37 GMT".
        b"user-agent", b"date", b"if-modified-since", b"if-unmodified-since", b"if-range", b"last-modified", b"expires",
        b"cookie", b"referer", b"authorization", b"proxy-authorization", b"location",
    }
)  # fmt: skip


def header_values(inspection: Inspection, name: bytes) -> Sequence[bytes]:
    """All values of a header as the application will get them: filters before this one may have changed it."""
    changes = inspection.header_changes
    if changes and name in changes:
        changed = changes[name]
        return () if changed is None else (changed,)
    request = inspection.request
    value = request.fields.get(name)
    if value is None:
        return ()
    if len(request.fields) == len(request.headers):
        values: Sequence[bytes] = (value,)
    else:
        values = [found for key, found in request.headers if key == name]
    if request.joined and b"," in value and name not in _SINGLE:
        # The server made one line of several: their parts are looked at beside the whole.
        return [*values, *(part.strip() for part in value.split(b","))]
    return values


def compile_headers(name: str, matches: Sequence[StringMatch], reading: Reading) -> Test:
    """Any of `matches` on a header.  Names have no case, neither in policies nor in requests."""
    key = name.lower()
    if key == ":authority" or key == "host":
        return _compile_host(matches, reading)
    if key == ":method":
        test = compile_texts(matches, TEXT, restricts=reading.restricts)
        return lambda inspection: test(inspection.request.method)
    of_value = compile_texts(matches, BYTES, restricts=reading.restricts)
    if key == ":path":
        return _compile_target(of_value, reading)
    wanted, every = key.encode("ascii"), reading.every

    def matched(inspection: Inspection) -> bool:
        values = header_values(inspection, wanted)
        if len(values) == 1:
            return of_value(values[0])
        if not values:
            return False
        return all(map(of_value, values)) if every else any(map(of_value, values))

    return matched


def _compile_host(matches: Iterable[StringMatch], reading: Reading) -> Test:
    """Hosts have no case and no trailing dot here; a policy for ``a.test`` restricts ``a.test:8080`` too (H01 to H03)."""
    canonical = [
        StringMatch(match.kind, f"(?i:{match.value})")
        if match.kind == "regex"
        else StringMatch(match.kind, match.value.lower().removesuffix(".") if match.kind == "exact" else match.value.lower())
        for match in matches
    ]
    return host_rule(compile_texts(canonical, TEXT, restricts=reading.restricts), restricts=reading.restricts)


def _compile_target(test: Callable[[bytes], bool], reading: Reading) -> Test:
    """Path and query, in each way that the path can be read."""

    def of_path(inspection: Inspection, path: str) -> bool:
        query = inspection.query
        return test((f"{path}?{query}" if query else path).encode("latin-1"))

    def matched(inspection: Inspection) -> bool:
        readings = inspection.readings
        if readings is None:
            return test(inspection.target)
        found = [test(inspection.target), *(of_path(inspection, path) for path in readings.paths)]
        return any(found) or of_path(inspection, readings.decoded) if reading.restricts else all(found)

    return matched


_INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")


def compile_other_header(match: HeaderMatch, reading: Reading) -> Test:
    """Presence, ranges, inversion and missing headers that count as empty: what Istio never writes but `presentMatch`."""
    key = match.name.lower()
    if key.startswith(":") or key == "host":
        if match.match is not None:
            plain = compile_headers(key, (match.match,), reading.negated if match.invert else reading)
            return (lambda inspection: not plain(inspection)) if match.invert else plain
        # Presence and ranges: each of them is there, once.
        values: Callable[[Inspection], Sequence[bytes]] = _pseudo(key)
    else:
        wanted = key.encode("ascii")

        def values(inspection: Inspection) -> Sequence[bytes]:
            return header_values(inspection, wanted)

    if match.present is not None or (match.match is None and match.range is None):
        there, always = (match.present is not False) is not match.invert, match.treat_missing_as_empty
        return lambda inspection: (always or bool(values(inspection))) is there
    return _on_values(match, values, reading)


def _pseudo(name: str) -> Callable[[Inspection], Sequence[bytes]]:
    if name == ":method":
        return lambda inspection: (inspection.request.method.encode("ascii"),)
    if name == ":path":
        return lambda inspection: (inspection.target,)
    return lambda inspection: (inspection.host.encode("ascii"),)


def _on_values(match: HeaderMatch, values: Callable[[Inspection], Sequence[bytes]], reading: Reading) -> Test:
    of_value = _range_test(*match.range) if match.range is not None else None
    if match.match is not None:
        of_value = compile_texts((match.match,), BYTES, restricts=reading.restricts is not match.invert)
    assert of_value is not None
    invert, missing = match.invert, (b"",) if match.treat_missing_as_empty else ()
    # An inverted match holds if no value matches; read generously (below a negation in ALLOW), if one does not.
    every = reading.every or (invert and not reading.allow)

    def matched(inspection: Inspection) -> bool:
        found = values(inspection) or missing
        if not found:
            return False
        results = [of_value(value) is not invert for value in found]
        return all(results) if every else any(results)

    return matched


def _range_test(start: int, end: int) -> Callable[[bytes], bool]:
    return lambda value: _INTEGER.fullmatch(value) is not None and start <= int(value) < end


# --- addresses

_Parsed = tuple[int, int] | None  # version and number
_MAX_ADDRESSES = 4096
_MAX_FORWARDED = 16


class Addresses:
    """Texts of addresses, parsed; the last few thousand are remembered."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, _Parsed] = {}

    def parse(self, text: str) -> _Parsed:
        """None for what is no address: a path of a socket, nothing at all."""
        try:
            return self._known[text]
        except KeyError:
            pass
        if len(self._known) >= _MAX_ADDRESSES:
            self._known.clear()
        found = self._known[text] = _parse_address(text)
        return found


def _parse_address(text: str) -> _Parsed:
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])  # the zone of a link-local one is local
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # of a socket that serves both: the peer is an IPv4 one
    return address.version, int(address)


def compile_blocks(which: Address, blocks: Sequence[IpBlock], reading: Reading, addresses: Addresses) -> Test:
    """Any of `blocks` (all about the same address) holds the address."""
    networks = [ip_network(block.cidr) for block in blocks]
    masks = [(net.version, int(net.netmask), int(net.network_address)) for net in networks]
    parse, restricts = addresses.parse, reading.restricts

    def inside(text: str) -> bool:
        address = parse(text)
        if address is None:
            return restricts
        version, number = address
        return any(version == of and number & mask == network for of, mask, network in masks)

    if which is Address.DESTINATION:
        return lambda inspection: inside(inspection.request.connection.local_address)
    if which is Address.DIRECT_REMOTE:
        return lambda inspection: inside(inspection.request.connection.remote_address)

    def remote(inspection: Inspection) -> bool:
        if inspection.remote_address:
            return inside(inspection.remote_address)
        if inside(inspection.request.connection.remote_address):
            return True
        # No hop is trusted to say whom it speaks for: what it says can shut a request out, never let one in.
        return restricts and any(inside(text) for text in _forwarded(inspection) if parse(text) is not None)

    return remote


def _forwarded(inspection: Inspection) -> list[str]:
    values = header_values(inspection, b"x-forwarded-for")
    return [part.strip() for value in values for part in value.decode("latin-1").split(",")[-_MAX_FORWARDED:]]
