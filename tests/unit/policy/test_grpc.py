"""Methods, metadata and codes of gRPC; and hosts that its servers do not tell."""

from __future__ import annotations

import pytest

from meshlib.model.inbound import Inspection, Refusal, ServerRequest
from meshlib.model.listener import PathNormalization
from meshlib.policy.canonical import canonicalize
from meshlib.policy.grpc import code_of_status, headers_of, is_method
from meshlib.policy.readings import host_rule


@pytest.mark.parametrize("path", ["/pkg.Svc/Secret", "/Svc/Secret", "/pkg.Svc/secret", "/.../x", "/a-b_c.D/$e"])
def test_methods(path: str) -> None:
    assert is_method(path)


@pytest.mark.parametrize(
    "path",
    [
        "pkg.Svc/Secret", "//pkg.Svc/Secret", "/pkg.Svc//Secret", "/pkg.Svc/Secret/", "/pkg.Svc/Secret?x", "/pkg.Svc/Secret#x",
        "/pkg.Svc%2FSecret", "/pkg.Svc/%53ecret", "/x/../pkg.Svc/Secret", "/../Secret", "/pkg.Svc/..", "/./Secret",
        "/pkg.Svc/.",
        "/pkg.Svc\\Secret", "/pkg.Svc/Sec\\ret", "/pkg.Svc/Secret;x", "/pkg.Svc/Secret ", "/pkg.Svc/Secret\n", "/pkg.Svc/\0",
        "/pkg.Svc/Sécret", "/pkg.Svc", "/", "", "*",
    ],
)  # fmt: skip
def test_P13_P14_other_spellings_are_no_methods(path: str) -> None:
    assert not is_method(path)


def test_metadata_is_headers_as_on_the_wire() -> None:
    metadata: list[tuple[str, str | bytes]] = [("x-text", "a"), ("x-text", "b"), ("x-bin", b"\0\xff"), ("X-Raw", b"c")]
    assert headers_of(metadata) == [(b"x-text", b"a"), (b"x-text", b"b"), (b"x-bin", b"AP8="), (b"x-raw", b"c")]


@pytest.mark.parametrize(("status", "code"), [(401, 16), (403, 7), (404, 12), (429, 8), (503, 14), (400, 13), (418, 2)])
def test_codes(status: int, code: int) -> None:
    assert code_of_status(status) == code


def seen(*headers: tuple[bytes, bytes], grpc: bool = True) -> Inspection | Refusal:
    return canonicalize(ServerRequest("POST", b"/a.B/C", list(headers), http_version="2", grpc=grpc), PathNormalization.BASE)


def test_a_call_has_no_host_and_need_not_have_metadata() -> None:
    found = seen()
    assert isinstance(found, Inspection)
    assert (found.host, found.authority, found.path) == ("", "", "/a.B/C")
    assert isinstance(seen(grpc=False), Refusal)


def test_names_of_metadata_may_have_underscores() -> None:
    assert isinstance(seen((b"user_id", b"7")), Inspection)
    refused = seen((b"host", b"a.test"), (b"user_id", b"7"), grpc=False)
    assert isinstance(refused, Refusal)
    assert refused.reason == "underscore_in_header_name"


def test_H12_a_nul_in_metadata() -> None:
    refused = seen((b"x-foo", b"some_special\0"))
    assert isinstance(refused, Refusal)
    assert refused.reason == "invalid_characters"
    assert isinstance(seen((b"x-foo", b"some_special")), Inspection)


@pytest.mark.parametrize("wanted", ["a.test", ""])
def test_a_host_that_nobody_knows_is_any_that_a_rule_forbids_and_none_that_it_allows(wanted: str) -> None:
    unknown = seen()
    assert isinstance(unknown, Inspection)
    assert host_rule(lambda host: host == wanted, restricts=True)(unknown)
    assert not host_rule(lambda host: host == wanted, restricts=False)(unknown)
