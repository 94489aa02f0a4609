"""Requests that two readers could read differently, on real servers: what each lets through, and what the gate makes of it.

The table is that of what the Python servers hand on; a server that repairs a request before anybody can see it, in a way that
leaves one reading, is an exception with its reason.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.meshservers import Server, exchange

OK = {200}
REFUSED = {400}
UNKNOWN_CODING = {400, 501}
TOO_LARGE = {431}

HOST = b"host: a.test\r\n"


def request(line: bytes = b"GET /", headers: bytes = HOST, body: bytes = b"") -> bytes:
    return line + b" HTTP/1.1\r\nconnection: close\r\n" + headers + b"\r\n" + body


CASES: dict[str, tuple[bytes, set[int]]] = {
    "plain": (request(), OK),
    "encoded slash": (request(b"GET /a%2Fb"), OK),
    "step behind an encoded slash": (request(b"GET /public%2F..%2Fadmin"), REFUSED),
    "doubled slash": (request(b"GET //admin"), OK),
    "asterisk": (request(b"OPTIONS *"), OK),
    "absolute target, same host": (request(b"GET http://a.test/admin?q=1"), OK),
    "absolute target, another host": (request(b"GET http://evil.test/admin"), REFUSED),
    "encoded NUL": (request(b"GET /admin%00"), REFUSED),
    "NUL in the target": (request(b"GET /a\0b"), REFUSED),
    "UTF-8 in the target": (request("GET /é".encode()), REFUSED),
    "fragment": (request(b"GET /admin#x"), REFUSED),
    "no slash": (request(b"GET admin"), REFUSED),
    "user info": (request(b"GET @evil/admin"), REFUSED),
    "lower-case method": (request(b"get /"), REFUSED),
    "two hosts": (request(headers=HOST + b"host: b.test\r\n"), REFUSED),
    "no host": (request(headers=b""), REFUSED),
    "host with a path": (request(headers=b"host: a/?x=\r\n"), REFUSED),
    "repeated header": (request(headers=HOST + b"x-role: user\r\nx-role: admin\r\n"), OK),
    "both spellings": (request(headers=HOST + b"x-role: user\r\nx_role: admin\r\n"), REFUSED),
    "obs-text": (request(headers=HOST + b"x-a: \xff\r\n"), OK),
    "NUL in a value": (request(headers=HOST + b"x-a: 1\x002\r\n"), REFUSED),
    "space before the colon": (request(headers=HOST + b"x-a : 1\r\n"), REFUSED),
    "length and chunks": (
        request(b"POST /", HOST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"),
        REFUSED,
    ),
    "two lengths": (request(b"POST /", HOST + b"content-length: 1\r\ncontent-length: 2\r\n", b"ab"), REFUSED),
    "signed length": (request(b"POST /", HOST + b"content-length: +1\r\n", b"a"), REFUSED),
    "unknown coding": (request(b"POST /", HOST + b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n"), UNKNOWN_CODING),
    "broken chunk": (request(b"POST /", HOST + b"transfer-encoding: chunked\r\n", b"1\r\naXX0\r\n\r\n"), REFUSED),
    "folded line": (request(headers=HOST + b"x-a: 1\r\n 2\r\n"), REFUSED),
    "bare line feeds": (b"GET / HTTP/1.1\nhost: a.test\nconnection: close\n\n", REFUSED),
    "huge header": (request(headers=HOST + b"x-a: " + b"a" * 65_000 + b"\r\n"), TOO_LARGE),
    "1000 headers": (request(headers=HOST + b"".join(b"x-%d: 1\r\n" % number for number in range(1000))), TOO_LARGE),
}

H11 = ("uvicorn h11", "hypercorn")
TARGET_CUT = ("uvicorn httptools", "gunicorn uvicorn worker", "granian")
UNDERSCORES_DROPPED = ("gunicorn asgi worker", "gunicorn sync", "gunicorn gthread", "werkzeug")
IGNORES_CLOSE = ("gunicorn asgi worker",)  # what the application says about the connection

EXCEPTIONS: dict[str, dict[tuple[str, ...], set[int]]] = {
    # The server cuts scheme, host and fragment off before anybody can see them; the application sees /admin, as the gate does.
    "fragment": {TARGET_CUT: OK},
    "absolute target, another host": {TARGET_CUT: OK, ("werkzeug",): OK},  # werkzeug takes it as the host, as RFC 9112 asks
    "lower-case method": {("hypercorn",): OK},  # upper-cased
    "both spellings": {UNDERSCORES_DROPPED: OK},
    "space before the colon": {("werkzeug",): OK},  # the line, and all after it, is dropped
    "length and chunks": {("granian",): OK},  # the length is dropped, as RFC 9112 section 6.3 allows
    "two lengths": {("werkzeug",): OK},  # WSGI has room for one; werkzeug keeps the last
    "broken chunk": {("granian",): OK, ("werkzeug",): {500}},  # granian ends the body there and tells nobody
    "folded line": {H11: OK, ("werkzeug",): OK},  # joined with a space, as RFC 9112 section 5.2 allows
    "bare line feeds": {H11: OK, ("granian", "werkzeug"): OK},  # RFC 9112 section 2.2 allows it
}


def expected(case: str, server: str) -> set[int]:
    for names, statuses in EXCEPTIONS.get(case, {}).items():
        if server in names:
            return statuses
    return CASES[case][1]


def answer(server: Server, sent: bytes) -> tuple[int, dict[str, Any]]:
    """Status, and what the application saw; empty when it was not asked."""
    received = exchange(server.port, sent)
    head, _, body = received.partition(b"\r\n\r\n")
    seen = body[body.find(b"{") : body.rfind(b"}") + 1]  # without chunk sizes
    return int(head.split(b" ", 2)[1]), json.loads(seen) if head.startswith(b"HTTP/1.1 200") or b"200 OK" in head[:20] else {}


@pytest.mark.parametrize("case", CASES)
def test_ambiguous_requests_are_refused(server: Server, case: str) -> None:
    status, seen = answer(server, CASES[case][0])
    assert status in expected(case, server.name)
    assert bool(seen) == (status == 200)


def test_the_application_sees_the_target_that_was_checked(server: Server) -> None:
    _, seen = answer(server, CASES["absolute target, same host"][0])
    assert (seen["path"], seen["target"]) == ("/admin", "/admin?q=1")


def test_an_encoded_slash_stays_one_string(server: Server) -> None:
    _, seen = answer(server, CASES["encoded slash"][0])
    assert (seen["path"], seen["target"]) in [("/a/b", "/a%2Fb"), ("/a/b", "/a/b")]  # WSGI's echo has no raw path


def test_repeated_headers_all_arrive(server: Server) -> None:
    _, seen = answer(server, CASES["repeated header"][0])
    roles = [value for name, value in seen["headers"] if name == "x-role"]
    assert roles in (["user", "admin"], ["user,admin"])  # WSGI joins them


def test_of_two_spellings_never_both_arrive(server: Server) -> None:
    status, seen = answer(server, CASES["both spellings"][0])
    assert status == 400 or [value for name, value in seen["headers"] if name == "x-role"] == ["user"]


def test_a_refused_connection_is_closed(server: Server) -> None:
    """Whatever follows on it may be the request's rest.  Servers that decide this by themselves were sure of the framing."""
    sent = b"GET /admin%00 HTTP/1.1\r\nhost: a.test\r\n\r\n" + request()
    assert exchange(server.port, sent).count(b"HTTP/1.1 ") == (2 if server.name in IGNORES_CLOSE else 1)
