"""What one `meshctl serve` is started with: frozen, checked before anything opens."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meshlib_control.errors import ControlServiceError

DEFAULT_XDS_PORT = 15010  # Istio's plaintext xDS port
DEFAULT_ADMIN_PORT = 15014  # Istio's control plane monitoring port
DEFAULT_ADMIN = f"http://127.0.0.1:{DEFAULT_ADMIN_PORT}"


class SettingsError(ControlServiceError):
    """The service cannot be started like this.  Says what, where, why and what to do next."""

    def __init__(self, what: str, *, where: str, why: str, next_step: str) -> None:
        super().__init__(f"{what} ({where}): {why}. {next_step}")
        self.what = what
        self.where = where
        self.why = why
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class Address:
    """Where a socket listens.  Port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, where: str) -> Address:
        """``127.0.0.1:15010`` or ``[::1]:15010``; the host is an IP address or ``localhost``."""
        host, separator, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535 or not _is_ip(host):
            raise SettingsError(
                f"{text!r} is not an address to listen on",
                where=where,
                why="expected IP:PORT with a port from 0 to 65535",
                next_step="For example 127.0.0.1:15010, or [::1]:0 for a port that the system chooses.",
            )
        return cls("127.0.0.1" if host == "localhost" else host, int(port))

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds.

    `config`: files and folders that are read beside the store, and re-read when they change; they cannot be written to.
    `insecure_dev` allows sockets beyond loopback although there is neither encryption nor authentication yet.
    """

    store: str = ""  # "" stands for `default_store()`
    listen: Address = field(default_factory=lambda: Address("127.0.0.1", DEFAULT_XDS_PORT))
    admin: Address = field(default_factory=lambda: Address("127.0.0.1", DEFAULT_ADMIN_PORT))
    consul_catalog: str = ""
    mesh_domain: str = "cluster.local"
    config: tuple[Path, ...] = ()
    insecure_dev: bool = False
    debounce_quiet: float = 0.1
    debounce_max: float = 10.0
    lease_ttl: float = 15.0
    poll_interval: float = 1.0  # of the `config` files
    grace: float = 5.0  # how long running requests may take to end after SIGTERM

    def __post_init__(self) -> None:
        for where, address in (("--listen", self.listen), ("--admin", self.admin)):
            if not address.is_loopback and not self.insecure_dev:
                raise SettingsError(
                    f"refusing to listen on {address}",
                    where=where,
                    why="nothing is encrypted or authenticated yet, so whoever reaches this port could reconfigure the mesh",
                    next_step="Listen on 127.0.0.1, or add --insecure-dev if this network is yours alone.",
                )
        for name, low in (
            ("debounce_quiet", 0.0),
            ("debounce_max", self.debounce_quiet),
            ("lease_ttl", 1.0),
            ("poll_interval", 0.05),
        ):
            if not low <= getattr(self, name) < 86400:
                flag = "--" + name.replace("_", "-")
                raise SettingsError(
                    f"{getattr(self, name)} s is not possible here",
                    where=flag,
                    why=f"expected at least {low} s and less than a day",
                    next_step=f"Give {flag} another value.",
                )
        for path in self.config:
            if not path.exists():
                raise SettingsError(
                    f"{path} does not exist",
                    where="--config",
                    why="configuration that is asked for and missing must not be taken for empty",
                    next_step="Create it, or leave the option out.",
                )

    @property
    def catalog_url(self) -> str:
        """Where Consul's catalog is, as ``consul://...``; a store in Consul brings its catalog along; empty for nowhere."""
        url = self.consul_catalog
        if url == "none":
            return ""
        if url.startswith(("http://", "https://")):
            scheme, _, rest = url.partition("://")
            return f"consul://{rest}{'&' if '?' in rest else '?'}scheme={scheme}"
        return url or (self.store if self.store.startswith("consul://") else "")


def without_secrets(url: str) -> str:
    """A store's URL for people: without the options, of which a token is one."""
    return url.partition("?")[0]


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_STATE_HOME/meshlib``, as the XDG base directory specification has it for state that should survive."""
    base = environ.get("XDG_STATE_HOME", "")
    # The specification: relative paths are invalid and to be ignored.
    root = Path(base) if base.startswith("/") else Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    return root / "meshlib"


def sqlite_url(directory: Path) -> str:
    """The store in `directory`, in the form that `open_store` takes."""
    return f"sqlite://{directory.absolute() / 'control.db'}"


def _is_ip(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
