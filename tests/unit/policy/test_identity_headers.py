"""Headers that only proxies and certificates may speak through: from outside they reach neither policies nor applications."""

from __future__ import annotations

import pytest

from meshlib.model.inbound import Inspection, Refusal, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.policy.canonical import canonicalize
from meshlib.policy.identity_headers import UNTRUSTED, client_address

HOST = (b"host", b"a.test")


def view(*headers: tuple[bytes, bytes], hops: int = 0) -> Inspection:
    found = canonicalize(ServerRequest("GET", b"/", [HOST, *headers]), PathNormalization.BASE, hops)
    assert isinstance(found, Inspection), found
    return found


def refusal(*headers: tuple[bytes, bytes]) -> str:
    found = canonicalize(ServerRequest("GET", b"/", [HOST, *headers]), PathNormalization.BASE)
    assert isinstance(found, Refusal), found
    return found.reason


def removed(*headers: tuple[bytes, bytes]) -> set[bytes]:
    """What is gone, for policies and for the application alike."""
    found = view(*headers)
    gone = {name for name, _ in [HOST, *headers]} - {name for name, _ in found.request.headers}
    assert found.header_changes == dict.fromkeys(gone)
    assert gone.isdisjoint(found.request.fields)
    return gone


@pytest.mark.parametrize("name", sorted(UNTRUSTED))
def test_H17_H18_H19_names_of_proxies_are_removed(name: bytes) -> None:
    kept = (b"x-forwarded-proto", b"http"), (b"x-envoy-attempt-count", b"2"), (b"x-envoy-expected-rq-timeout-ms", b"5")
    assert removed((name, b"URI=spiffe://td/ns/admin/sa/root"), *kept, (name, b"again")) == {name}


def test_H16_H18_everything_in_our_own_prefix_is_removed() -> None:
    assert removed((b"x-mesh-principal", b"spiffe://td/ns/admin/sa/root"), (b"x-mesh", b"1")) == {b"x-mesh-principal"}


@pytest.mark.parametrize(
    "connection", [b"close, x-role", b"X-Role", b"keep-alive,x-role ,te", b"x-role;q=1, x-role", b"x-missing, x-role"]
)
def test_H16_what_the_client_nominates_is_seen_by_nobody(connection: bytes) -> None:
    assert removed((b"x-role", b"admin"), (b"connection", connection)) == {b"x-role"}


def test_H16_nominations_in_any_of_several_headers_count() -> None:
    connections = (b"connection", b"x-role"), (b"connection", b"keep-alive")
    assert removed((b"x-role", b"admin"), *connections) == {b"x-role"}
    assert removed((b"x-role", b"admin"), *reversed(connections)) == {b"x-role"}


@pytest.mark.parametrize(
    "connection", [b"close", b"keep-alive", b"Keep-Alive", b"Upgrade, HTTP2-Settings", b"keep-alive, Upgrade", b""]
)
def test_H16_what_means_the_connection_removes_nothing(connection: bytes) -> None:
    headers = (b"upgrade", b"websocket"), (b"keep-alive", b"5"), (b"x-role", b"admin"), (b"http2-settings", b"x")
    assert removed(*headers, (b"connection", connection)) == set()


@pytest.mark.parametrize("connection", [b"host", b"close, Content-Length", b"transfer-encoding", b"connection"])
def test_H16_framing_cannot_be_nominated(connection: bytes) -> None:
    assert refusal((b"content-length", b"0"), (b"connection", connection)) == "invalid_connection_header"


FORWARDED = (b"x-forwarded-for", b"1.2.3.4, 10.0.0.7")


def test_H20_no_hop_is_trusted_unless_it_is_said() -> None:
    found = view(FORWARDED)
    assert found.remote_address == ""  # the connection's other end


@pytest.mark.parametrize(
    ("values", "hops", "expected"),
    [
        ([b"1.2.3.4"], 1, "1.2.3.4"),
        ([b"1.2.3.4, 10.0.0.7"], 1, "10.0.0.7"),
        ([b"1.2.3.4, 10.0.0.7"], 2, "1.2.3.4"),
        ([b"9.9.9.9", b"1.2.3.4 ,10.0.0.7"], 3, "9.9.9.9"),  # two headers are one list
        ([b"9.9.9.9", b"1.2.3.4"], 1, "1.2.3.4"),
        ([b"2001:DB8::1"], 1, "2001:db8::1"),
        ([b"1.2.3.4"], 2, ""),  # shorter than the hops that should have written it
        ([], 1, ""),
        ([b""], 1, ""),
        ([b"unknown"], 1, ""),
        ([b"1.2.3.4:80"], 1, ""),
        ([b"fe80::1%eth0"], 1, ""),
        ([b"1.2.3.4, \xff"], 1, ""),
        ([b"01.2.3.4"], 1, ""),
        ([b"[::1]"], 1, ""),
    ],
)
def test_H20_the_client_is_what_trusted_hops_have_written(values: list[bytes], hops: int, expected: str) -> None:
    request = ServerRequest("GET", b"/", [HOST, *((b"x-forwarded-for", value) for value in values)])
    assert client_address(request, hops) == expected


def test_H20_the_address_is_in_the_view() -> None:
    assert view(FORWARDED, hops=1).remote_address == "10.0.0.7"
    nominated = view(FORWARDED, (b"connection", b"x-forwarded-for"), hops=1)
    assert nominated.remote_address == ""
