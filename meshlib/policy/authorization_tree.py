"""A policy's tree → a predicate over requests, in two stages: what depends on the peer alone is settled once for each peer.

`compile_matcher` makes nodes when a policy arrives; `bind` makes a predicate of a node for one peer, in which that peer's
identity has become a constant.  Most policies are about other peers, and cost nothing after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from meshlib.model.authorization import (
    AllOf,
    Always,
    AnyOf,
    Authenticated,
    DestinationPort,
    Header,
    IpBlock,
    Matcher,
    MetadataMatch,
    Not,
    RequestedServerName,
    UriTemplate,
    UrlPath,
)
from meshlib.model.route import StringMatch
from meshlib.policy.authorization_keys import PATH, Keys, exact_keys, header_subject, path_keys, template_keys
from meshlib.policy.authorization_metadata import compile_metadata, metadata_keys
from meshlib.policy.authorization_predicates import (
    Addresses,
    Reading,
    Test,
    compile_blocks,
    compile_headers,
    compile_other_header,
)
from meshlib.policy.authorization_text import TEXT, compile_texts
from meshlib.policy.readings import decoded, path_rule

Peer: TypeAlias = "str | bool"
"""Who is at the other end: a verified SPIFFE ID, or else whether the connection is encrypted."""


@dataclass(frozen=True, slots=True)
class OfPeer:
    """Depends on the peer alone."""

    test: Callable[[Peer], bool]


@dataclass(frozen=True, slots=True)
class OfRequest:
    """`keys` None: any request may match.  `cost` orders tests: cheap ones first."""

    test: Test
    cost: int = 1
    keys: Keys | None = None


@dataclass(frozen=True, slots=True)
class Every:
    of: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Some:
    of: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    of: Node


Node: TypeAlias = "bool | OfPeer | OfRequest | Every | Some | Negation"

_PATH, _HEADER, _METADATA = 0, 1, 2


class Compiler:
    """`port`: the one that the policies are enforced on, whatever the server tells of its sockets."""

    def __init__(self, port: int, addresses: Addresses) -> None:
        self._port = port
        self._addresses = addresses

    def compile(self, matcher: Matcher, reading: Reading) -> Node:
        """Raises ValueError for what is no RE2 expression."""
        match matcher:
            case Always():
                return True
            case Not():
                return _negation(self.compile(matcher.of, reading.negated))
            case AllOf():
                return _every(self.compile(item, reading) for item in matcher.of)
            case AnyOf():
                return _some(self._alternatives(matcher.of, reading))
            case UrlPath():
                return _path([matcher.match], reading)
            case UriTemplate():
                return _uri_template(matcher.template, reading)
            case Header():
                if _is_plain(matcher):
                    return self._headers(matcher.match.name, [matcher], reading)
                return OfRequest(compile_other_header(matcher.match, reading), _HEADER)
            case Authenticated():
                return _identity([matcher], reading)
            case DestinationPort():
                return self._destination_port(matcher.port)
            case IpBlock():
                return OfRequest(compile_blocks(matcher.which, [matcher], reading, self._addresses), _HEADER)
            case RequestedServerName():
                return _server_name([matcher.match], reading)
            case MetadataMatch():
                return OfRequest(compile_metadata(matcher, restricts=reading.restricts), _METADATA, metadata_keys(matcher))
            case _:
                assert_never(matcher)

    def both(self, permission: Matcher, principal: Matcher, reading: Reading) -> Node:
        """A policy: what may be done, and by whom."""
        return _every([self.compile(permission, reading), self.compile(principal, reading)])

    def _alternatives(self, of: Sequence[Matcher], reading: Reading) -> Iterable[Node]:
        """The matchers on the same thing become one test: a set of names instead of a row of comparisons."""
        groups: dict[object, list[Matcher]] = {}
        for item in of:
            groups.setdefault(_subject(item), []).append(item)
        for items in groups.values():
            first = items[0]
            if len(items) == 1:
                yield self.compile(first, reading)
            elif isinstance(first, UrlPath):
                yield _path([item.match for item in items if isinstance(item, UrlPath)], reading)
            elif isinstance(first, Header):
                yield self._headers(first.match.name, [item for item in items if isinstance(item, Header)], reading)
            elif isinstance(first, Authenticated):
                yield _identity([item for item in items if isinstance(item, Authenticated)], reading)
            elif isinstance(first, IpBlock):
                blocks = [item for item in items if isinstance(item, IpBlock)]
                yield OfRequest(compile_blocks(first.which, blocks, reading, self._addresses), _HEADER)
            else:
                yield from (self.compile(item, reading) for item in items)

    def _headers(self, name: str, of: Iterable[Header], reading: Reading) -> Node:
        matches = [item.match.match for item in of if item.match.match is not None]
        test = compile_headers(name, matches, reading)
        if name.startswith(":") or name == "host":
            return OfRequest(test, _PATH)
        return OfRequest(test, _HEADER, exact_keys(header_subject(name), matches))

    def _destination_port(self, port: int) -> Node:
        if self._port:
            return port == self._port
        return OfRequest(lambda inspection: inspection.request.connection.local_port == port, _PATH)


def _subject(matcher: Matcher) -> object:
    match matcher:
        case UrlPath():
            return UrlPath
        case Header() if _is_plain(matcher):
            return Header, matcher.match.name.lower()
        case Authenticated():
            return Authenticated
        case IpBlock():
            return IpBlock, matcher.which
        case _:
            return id(matcher)


def _is_plain(header: Header) -> bool:
    match = header.match
    return match.match is not None and not match.invert and not match.treat_missing_as_empty


# --- leaves


def _path(matches: Sequence[StringMatch], reading: Reading) -> Node:
    decoded_matches = [item if item.kind == "regex" else replace(item, value=decoded(item.value)) for item in matches]
    if reading.restricts and decoded_matches != matches:
        matches = [*matches, *decoded_matches]  # "/a%3Ab" is "/a:b" to whoever decodes it
    test = compile_texts(matches, TEXT, restricts=reading.restricts)
    on_decoded = compile_texts(decoded_matches, TEXT, restricts=reading.restricts)
    rule = path_rule(test, restricts=reading.restricts, decoded_test=on_decoded)
    return OfRequest(rule, _PATH, path_keys(matches))


def _identity(of: Sequence[Authenticated], reading: Reading) -> Node:
    matches = [item.match for item in of if item.match is not None]
    anybody = len(matches) < len(of)
    test = compile_texts(matches, TEXT, restricts=reading.restricts)
    restricts = reading.restricts

    def matched(peer: Peer) -> bool:
        if isinstance(peer, str):
            return anybody or test(peer)
        return restricts

    return OfPeer(matched)


def _server_name(matches: Sequence[StringMatch], reading: Reading) -> Node:
    test = compile_texts(matches, TEXT, restricts=reading.restricts)
    return OfRequest(lambda inspection: test(inspection.request.connection.server_name), _HEADER)


def _uri_template(template: str, reading: Reading) -> Node:
    rule = path_rule(_template(template), restricts=reading.restricts, decoded_test=_template(decoded(template)))
    return OfRequest(rule, _PATH, template_keys(template))


def _template(template: str) -> Callable[[str], bool]:
    """``*`` is one segment of at least one character, of any kind: also of ``*`` (CVE-2025-46821)."""
    head, rest, tail = _split_template(template)
    count = len(head)

    def fits(segments: Sequence[str]) -> bool:
        return all(wanted == found or (wanted == "*" and found != "") for wanted, found in zip(head, segments, strict=True))

    def matched(path: str) -> bool:
        if not rest:
            segments = path.split("/")
            return len(segments) == count and fits(segments)
        segments = path.split("/", count)
        return len(segments) == count + 1 and segments[count].endswith(tail) and fits(segments[:count])

    return matched


def _split_template(template: str) -> tuple[list[str], bool, str]:
    """The segments before ``**``, whether there is one, and the text after it."""
    segments = template.split("/")
    if "**" not in segments:
        return segments, False, ""
    at = segments.index("**")
    return segments[:at], True, "".join(f"/{segment}" for segment in segments[at + 1 :])


# --- structure


def _every(nodes: Iterable[Node]) -> Node:
    found = [node for node in nodes if node is not True]
    if any(node is False for node in found):
        return False
    return True if not found else found[0] if len(found) == 1 else Every(tuple(sorted(found, key=_cost)))


def _some(nodes: Iterable[Node]) -> Node:
    found = [node for node in nodes if node is not False]
    if any(node is True for node in found):
        return True
    return False if not found else found[0] if len(found) == 1 else Some(tuple(sorted(found, key=_cost)))


def _negation(node: Node) -> Node:
    if isinstance(node, bool):
        return not node
    return node.of if isinstance(node, Negation) else Negation(node)


def _cost(node: Node) -> int:
    match node:
        case OfRequest():
            return node.cost
        case Every() | Some():
            return max(map(_cost, node.of))
        case Negation():
            return _cost(node.of)
        case _:
            return _PATH


def keys_of(node: Node) -> Keys | None:
    """Keys of which a request must have one for `node` to match; None: it may match any request."""
    match node:
        case False:
            return frozenset()
        case OfRequest():
            return node.keys
        case Every():
            return min((keys for keys in map(keys_of, node.of) if keys is not None), key=_coarseness, default=None)
        case Some():
            found: Keys = frozenset()
            for keys in map(keys_of, node.of):
                if keys is None:
                    return None
                found |= keys
            return found
        case _:
            return None


def _coarseness(keys: Keys) -> tuple[bool, int]:
    """Paths tell policies apart better than what else they look at."""
    return any(key.subject != PATH for key in keys), len(keys)


def bind(node: Node, peer: Peer) -> bool | Test:
    """`node` for this peer: settled, or what is left to be asked of its requests."""
    match node:
        case bool():
            return node
        case OfPeer():
            return node.test(peer)
        case OfRequest():
            return node.test
        case Negation():
            inner = bind(node.of, peer)
            return not inner if isinstance(inner, bool) else _not(inner)
        case Every():
            return _bind_all(node.of, peer, settled=False)
        case Some():
            return _bind_all(node.of, peer, settled=True)
        case _:
            assert_never(node)


def _bind_all(nodes: Sequence[Node], peer: Peer, *, settled: bool) -> bool | Test:
    """`settled`: what one of the nodes must be for that to decide."""
    tests: list[Test] = []
    for node in nodes:
        bound = bind(node, peer)
        if not isinstance(bound, bool):
            tests.append(bound)
        elif bound is settled:
            return settled
    if not tests:
        return not settled
    return tests[0] if len(tests) == 1 else _or(tests) if settled else _and(tests)


def _not(test: Test) -> Test:
    return lambda inspection: not test(inspection)


def _and(tests: list[Test]) -> Test:
    first, second, *more = tests
    if not more:
        return lambda inspection: first(inspection) and second(inspection)
    if len(more) == 1:
        third = more[0]
        return lambda inspection: first(inspection) and second(inspection) and third(inspection)
    return lambda inspection: all(test(inspection) for test in tests)


def _or(tests: list[Test]) -> Test:
    first, second, *more = tests
    if not more:
        return lambda inspection: first(inspection) or second(inspection)
    return lambda inspection: any(test(inspection) for test in tests)
