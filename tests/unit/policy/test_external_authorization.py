"""What an external authorizer is asked over HTTP, and what its answers do."""

from __future__ import annotations

import pytest

from meshlib.model.authorization import AuthorizerAnswer, BodyStart, ExternalAuthorization, HeaderEdit
from meshlib.model.inbound import Connection, Inspection, Refusal, ServerRequest
from meshlib.policy.external_authorization import (
    apply_answer,
    compile_dialogue,
    cut,
    too_large,
    wanted_body,
)
from tests.support.rbac import inspect, text

AUTHORITY = "authz.foo.svc.cluster.local:9000"
NOTHING = BodyStart()


def authorizer(**more: object) -> ExternalAuthorization:
    return ExternalAuthorization("ext", "outbound|9000||authz.foo.svc.cluster.local", AUTHORITY, **more)  # type: ignore[arg-type]


def request(*headers: tuple[bytes, bytes], http_version: str = "1.1") -> ServerRequest:
    return ServerRequest("POST", b"/", [(b"host", b"a"), *headers], http_version=http_version)


# --- bodies


@pytest.mark.parametrize(
    ("headers", "version", "wanted"),
    [
        ([], "1.1", 0),
        ([(b"content-length", b"0")], "1.1", 0),
        ([(b"content-length", b"00")], "1.1", 0),
        ([(b"content-length", b"5")], "1.1", 10),
        ([(b"transfer-encoding", b"chunked")], "1.1", 10),
        ([], "2", 10),
        ([(b"content-length", b"0")], "2", 0),
    ],
)
def test_a_body_is_read_if_there_may_be_one(headers: list[tuple[bytes, bytes]], version: str, wanted: int) -> None:
    made = request(*headers, http_version=version)
    assert wanted_body(authorizer(max_request_bytes=10), made) == wanted
    assert wanted_body(authorizer(), made) == 0


@pytest.mark.parametrize(
    ("partial", "body", "refused"),
    [
        (False, BodyStart(b"x" * 10), False),
        (False, BodyStart(b"x" * 11), True),
        (False, BodyStart(b"x" * 11, complete=False), True),
        (False, BodyStart(b"x" * 3, complete=False), True),
        (True, BodyStart(b"x" * 11, complete=False), False),
    ],
)
def test_a_body_that_would_be_cut_is_refused_unless_it_may_be(partial: bool, body: BodyStart, refused: bool) -> None:
    refusal = too_large(authorizer(max_request_bytes=10, allow_partial_message=partial), body)
    assert (refusal is not None) is refused
    if refusal is not None:
        assert (refusal.status, refusal.reason) == (413, "request_payload_too_large")
        assert refusal.body == b"Payload Too Large"


def test_a_body_is_cut_to_what_the_authorizer_sees() -> None:
    wants = authorizer(max_request_bytes=3)
    assert cut(wants, BodyStart(b"abcd")) == BodyStart(b"abc", complete=False)
    assert cut(wants, BodyStart(b"abc", complete=False)) == BodyStart(b"abc", complete=False)
    assert cut(wants, BodyStart(b"abc")) == BodyStart(b"abc")


# --- the question


def test_the_question_is_the_request_behind_the_prefix() -> None:
    asks = authorizer(path_prefix="/check", timeout=2.5)
    made = compile_dialogue(asks).compose(inspect("/a?x=1", ("x-a", "1"), method="DELETE", authority="shop:80"), NOTHING)
    assert (made.method, made.scheme, made.authority, made.target) == ("DELETE", "http", AUTHORITY, "/check/a?x=1")
    assert (made.host_header, made.headers, made.body, made.timeouts.total) == ("shop:80", [], b"", 2.5)


