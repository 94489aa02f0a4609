"""What a control service may be started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib_control.settings import Address, Security, Settings, SettingsError, default_data_dir, sqlite_url


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("127.0.0.1:15010", Address("127.0.0.1", 15010), "127.0.0.1:15010"),
        ("localhost:0", Address("127.0.0.1", 0), "127.0.0.1:0"),
        ("[::1]:80", Address("::1", 80), "[::1]:80"),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535), "0.0.0.0:65535"),
    ],
)
def test_addresses(text: str, address: Address, shown: str) -> None:
    assert Address.parse(text, where="--listen") == address
    assert str(address) == shown


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", ":80", "127.0.0.1:65536", "127.0.0.1:x", "example.com:80", "127.0.0.1:-1", "1:²"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Address.parse(text, where="--listen")
    assert caught.value.where == "--listen"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_plaintext_stays_on_this_machine(host: str) -> None:
    """T06: no word lifts this, neither for clients without certificates nor for the REST API."""
    with pytest.raises(SettingsError, match="insecure-dev"):
        Settings(listen=Address(host, 1))
    with pytest.raises(SettingsError, match="not encrypted"):
        Settings(admin=Address(host, 1), security=Security())
    assert Settings(listen=Address(host, 1), security=Security(ca_listen=Address(host, 2))).listen.host == host


def test_halves_of_a_certificate_authority(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    with pytest.raises(SettingsError, match="half"):
        Settings(security=Security(ca_chain=tmp_path / "ca.pem"))
    with pytest.raises(SettingsError, match="does not exist"):
        Settings(security=Security(jwt_issuers=tmp_path / "missing"))


def test_keys_in_consul_are_encrypted_with_one_that_is_not_there() -> None:
    """T10."""
    with pytest.raises(SettingsError, match="--ca-key"):
        Settings(store="consul://127.0.0.1:8500", security=Security())
    Settings(store="consul://127.0.0.1:8500", security=Security(ca_key="env:KEY"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_none(host: str) -> None:
    assert Settings(listen=Address(host, 1), admin=Address(host, 2)).admin.port == 2


@pytest.mark.parametrize(
    "times", [{"debounce_quiet": -1.0}, {"debounce_max": 0.01}, {"lease_ttl": 0.0}, {"lease_ttl": float("nan")}]
)
def test_times_that_cannot_be(times: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        Settings(**times)  # type: ignore[arg-type]  # floats by name


def test_configuration_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="missing"):
        Settings(config=(tmp_path / "missing",))


def test_state_goes_where_the_xdg_specification_says() -> None:
    assert default_data_dir({"XDG_STATE_HOME": "/state", "HOME": "/home/ada"}) == Path("/state/meshlib")
    assert default_data_dir({"XDG_STATE_HOME": "relative", "HOME": "/home/ada"}) == Path("/home/ada/.local/state/meshlib")
    assert sqlite_url(Path("/state")) == "sqlite:///state/control.db"
