"""A listener's filters in the server's flow: in their order, on the canonical view, with external authorizers between them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from meshlib.flow.admission import Wait
from meshlib.flow.inbound import compile_listener
from meshlib.flow.server import Check, Handle, server_flow
from meshlib.model.authorization import Action, ExternalAuthorization, MetadataMatch, Not, Rbac, RbacFilter, ValueMatch
from meshlib.model.inbound import Connection, Refusal, ServerRequest
from meshlib.model.listener import HttpFilter, InboundListener, MtlsMode, PathNormalization
from tests.support.rbac import ALICE, PORT, allow, deny, from_peer, header, host, path, policy, principal, text

PREFIX = "istio_ext_authz_"
ASKED = MetadataMatch(
    "envoy.filters.http.rbac",
    (f"{PREFIX}shadow_effective_policy_id",),
    ValueMatch(string=text("istio-ext-authz-default", "prefix")),
)
AUTHORIZER = ExternalAuthorization("ext", "outbound|9000||authz", "authz:9000", condition=ASKED)
CUSTOM: tuple[HttpFilter, ...] = (
    RbacFilter("custom", None, Rbac(Action.DENY, (policy(path("/custom"), name="istio-ext-authz-default-ns[a]"),)), PREFIX),
    AUTHORIZER,
)


def listener(*filters: HttpFilter, mtls: MtlsMode = MtlsMode.PERMISSIVE, mode: str = "BASE") -> InboundListener:
    return InboundListener("in", PORT, mtls, PathNormalization[mode], filters)


def run(
    found: InboundListener,
    target: str,
    *headers: tuple[bytes, bytes],
    connection: Connection | None = None,
    answers: Sequence[Refusal | None] = (),
    authority: str = "a.test",
) -> Handle | Refusal | Check | Wait:
    """What the flow comes to, after `answers` to what it asks on the way."""
    request = ServerRequest(
        "GET", target.encode(), [(b"host", authority.encode()), *headers], connection=connection or Connection()
    )
    flow = server_flow(request, 1.0, compile_listener(found, now=lambda: 0.0))
    try:
        command = next(flow)
        for answer in answers:
            command = flow.send(answer)
    except StopIteration as stop:
        refusal: Refusal = stop.value
        return refusal
    flow.close()
    return command


def status(found: InboundListener, target: str, *headers: tuple[bytes, bytes], authority: str = "a.test") -> int:
    result = run(found, target, *headers, authority=authority)
    return result.status if isinstance(result, Refusal) else 200


@pytest.mark.parametrize("target", ["/public/../admin", "/public/%2e%2e/admin", "/public/./../admin/", "/x/../admin"])
def test_P01_dot_segments_do_not_lead_around_a_policy(target: str) -> None:
    positive = listener(allow(path("/public/", "prefix")))
    assert status(positive, target) == 403
    assert status(positive, "/public/a") == 200
    negative = listener(deny(path("/admin", "prefix")))
    assert status(negative, target) == 403
    assert status(negative, "/public") == 200


@pytest.mark.parametrize("mode", ["BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"])
@pytest.mark.parametrize("target", ["//admin", "/a/..//admin", "///admin"])
def test_P04_nor_do_slashes(target: str, mode: str) -> None:
    denied = listener(deny(path("/admin")), mode=mode)
    assert status(denied, target) in (400, 403)
    assert status(denied, "/public") == 200
    assert status(denied, "/admin") == 403


@pytest.mark.parametrize("authority", ["secret.com", "SECRET.com", "secret.com:8080", "secret.com.", "Secret.Com.:80"])
def test_H01_H02_H03_nor_do_ways_to_write_a_host(authority: str) -> None:
    denied = listener(deny(host("secret.com")))
    assert status(denied, "/", authority=authority) == 403
    assert status(denied, "/", authority="open.com") == 200
    assert status(listener(allow(Not(host("secret.com")))), "/", authority=authority) == 403


def test_I18_every_filter_that_is_configured_is_applied() -> None:
    """A broad ALLOW does not make a stricter one superfluous, whichever comes first."""
    broad, strict = allow(), allow(path("/public"))
    for filters in ((broad, strict), (strict, broad), (deny(path("/admin")), broad, strict)):
        assert status(listener(*filters), "/admin") == 403
        assert status(listener(*filters), "/public") == 200


def test_I15_custom_comes_first_then_deny_then_allow() -> None:
    found = listener(*CUSTOM, deny(path("/denied")), allow(Not(path("/else"))))
    check = run(found, "/custom")
    assert isinstance(check, Check)
    assert check.filter is AUTHORIZER
    refusal = Refusal(401, "ext_authz_denied")
    assert run(found, "/custom", answers=[refusal]) is refusal
    assert isinstance(run(found, "/custom", answers=[None]), Handle)
    assert isinstance(run(found, "/other"), Handle)
    assert [status(found, target) for target in ("/denied", "/else")] == [403, 403]


def test_an_authorizer_is_not_the_last_word() -> None:
    result = run(listener(*CUSTOM, deny(path("/custom"))), "/custom", answers=[None])
    assert isinstance(result, Refusal)


def test_without_a_condition_the_authorizer_is_always_asked() -> None:
    everybody = ExternalAuthorization("ext", "outbound|9000||authz", "authz:9000")
    assert isinstance(run(listener(everybody), "/"), Check)


def test_identities_are_those_of_the_handshake() -> None:
    found = listener(allow(who=principal(ALICE.uri)), mtls=MtlsMode.STRICT)
    handle = run(found, "/", connection=from_peer(ALICE))
    assert isinstance(handle, Handle)
    assert handle.context.peer is ALICE
    plain = run(found, "/", (b"x-forwarded-client-cert", b"URI=" + ALICE.uri.encode()))
    assert isinstance(plain, Refusal)
    assert plain.reason == "mtls_required"
    permissive = listener(allow(who=principal(ALICE.uri)))
    assert status(permissive, "/", (b"x-forwarded-client-cert", b"URI=" + ALICE.uri.encode())) == 403  # H17


def test_headers_that_a_policy_asks_for() -> None:
    found = listener(allow(header("X-Team", "blue")))
    assert status(found, "/", (b"x-team", b"blue")) == 200
    assert status(found, "/", (b"x-team", b"blue"), (b"x-team", b"red")) == 403