def test_the_authorizer_sees_the_token_and_the_headers_that_it_may() -> None:
    asks = authorizer(
        allowed_headers=(text("x-exact"), text("x-pre-", "prefix"), text("-post", "suffix")),
        headers_to_add=(("x-added", "yes"), ("x-exact", "ours")),
    )
    seen = inspect(
        "/",
        ("authorization", "Bearer t"),
        ("cookie", "c"),
        ("x-pre-1", "1"),
        ("x-pre-1", "2"),
        ("a-post", "3"),
        ("x-exact", "theirs"),
        ("content-length", "3"),
        method="POST",
    )
    seen.header_changes[b"a-post"] = b"changed"
    assert sorted(compile_dialogue(asks).compose(seen, NOTHING).headers) == [
        (b"a-post", b"changed"),
        (b"authorization", b"Bearer t"),
        (b"x-added", b"yes"),
        (b"x-exact", b"ours"),
        (b"x-pre-1", b"1"),
        (b"x-pre-1", b"2"),
    ]


def test_what_was_read_of_the_body_is_sent_and_whether_it_is_all() -> None:
    compose = compile_dialogue(authorizer(max_request_bytes=5)).compose
    for complete, said in ((True, b"false"), (False, b"true")):
        made = compose(inspect("/"), BodyStart(b"abc", complete))
        assert (made.body, made.headers) == (b"abc", [(b"x-envoy-auth-partial-body", said)])


def test_over_grpc_everything_is_visible_unless_something_is_selected() -> None:
    seen = inspect("/a?x", ("x-a", "1"), connection=Connection(tls=True))
    everything = [(b":authority", b"a.test"), (b":method", b"GET"), (b":path", b"/a?x"), (b":scheme", b"https"), (b"x-a", b"1")]
    assert list(compile_dialogue(authorizer(grpc=True)).visible(seen)) == everything
    some = authorizer(grpc=True, allowed_headers=(text("x-a"), text(":path")))
    assert list(compile_dialogue(some).visible(seen)) == [(b":path", b"/a?x"), (b"x-a", b"1")]


# --- the answer over HTTP

ANSWER = [
    (b"X-User", b"alice"),
    (b"set-cookie", b"a=1"),
    (b"set-cookie", b"b=2"),
    (b"www-authenticate", b"Basic"),
    (b"location", b"/login"),
    (b"content-type", b"text/html"),
    (b"content-length", b"3"),
    (b"connection", b"close"),
]


def test_200_allows() -> None:
    asks = authorizer(upstream_headers=(text("x-user"),), client_headers_on_success=(text("set-cookie"),))
    assert compile_dialogue(asks).read(200, ANSWER, b"") == AuthorizerAnswer(
        allowed=True,
        headers=(HeaderEdit("x-user", b"alice"),),
        response_headers=((b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")),
    )


@pytest.mark.parametrize("status", [401, 302, 204, 404, 418])
def test_everything_else_denies_with_just_that(status: int) -> None:
    answer = compile_dialogue(authorizer()).read(status, ANSWER, b"no")
    refusal = apply_answer(authorizer(), answer, inspect())
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.body, refusal.reason, refusal.flag) == (status, b"no", "ext_authz_denied", "UAEX")
    assert [name for name, _ in refusal.headers] == [
        b"x-user", b"set-cookie", b"set-cookie", b"www-authenticate", b"location", b"content-type",
    ]  # fmt: skip


def test_of_a_denial_the_client_gets_what_it_may() -> None:
    asks = authorizer(client_headers=(text("x-user"),))
    answer = compile_dialogue(asks).read(403, ANSWER, b"")
    assert [edit.name for edit in answer.headers] == ["x-user", "www-authenticate", "location", "content-type"]


@pytest.mark.parametrize("status", [500, 503, 599])
def test_5xx_is_no_answer(status: int) -> None:
    assert compile_dialogue(authorizer()).read(status, [], b"").error == f"status {status}"


# --- what an answer does


@pytest.mark.parametrize("answer", [AuthorizerAnswer(error="refused"), AuthorizerAnswer(allowed=True, error="cut short")])
def test_without_an_answer_the_filter_says_which_way(answer: AuthorizerAnswer) -> None:
    refusal = apply_answer(authorizer(status_on_error=503), answer, inspect())
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason, refusal.body, refusal.flag) == (503, "ext_authz_error", b"", "UAEX")
    opened = inspect()
    assert apply_answer(authorizer(fail_open=True), answer, opened) is None
    assert opened.notes == [f"external authorizer {AUTHORITY}: {answer.error}"]


