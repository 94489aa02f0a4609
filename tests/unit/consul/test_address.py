"""Consul URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib_control.consul.address import ConsulAddress, parse_consul_url
from meshlib_control.errors import ControlServiceError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("consul://127.0.0.1", ConsulAddress()),
        ("consul://127.0.0.1:8500/", ConsulAddress()),
        ("consul://c.example:18500/mesh/a", ConsulAddress(host="c.example", port=18500, prefix="mesh/a/")),
        ("consul://[::1]:8500", ConsulAddress(host="::1")),
        ("consul://127.0.0.1?token=s%2Fecret&dc=eu", ConsulAddress(token="s/ecret", datacenter="eu")),
        ("consul://h?scheme=https&ca_file=/ca.pem", ConsulAddress(host="h", scheme="https", ca_file="/ca.pem")),
    ],
)
def test_urls_that_are_understood(url: str, expected: ConsulAddress) -> None:
    assert parse_consul_url(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:8500", "looks like consul://"),
        ("consul://", "looks like consul://"),
        ("consul://h:99999", "not a number from 1 to 65535"),
        ("consul://h?tokn=x", "unknown option 'tokn'"),
        ("consul://h?scheme=ftp", "expected http or https"),
        ("consul://h?token_file=/does/not/exist", "token_file"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(ControlServiceError, match=message):
        parse_consul_url(url)


def test_the_token_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert parse_consul_url(f"consul://h?token_file={tmp_path}/token").token == "secret"


def test_the_token_is_never_shown() -> None:
    address = parse_consul_url("consul://h:8500?token=secret")
    assert "secret" not in f"{address} {address!r}"
    with pytest.raises(ControlServiceError) as caught:
        parse_consul_url("consul://h?token=secret&x=1")
    assert "secret" not in str(caught.value)
