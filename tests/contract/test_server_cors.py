"""Browsers, as every server answers them: preflights before the application, and one answer about who may read a response."""

from __future__ import annotations

import pytest

from tests.support.meshservers import Server, exchange

HEAD = b" HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n"
ORIGIN = b"origin: https://a.test\r\n"
ASKS = b"access-control-request-method: DELETE\r\n"


def asked(server: Server, line: bytes, *headers: bytes) -> tuple[int, dict[str, list[str]], bytes]:
    """Status, headers and body."""
    head, _, body = exchange(server.port, line + HEAD + b"".join(headers) + b"\r\n").partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    found: dict[str, list[str]] = {}
    for each in lines:
        name, _, value = each.partition(":")
        found.setdefault(name.lower(), []).append(value.strip())
    return int(status.split()[1]), found, body


def cors(headers: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: values for name, values in headers.items() if name.startswith("access-control")}


def test_a_preflight_is_answered_without_the_application(server: Server) -> None:
    status, headers, body = asked(server, b"OPTIONS /cors", ORIGIN, ASKS)
    assert (status, body) == (200, b"")
    assert cors(headers) == {
        "access-control-allow-origin": ["https://a.test"],
        "access-control-allow-methods": ["GET,DELETE"],
        "access-control-expose-headers": ["x-seen"],
    }
    assert headers["content-length"] == ["0"]


def test_responses_say_who_may_read_them_once(server: Server) -> None:
    """The application says something else about it."""
    status, headers, body = asked(server, b"GET /cors/own", ORIGIN)
    assert status == 200
    assert cors(headers) == {"access-control-allow-origin": ["https://a.test"], "access-control-expose-headers": ["x-seen"]}
    assert b"/cors/own" in body
    _, headers, _ = asked(server, b"GET /cors/own")
    assert cors(headers) == {"access-control-allow-origin": ["*"]}


@pytest.mark.parametrize("headers", [[b"origin: https://evil.test\r\n", ASKS], [ORIGIN], [ASKS]])
def test_everything_else_gets_to_the_application(server: Server, headers: list[bytes]) -> None:
    status, _, body = asked(server, b"OPTIONS /cors/echo", *headers)
    assert status == 200
    assert b'"method": "OPTIONS"' in body
