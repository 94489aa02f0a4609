"""Cross-origin requests: answered before policies that ask for credentials, and no way around any of them."""

from __future__ import annotations

import pytest

from meshlib.flow.inbound import InboundPlan, compile_listener
from meshlib.flow.server import Handle, server_flow
from meshlib.model.authorization import Action, Rbac, RbacFilter
from meshlib.model.cors import Cors, CorsPolicy, CorsRoute
from meshlib.model.inbound import Refusal, ServerRequest
from meshlib.model.listener import HttpFilter, InboundListener, MtlsMode
from meshlib.model.route import HeaderMatch, PathMatch, RouteMatch, StringMatch
from meshlib.runtime.serving import Inbound

HOST = (b"host", b"reviews")
ORIGIN = (b"origin", b"https://a.test")
STRANGER = (b"origin", b"https://evil.test")
ASKS = (b"access-control-request-method", b"DELETE")
ALLOWS = (b"access-control-allow-origin", b"https://a.test")

POLICY = CorsPolicy(origins=(StringMatch("exact", "https://a.test"),), methods="GET", exposed="x-seen")
API = RouteMatch(PathMatch("prefix", "/api"))
NOBODY = RbacFilter("deny all", Rbac(Action.ALLOW, ()))
"""Rules that allow nobody anything."""


def cors(policy: CorsPolicy | None = POLICY, match: RouteMatch = API) -> Cors:
    return Cors((CorsRoute(match, policy),))


def plan(*filters: HttpFilter, mode: MtlsMode = MtlsMode.PERMISSIVE) -> InboundPlan:
    return compile_listener(InboundListener("inbound", 80, mode, filters=filters), now=lambda: 0.0)


def run(plan: InboundPlan, method: str, *headers: tuple[bytes, bytes], target: bytes = b"/api/x") -> Handle | Refusal:
    flow = server_flow(ServerRequest(method, target, [HOST, *headers]), 0.0, plan)
    try:
        command = next(flow)
    except StopIteration as stop:
        refusal: Refusal = stop.value
        return refusal
    flow.close()
    assert isinstance(command, Handle)
    return command


def test_a_preflight_is_answered_before_policies_and_never_gets_to_the_application() -> None:
    answer = run(plan(cors(), NOBODY), "OPTIONS", ORIGIN, ASKS)
    assert isinstance(answer, Refusal)
    assert (answer.status, answer.body, answer.close, answer.denial) == (200, b"", False, False)
    assert answer.headers == (ALLOWS, (b"access-control-allow-methods", b"GET"), (b"access-control-expose-headers", b"x-seen"))


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", (ORIGIN,)),
        ("GET", (ORIGIN, ASKS)),
        ("POST", (ORIGIN, ASKS)),
        ("OPTIONS", ()),
        ("OPTIONS", (ORIGIN,)),
        ("OPTIONS", (ASKS,)),
        ("OPTIONS", (ORIGIN, (b"access-control-request-method", b""))),
        ("OPTIONS", ((b"origin", b""), ASKS)),
        ("OPTIONS", (STRANGER, ASKS)),
        ("OPTIONS", (ORIGIN, STRANGER, ASKS)),
        ("OPTIONS", ((b"x-http-method-override", b"OPTIONS"), ORIGIN)),
        ("GET", ((b"x-http-method-override", b"OPTIONS"), ORIGIN, ASKS)),
    ],
)
def test_nothing_else_gets_around_authorization(method: str, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    answer = run(plan(cors(), NOBODY), method, *headers)
    assert isinstance(answer, Refusal)
    assert (answer.status, answer.denial) == (403, True)
    assert not any(name.startswith(b"access-control") for name, _ in answer.headers)
    assert isinstance(run(plan(cors()), method, *headers), Handle)  # it is the policy that refuses


def test_plain_requests_are_refused_under_strict_mtls_before_anybody_answers_them() -> None:
    answer = run(plan(cors(), mode=MtlsMode.STRICT), "OPTIONS", ORIGIN, ASKS)
    assert isinstance(answer, Refusal)
    assert (answer.status, answer.reason) == (403, "mtls_required")


def test_preflights_of_strangers_are_answered_with_nothing_if_the_policy_says_so() -> None:
    policy = CorsPolicy(POLICY.origins, methods="GET", forwards_unmatched=False)
    answer = run(plan(cors(policy), NOBODY), "OPTIONS", STRANGER, ASKS)
    assert isinstance(answer, Refusal)
    assert (answer.status, answer.headers) == (200, ((b"access-control-allow-methods", b"GET"),))


def test_responses_say_who_may_read_them_whatever_the_application_says() -> None:
    handle = run(plan(cors()), "GET", ORIGIN)
    assert isinstance(handle, Handle)
    assert handle.inspection.response_set == dict([ALLOWS, (b"access-control-expose-headers", b"x-seen")])
    for headers in ((STRANGER,), ()):
        handle = run(plan(cors()), "GET", *headers)
        assert isinstance(handle, Handle)
        assert handle.inspection.response_set is None


@pytest.mark.parametrize(
    ("target", "answered"),
    [(b"/api", True), (b"/api/../private", False), (b"/private/../api", True), (b"/private", False), (b"/API", False)],
)
def test_routes_are_chosen_by_the_canonical_path(target: bytes, answered: bool) -> None:
    assert isinstance(run(plan(cors()), "OPTIONS", ORIGIN, ASKS, target=target), Refusal) is answered


def test_the_first_route_decides_even_if_it_has_no_policy() -> None:
    internal = CorsRoute(RouteMatch(PathMatch("prefix", "/"), (HeaderMatch(":method", StringMatch("exact", "GET")),)), None)
    both = plan(Cors((internal, CorsRoute(API, POLICY))))
    handle = run(both, "GET", ORIGIN)
    assert isinstance(handle, Handle)
    assert handle.inspection.response_set is None
    assert isinstance(run(both, "OPTIONS", ORIGIN, ASKS), Refusal)


def test_an_answer_to_a_browser_is_no_denial() -> None:
    inbound = Inbound()
    inbound.publish({80: plan(cors(), NOBODY)})
    answered = inbound.serve(ServerRequest("OPTIONS", b"/api", [HOST, ORIGIN, ASKS]))
    assert answered.refusal is not None
    assert inbound.refused == 0
    assert inbound.serve(ServerRequest("GET", b"/api", [HOST, ORIGIN])).refusal is not None
    assert inbound.refused == 1
