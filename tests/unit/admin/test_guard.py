"""What the admin API lets in: no page of another site, no rebound name, no form."""

from __future__ import annotations

import pytest

from meshlib_control.admin.guard import refusal

ALLOWED = frozenset({"localhost", "mesh.corp.example"})


def ask(method: str = "GET", **headers: str) -> int:
    """The status of the refusal, 0 if there is none."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    problem = refusal({"type": "http", "method": method, "headers": pairs}, ALLOWED)
    return problem.status if problem else 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:15014", 0),
        ("localhost:15014", 0),
        ("LOCALHOST", 0),
        ("[::1]:15014", 0),
        ("192.0.2.7", 0),
        ("mesh.corp.example:15014", 0),
        ("evil.example:15014", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
        ("[evil.example]", 403),
    ],
)
def test_host_is_an_address_or_a_known_name(host: str, status: int) -> None:
    """A rebound DNS name shows in the Host header; an IP literal cannot be rebound."""
    assert ask(host=host) == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:15014"}, 0),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec_fetch_site": "same-origin"}, 0),
        ({"sec_fetch_site": "none"}, 0),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
    ],
)
def test_other_sites_are_refused_whatever_they_ask(headers: dict[str, str], status: int) -> None:
    assert ask("GET", host="127.0.0.1:15014", **headers) == status


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 0),
        ("application/json; charset=utf-8", 0),
        ("Application/YAML", 0),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
    ],
)
def test_bodies_have_a_type_that_no_form_can_send(content_type: str, status: int) -> None:
    assert ask("POST", host="localhost", content_type=content_type, content_length="7") == status


def test_a_body_of_unknown_length_needs_a_type_too() -> None:
    assert ask("POST", host="localhost", transfer_encoding="chunked") == 415
