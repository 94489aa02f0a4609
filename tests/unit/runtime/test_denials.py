"""Requests that are refused: asked about, counted and logged."""

from __future__ import annotations

import logging
import threading

import pytest

from meshlib.flow.inbound import InboundPlan, compile_listener
from meshlib.flow.server import Check
from meshlib.model.authorization import Action, AuthorizerAnswer, BodyStart, ExternalAuthorization, HeaderEdit
from meshlib.model.inbound import Connection, ServerRequest
from meshlib.model.listener import HttpFilter, InboundListener
from meshlib.runtime.denials import MAX_REASONS, OTHER, Denials, printable
from meshlib.runtime.serving import Inbound
from tests.support.rbac import ALICE, PORT, deny, from_peer, path, policy, rules

ASKS = ExternalAuthorization("ext", "outbound|9000||authz", "authz:9000", max_request_bytes=4)


def serving(*filters: HttpFilter) -> Inbound:
    inbound = Inbound()
    plan: InboundPlan = compile_listener(InboundListener("in", PORT, filters=filters), now=lambda: 0.0)
    inbound.publish({PORT: plan})
    return inbound


def request(target: bytes = b"/", *headers: tuple[bytes, bytes], connection: Connection | None = None) -> ServerRequest:
    return ServerRequest("POST", target, [(b"host", b"shop"), *headers], connection=connection or Connection(local_port=PORT))


class Authorizer:
    """Answers with what it was given, and keeps what it was asked."""

    def __init__(self, answer: AuthorizerAnswer) -> None:
        self.answer = answer
        self.asked: list[BodyStart] = []

    def ask(self, check: Check, body: BodyStart) -> AuthorizerAnswer:
        self.asked.append(body)
        return self.answer

    async def aask(self, check: Check, body: BodyStart) -> AuthorizerAnswer:
        return self.ask(check, body)


def test_an_authorizer_is_asked_before_the_application_is_run() -> None:
    inbound = serving(ASKS)
    inbound.authorizers = authorizer = Authorizer(AuthorizerAnswer(allowed=True, headers=(HeaderEdit("x-user", b"alice"),)))
    taken = inbound.serve(request(b"/", (b"content-length", b"4")))
    assert taken.pending is not None
    assert taken.wanted_body == 4
    taken.check(b"body")
    assert not taken.pending
    assert not taken.refusal
    assert authorizer.asked == [BodyStart(b"body")]
    assert taken.inspection is not None
    assert taken.inspection.header_changes == {b"x-user": b"alice"}
    with taken:
        assert inbound.active == 1


async def test_an_authorizer_is_asked_without_blocking() -> None:
    inbound = serving(ASKS, ASKS)
    inbound.authorizers = authorizer = Authorizer(AuthorizerAnswer(status=401, body=b"who?"))
    taken = inbound.serve(request())
    assert taken.wanted_body == 0
    await taken.acheck()
    assert taken.pending is None
    assert taken.refusal is not None
    assert (taken.refusal.status, taken.refusal.body) == (401, b"who?")
    assert len(authorizer.asked) == 1
    with pytest.raises(RuntimeError):
        await taken.acheck()


def test_a_body_that_is_too_large_is_refused_without_asking() -> None:
    inbound = serving(ASKS)
    inbound.authorizers = authorizer = Authorizer(AuthorizerAnswer(allowed=True))
    taken = inbound.serve(request(b"/", (b"content-length", b"5")))
    taken.check(b"12345", complete=False)
    assert taken.refusal is not None
    assert (taken.refusal.status, authorizer.asked) == (413, [])


def test_with_nobody_to_ask_nothing_is_let_in() -> None:
    taken = serving(ASKS).serve(request())
    taken.check()
    assert taken.refusal is not None
    assert (taken.refusal.status, taken.refusal.reason) == (403, "ext_authz_error")


def test_refusals_are_counted_by_reason() -> None:
    inbound = serving(deny(path("/admin")))
    for target in (b"/admin", b"/admin?x", b"/public", b"/#"):
        inbound.serve(request(target))
    assert inbound.denied.counts == {
        "rbac_access_denied_matched_policy[ns[foo]-policy[p]-rule[0]]": 2,
        "path_normalization_failed": 1,
    }
    assert inbound.refused == 3
    inbound.forget()
    assert inbound.refused == 0


def test_reasons_are_bounded_and_counts_exact() -> None:
    denials = Denials()

    def count() -> None:
        for number in range(2 * MAX_REASONS):
            denials.count(f"r{number}")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(denials.counts) == MAX_REASONS + 1
    assert denials.counts["r0"] == 4
    assert denials.total == 8 * MAX_REASONS
    assert denials.counts[OTHER] == 4 * MAX_REASONS


def test_a_denial_is_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "meshlib.access")
    inbound = serving(deny(path("/admin")))
    inbound.serve(request(b"/public", connection=from_peer(ALICE)))
    inbound.serve(request(b"/admin?access_token=secret", connection=from_peer(ALICE, remote_address="10.0.0.1")))
    (record,) = caplog.records
    assert record.getMessage() == (
        f"denied POST shop/admin from {ALICE.uri}: 403 rbac_access_denied_matched_policy[ns[foo]-policy[p]-rule[0]]"
    )
    assert record.__dict__["meshlib"] == {
        "method": "POST",
        "authority": "shop",
        "path": "/admin",
        "peer": ALICE.uri,
        "remote_address": "10.0.0.1",
        "notes": "",
        "status": 403,
        "reason": "rbac_access_denied_matched_policy[ns[foo]-policy[p]-rule[0]]",
        "flag": "",
        "policy": "ns[foo]-policy[p]-rule[0]",
    }


def test_why_an_authorizer_gave_no_answer_is_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "meshlib.access")
    inbound = serving(ASKS)
    inbound.authorizers = Authorizer(AuthorizerAnswer(error="no route\nto it"))
    inbound.serve(request()).check()
    assert "(external authorizer authz:9000: no route\\nto it)" in caplog.text


def test_audits_are_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "meshlib.access")
    inbound = serving(rules(Action.LOG, policy(path("/audited"))))
    assert inbound.serve(request(b"/audited")).refusal is None
    assert inbound.serve(request(b"/other")).refusal is None
    (record,) = caplog.records
    assert record.getMessage() == "POST shop/audited from unknown: audit: policy ns[foo]-policy[p]-rule[0] matched"


def test_H23_no_request_writes_lines_of_its_own_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "meshlib.access")
    inbound = serving()
    inbound.serve(ServerRequest("GET\n", b"/a\r\n2026 denied\x1b[31m\xff", [(b"host", b"a\nb")]))
    (record,) = caplog.records
    message = record.getMessage()
    assert message.isascii()
    assert message.isprintable()
    assert "\\x1b" in message
    assert inbound.serve(request()).refusal is None


def test_what_is_long_is_cut() -> None:
    assert printable("a" * 600) == "a" * 512 + "..."
    assert printable(b"a\\b") == "a\\b"
