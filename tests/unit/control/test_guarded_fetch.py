"""Where the control service may be sent (J13, T14): decided before a connection is opened."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib_control.guarded_fetch import AllowedTargets, FetchFailed, GuardedFetch

FORBIDDEN = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "0.0.0.0", "0.1.2.3",
    "169.254.169.254", "169.254.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "192.0.2.1",
    "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "::a9fe:a9fe",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]  # fmt: skip
"""Teredo (the last one) hides 127.0.0.1."""

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_J13_addresses_that_nobody_outside_may_name(address: str) -> None:
    assert AllowedTargets().fault("keys.test", ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_J13_public_addresses_are_fine(address: str) -> None:
    assert AllowedTargets().fault("keys.test", ipaddress.ip_address(address)) is None


def test_J13_an_allowed_name_may_be_private_but_no_metadata_service() -> None:
    allowed = AllowedTargets(["keys.corp.test", "*.internal"])
    for host in ("keys.corp.test", "KEYS.corp.test.", "a.internal", "a.b.internal"):
        assert allowed.fault(host, ipaddress.ip_address("10.0.0.1")) is None
        assert allowed.fault(host, ipaddress.ip_address("127.0.0.1")) is None
        for secret in ("169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "100.100.100.200", "0.0.0.0"):
            assert allowed.fault(host, ipaddress.ip_address(secret)) is not None
    for host in ("corp.test", "x.keys.corp.test", "internal", "ainternal"):
        assert allowed.fault(host, ipaddress.ip_address("10.0.0.1")) is not None


def test_J13_an_allowed_network_is_allowed_whatever_the_name() -> None:
    allowed = AllowedTargets(["10.1.0.0/16", "169.254.169.254", "fd00::/8"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "169.254.169.254", "fd12::1"):
        assert allowed.fault("x", ipaddress.ip_address(address)) is None
    for address in ("10.2.0.1", "169.254.169.253", "fe80::1"):
        assert allowed.fault("x", ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize("entry", ["", "*", "a*b.test", "https://keys.test", "keys.test:443", "10.0.0.0/33", "*.*.test"])
def test_what_is_neither_name_nor_network_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"neither a host name|does not appear"):
        AllowedTargets([entry])


class Names:
    """A resolver that answers what a test says, and remembers what it was asked."""

    def __init__(self, *answers: Sequence[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


async def refused(address: str, *answers: Sequence[str] | OSError, allowed: AllowedTargets | None = None) -> str:
    fetch = GuardedFetch(allowed, resolve=Names(*answers))
    with pytest.raises(FetchFailed) as caught:
        await fetch(address, 1.0)
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("file:///etc/passwd", "https://"),
        ("gopher://keys.test/", "https://"),
        ("keys.test", "https://"),
        ("https://", "https://"),
        ("https://user:secret@keys.test/", "holds a password"),
        ("http://keys.test/", "plain http"),
        ("http://127.0.0.1:8500/", "plain http"),
        ("http://169.254.169.254/latest/meta-data", "plain http"),
        ("https://keys.test:bad/", "not an address"),
        ("https://a\nb/", "not an address"),
    ],
)
async def test_J13_addresses_that_are_refused_as_they_are_written(address: str, told: str) -> None:
    """Nothing is even resolved, and no password is repeated."""
    message = await refused(address)
    assert told in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "169.254.169.254", "2130706433", "0x7f.1", "metadata.google.internal"]
)
async def test_J13_whatever_a_host_resolves_to_is_checked(host: str) -> None:
    assert "may not be sent there" in await refused(f"https://{host}/", ["127.0.0.1"])
    assert "may not be sent there" in await refused(f"https://{host}/", ["169.254.169.254"])


async def test_J13_one_bad_address_spoils_all() -> None:
    assert "10.0.0.1" in await refused("https://keys.test/", ["8.8.8.8", "10.0.0.1"])


async def test_J13_a_name_is_resolved_once() -> None:
    """What is checked is what is connected to: a second answer, from a name server that rebinds, is never asked for."""
    names = Names(["192.0.2.1"], ["127.0.0.1"])
    fetch = GuardedFetch(AllowedTargets(["192.0.2.0/24"]), resolve=names)
    with pytest.raises(FetchFailed):
        await fetch("https://keys.test:8443/", 0.2)
    assert names.asked == [("keys.test", 8443)]


async def test_names_that_do_not_resolve() -> None:
    assert "cannot be resolved: no such name" in await refused("https://keys.test/", OSError("no such name"))
    assert "no address" in await refused("https://keys.test/", [])


async def test_what_is_told_holds_neither_query_nor_fragment() -> None:
    message = await refused("https://keys.test/path?key=secret#secret", OSError("x"))
    assert message.startswith("https://keys.test/path: ")
    assert "secret" not in message


@given(st.ip_addresses(v=6))
def test_no_address_makes_it_raise(address: ipaddress.IPv6Address) -> None:
    assert AllowedTargets(["10.0.0.0/8"]).fault("x", address) in (
        None,
        "is not public",
        "is link-local, multicast or a cloud's metadata service",
    )