def changed(answer: AuthorizerAnswer, inspection: Inspection) -> Inspection:
    assert apply_answer(authorizer(), answer, inspection) is None
    return inspection


def test_headers_are_set_appended_and_removed() -> None:
    edits = (
        HeaderEdit("x-set", b"1"),
        HeaderEdit("x-append", b"b", "append"),
        HeaderEdit("x-new", b"n", "append"),
        HeaderEdit("x-there", b"no", "add_if_absent"),
        HeaderEdit("x-absent", b"yes", "add_if_absent"),
        HeaderEdit("x-there", b"again", "set_if_present"),
        HeaderEdit("x-nowhere", b"no", "set_if_present"),
    )
    found = changed(
        AuthorizerAnswer(allowed=True, headers=edits, headers_to_remove=("X-Gone", ":path", "host")),
        inspect("/", ("x-set", "0"), ("x-append", "a"), ("x-there", "t"), ("x-gone", "g")),
    )
    assert found.header_changes == {
        b"x-set": b"1",
        b"x-append": b"a,b",
        b"x-new": b"n",
        b"x-absent": b"yes",
        b"x-there": b"again",
        b"x-gone": None,
    }


def test_the_query_is_changed_and_stays_one() -> None:
    answer = AuthorizerAnswer(allowed=True, query_to_set=(("qs", "1 2#"), ("b", "3")), query_to_remove=("token",))
    found = changed(answer, inspect("/a?token=x&a=1&b=2&token"))
    assert (found.query, found.target) == ("a=1&qs=1%202%23&b=3", b"/a?a=1&qs=1%202%23&b=3")
    assert changed(AuthorizerAnswer(allowed=True, query_to_remove=("a",)), inspect("/a?a=1")).target == b"/a"


def test_metadata_and_headers_for_the_client_are_kept() -> None:
    found = changed(AuthorizerAnswer(allowed=True, response_headers=((b"x-a", b"1"),), metadata={"k": "v"}), inspect())
    assert found.response_headers == [(b"x-a", b"1")]
    assert found.metadata["envoy.filters.http.ext_authz"] == {"k": "v"}


@pytest.mark.parametrize(
    "answer",
    [
        AuthorizerAnswer(allowed=True, headers=(HeaderEdit("x-a", b"1\r\nx-evil: 1"),)),  # H22
        AuthorizerAnswer(allowed=True, headers=(HeaderEdit("x a", b"1"),)),
        AuthorizerAnswer(allowed=True, headers=(HeaderEdit(":path", b"/public"),)),
        AuthorizerAnswer(allowed=True, headers=(HeaderEdit("host", b"b"),)),
        AuthorizerAnswer(allowed=True, headers=(HeaderEdit("content-length", b"1"),)),
        AuthorizerAnswer(allowed=True, headers=(HeaderEdit("ä", b"1"),)),
        AuthorizerAnswer(allowed=True, response_headers=((b"x-a", b"\n"),)),
        AuthorizerAnswer(status=99),
        AuthorizerAnswer(headers=(HeaderEdit("x-a", b"\x00"),)),
    ],
)
def test_what_cannot_be_followed_is_no_answer(answer: AuthorizerAnswer) -> None:
    """To leave out a part would let through what the authorizer meant to change."""
    inspection = inspect()
    refusal = apply_answer(authorizer(), answer, inspection)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "ext_authz_error"
    assert (inspection.header_changes, inspection.response_headers) == ({}, [])
