"""How urgent a request is: what the operator's rules say, and what the request's ``priority`` header (RFC 9218) may add to it.

Whoever sends a request writes its headers, so the header alone must not let anybody push others aside.  It can always make a
request less urgent, which costs only its sender; more urgent than the rules have it, only for callers that the operator trusts
with that, by the identity that their certificate proves.  Likewise a rule about paths makes a request more urgent only if all
readings of its path match, and less urgent if any does: no other spelling gains anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from meshlib.model.call import Call
from meshlib.model.identity import SpiffeId
from meshlib.model.inbound import Inspection
from meshlib.model.resilience import DEFAULT_URGENCY, LEAST_URGENT, Callers, LoadShedding, PriorityMatch, PriorityRule
from meshlib.model.route import RouteMatch, StringMatch
from meshlib.policy.authorization_predicates import header_values
from meshlib.policy.matching import all_of, compile_string
from meshlib.policy.routing import compile_conditions, compile_path

PRIORITY = b"priority"

_URGENCY = re.compile(rb"[ \t]*u[ \t]*=[ \t]*([0-7])[ \t]*(?:;.*)?\Z", re.DOTALL)

Test = Callable[[Inspection], bool]


def claimed_urgency(values: Sequence[bytes]) -> int | None:
    """``u`` of the ``priority`` header: 0 to 7; None: nothing, or nothing that can be read.  Of several the last counts, as in
    every dictionary of structured fields (RFC 8941, section 3.2).
    """
    claimed: int | None = None
    for value in values:
        for member in value.split(b","):
            found = _URGENCY.match(member)
            if found is not None:
                claimed = int(found[1])
    return claimed


def compile_urgency(policy: LoadShedding) -> Callable[[Inspection], int]:
    """Raises ValueError for a regular expression that is none."""
    rules = [(_compile_rule(rule), rule.urgency) for rule in policy.priorities]
    trusted = _compile_callers(policy.trusted) if policy.trusted else None

    def urgency(inspection: Inspection) -> int:
        ruled = next((urgency for test, urgency in rules if test is None or test(inspection)), DEFAULT_URGENCY)
        values = header_values(inspection, PRIORITY)
        claimed = claimed_urgency(values) if values else None
        if claimed is None or claimed == ruled:
            return ruled
        if claimed > ruled or (trusted is not None and trusted(inspection)):
            return min(claimed, LEAST_URGENT)
        return ruled

    return urgency


def _compile_rule(rule: PriorityRule) -> Test | None:
    """None: it is for all requests."""
    if not rule.matches:
        return None
    tests = [_compile_match(match, raises=rule.urgency < DEFAULT_URGENCY) for match in rule.matches]
    return tests[0] if len(tests) == 1 else lambda inspection: any(test(inspection) for test in tests)


def _compile_match(match: PriorityMatch, *, raises: bool) -> Test:
    request = _compile_request(match.request, raises=raises) if match.request is not None else None
    callers = _compile_callers(match.callers, every=True) if match.callers else None
    if request is None:
        return callers or (lambda inspection: True)
    if callers is None:
        return request
    return lambda inspection: callers(inspection) and request(inspection)


def _compile_request(match: RouteMatch, *, raises: bool) -> Test:
    path_test, rest = compile_path(match.path), all_of(compile_conditions(match))
    over = all if raises else any

    def test(inspection: Inspection) -> bool:
        if path_test is not None and not over(map(path_test, _paths(inspection))):
            return False
        return rest is None or rest(_call(inspection))

    return test


def _paths(inspection: Inspection) -> tuple[str, ...]:
    readings = inspection.readings
    return (inspection.path,) if readings is None else (inspection.path, *readings.paths, readings.decoded)


def _call(inspection: Inspection) -> Call:
    """The request as matchers look at it."""
    request = inspection.request
    path = inspection.target.decode("latin-1")
    return Call(request.method, inspection.authority, path, request.headers, host=inspection.host)


def _compile_callers(callers: Callers, *, every: bool = False) -> Test:
    """`every`: of principals and namespaces, each that is given must match; else one of all."""
    parts = [
        _any_of(matches, of) for matches, of in ((callers.principals, _principal), (callers.namespaces, _namespace)) if matches
    ]
    over = all if every else any
    return lambda inspection: (peer := inspection.request.connection.peer) is not None and over(part(peer.id) for part in parts)


def _any_of(matches: Sequence[StringMatch], of: Callable[[SpiffeId], str]) -> Callable[[SpiffeId], bool]:
    tests = [compile_string(match) for match in matches]

    def test(caller: SpiffeId) -> bool:
        value = of(caller).encode()
        return any(matches(value) for matches in tests)

    return test


def _principal(caller: SpiffeId) -> str:
    return caller.principal


def _namespace(caller: SpiffeId) -> str:
    return caller.namespace
