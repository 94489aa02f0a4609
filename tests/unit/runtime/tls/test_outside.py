"""TLS to hosts outside of the mesh: DNS names, and whose roots."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from meshlib.model.cluster import UpstreamTls
from meshlib.runtime.tls.objects import peer_of
from meshlib.runtime.tls.outside import OutsideSide, matches
from tests.support.certificates import Minted, mint
from tests.support.tls import careless

ROOT = mint(None, ca=True, name="outside")


@pytest.fixture
def handshake(tmp_path: Path) -> Callable[..., Any]:
    authority = tmp_path / "root.pem"
    authority.write_bytes(ROOT.pem)

    def run(shown: Minted, tls: dict[str, Any], host: str = "api.test", *, ask: bool = False) -> Any:
        server = careless(shown, tmp_path, server=True)
        if ask:
            server.verify_mode = ssl.CERT_REQUIRED
            server.load_verify_locations(cadata=ROOT.der)
        arguments: dict[str, Any] = {"mesh": False, "ca_file": str(authority)} | tls
        side = OutsideSide(UpstreamTls(**arguments))
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client, them = side.wrap_bio(back, there, host=host), server.wrap_bio(there, back, server_side=True)
        for _ in range(6):
            for end in (client, them):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
        assert client.verified
        assert peer_of(client) is None
        return client, them

    return run


@pytest.mark.parametrize(
    ("tls", "host"),
    [
        ({}, "api.test"),
        ({"sni": "api.test"}, "10.0.0.1"),
        ({"dns_names": ("other.test", "api.test")}, "10.0.0.1"),
        ({"dns_names": ("spiffe://td/x",)}, "10.0.0.1"),
        ({"dns_names": ("one.wild.test",)}, "10.0.0.1"),
        ({"minimum_version": "TLSv1_3"}, "api.test"),
    ],
)
def test_names_that_are_right(handshake: Callable[..., Any], tls: dict[str, Any], host: str) -> None:
    shown = mint(ROOT, dns=["api.test", "*.wild.test"], uris=["spiffe://td/x"])
    handshake(shown, tls, host)


@pytest.mark.parametrize(
    ("tls", "host"),
    [
        ({}, "other.test"),
        ({"sni": "other.test"}, "api.test"),
        ({"dns_names": ("other.test",)}, "api.test"),  # the host's own name does not count then
        ({"dns_names": ("a.b.wild.test", "wild.test")}, "api.test"),
        ({"dns_names": ("10.0.0.1",)}, "api.test"),
        ({"dns_names": ("https://api.test",)}, "api.test"),
        ({"ca_file": ""}, "api.test"),  # the system's roots know nothing of ours
    ],
)
def test_names_that_are_wrong(handshake: Callable[..., Any], tls: dict[str, Any], host: str) -> None:
    shown = mint(ROOT, dns=["api.test", "*.wild.test"], uris=["spiffe://td/x"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(shown, tls, host)


def test_an_expired_certificate_is_refused_unless_nothing_is_verified(handshake: Callable[..., Any]) -> None:
    shown = mint(ROOT, dns=["api.test"], begins=timedelta(hours=-2), ends=timedelta(hours=-1))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(shown, {})
    handshake(shown, {"verify": False, "ca_file": ""}, "anything.test")


def test_mutual_tls_shows_the_certificate_of_its_files(handshake: Callable[..., Any], tmp_path: Path) -> None:
    """And the new one, when they have changed."""
    for number in range(2):
        client = mint(ROOT, dns=["client.test"], ends=timedelta(hours=1 + number))
        certificate, key = client.write(tmp_path, "client")
        tls = {"certificate_file": str(certificate), "key_file": str(key)}
        _, them = handshake(mint(ROOT, dns=["api.test"]), tls, ask=True)
        assert them.getpeercert(binary_form=True) == client.der


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    other = mint(None, ca=True, name="other")
    authority = tmp_path / "root.pem"
    authority.write_bytes(ROOT.pem)
    side = OutsideSide(UpstreamTls(mesh=False, ca_file=str(authority), sni="api.test"))

    def roots() -> int:
        return len(side.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO()).context.get_ca_certs())

    assert roots() == 1
    authority.write_bytes(ROOT.pem + other.pem)
    assert roots() == 2


def test_nobody_to_look_for_is_an_error_and_not_anybody() -> None:
    side = OutsideSide(UpstreamTls(mesh=False))
    with pytest.raises(ssl.SSLError, match="no certificate could be the right one"):
        side.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


@pytest.mark.parametrize(
    ("pattern", "name", "same"),
    [
        ("a.test", "a.test", True),
        ("A.test", "a.TEST.", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.com", "example.com", False),
        ("*", "example", False),
        ("a*.example.com", "ab.example.com", False),
        ("*.*.com", "a.b.com", False),
    ],
)
def test_I05_a_wildcard_is_one_label(pattern: str, name: str, *, same: bool) -> None:
    assert matches(pattern, name) is same
