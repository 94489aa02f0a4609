"""What one `meshctl serve` is started with: frozen, checked before anything opens."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meshlib_control.errors import OperatorError

DEFAULT_XDS_PORT = 15012  # Istio's secure xDS port
DEFAULT_INSECURE_XDS_PORT = 15010  # Istio's plaintext xDS port
DEFAULT_CA_PORT = 15013
DEFAULT_ADMIN_PORT = 15014  # Istio's control plane monitoring port
MIN_TTL = 10.0  # seconds, of workloads' certificates: below, renewals and clocks get in each other's way
MAX_TTL = 7 * 86400.0
DEFAULT_ADMIN = f"http://127.0.0.1:{DEFAULT_ADMIN_PORT}"


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_STATE_HOME/meshlib``, as the XDG base directory specification has it for state that should survive."""
    base = environ.get("XDG_STATE_HOME", "")
    # The specification: relative paths are invalid and to be ignored.
    root = Path(base) if base.startswith("/") else Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    return root / "meshlib"


class SettingsError(OperatorError):
    """The service cannot be started like this."""


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
class Security:
    """How clients prove who they are, and what protects the certificate authority's keys."""

    trust_domain: str = "cluster.local"
    # Where certificates are handed out against a token: TLS of the server alone, as the caller has no certificate yet.
    ca_listen: Address = field(default_factory=lambda: Address("127.0.0.1", DEFAULT_CA_PORT))
    # The key that encrypts the authority's keys in the store: file:PATH, env:NAME or command:WORDS; empty: one made in `data`.
    ca_key: str = ""
    # An authority of one's own instead of a self-signed one: chain (its own certificate first) and key, PEM.
    ca_chain: Path | None = None
    ca_chain_key: Path | None = None
    certificate_ttl: float = 86400.0  # seconds; workloads renew at half of it
    max_chain_age: float = 0.0  # seconds of renewals after which a workload proves itself anew; 0: never
    jwt_issuers: Path | None = None  # who else may say who a caller is
    # What this machine keeps beside the store: the REST API's token, the key of an embedded store's authority, and its memory
    # of the authority.
    data: Path = field(default_factory=default_data_dir)


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds.

    `config`: files and folders that are read beside the store, and re-read when they change; they cannot be written to.
    `security` None is ``--insecure-dev``: nothing is encrypted or authenticated, and only this machine can connect.
    """

    store: str = ""  # "" stands for `default_store()`
    listen: Address = field(default_factory=lambda: Address("127.0.0.1", DEFAULT_XDS_PORT))
    admin: Address = field(default_factory=lambda: Address("127.0.0.1", DEFAULT_ADMIN_PORT))
    security: Security | None = None
    consul_catalog: str = ""
    mesh_domain: str = "cluster.local"
    config: tuple[Path, ...] = ()
    # Hosts, *.suffixes and networks that key sets may be fetched from although they are not public.
    fetch_allow: tuple[str, ...] = ()
    debounce_quiet: float = 0.1
    debounce_max: float = 10.0
    lease_ttl: float = 15.0
    poll_interval: float = 1.0  # of the `config` files
    grace: float = 5.0  # how long running requests may take to end after SIGTERM

    def __post_init__(self) -> None:
        self._check_addresses()
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

    def _check_addresses(self) -> None:
        if self.security is None and not self.listen.is_loopback:
            raise SettingsError(
                f"refusing to listen on {self.listen}",
                where="--listen",
                why="with --insecure-dev nothing is authenticated, so whoever reaches this port could join the mesh",
                next_step="Listen on 127.0.0.1, or leave --insecure-dev out.",
            )
        if not self.admin.is_loopback:
            raise SettingsError(
                f"refusing to listen on {self.admin}",
                where="--admin",
                why="the REST API is not encrypted, so its token could be read on the way",
                next_step="Listen on 127.0.0.1; from elsewhere, forward the port, for instance with ssh -L.",
            )
        if self.security is not None:
            _check_security(self.security, self.store)

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


def _check_security(security: Security, store: str) -> None:
    if not MIN_TTL <= security.certificate_ttl <= MAX_TTL:
        raise SettingsError(
            f"certificates of {security.certificate_ttl:g} s",
            where="--certificate-ttl",
            why=f"expected {MIN_TTL:g} s to {MAX_TTL / 86400:g} days",
            next_step="24 hours (86400) is the default.",
        )
    if (security.ca_chain is None) != (security.ca_chain_key is None):
        raise SettingsError(
            "half of a certificate authority",
            where="--ca-chain and --ca-chain-key",
            why="its certificate and its key are needed both",
            next_step="Give both options, or neither for an authority that is made here.",
        )
    for where, path in (
        ("--ca-chain", security.ca_chain),
        ("--ca-chain-key", security.ca_chain_key),
        ("--jwt-issuers", security.jwt_issuers),
    ):
        if path is not None and not path.exists():
            raise SettingsError(
                f"{path} does not exist", where=where, why="it was asked for", next_step="Create it, or leave the option out."
            )
    if store.startswith("consul://") and not security.ca_key:
        raise SettingsError(
            "no key for the certificate authority's keys",
            where="--ca-key",
            why="in Consul they are encrypted with a key that all replicas share, and that is not in Consul",
            next_step="For example --ca-key file:/etc/meshlib/ca.key with 32 random bytes in base64.",
        )


def without_secrets(url: str) -> str:
    """A store's URL for people: without the options, of which a token is one."""
    return url.partition("?")[0]


def admin_token_file(directory: Path) -> Path:
    """Where the token is that the REST API asks for."""
    return directory / "admin-token"


def ca_key_file(directory: Path) -> Path:
    """What protects the keys of the certificate authority in the embedded store."""
    return directory / "ca.key"


def ca_witness_file(directory: Path) -> Path:
    """What this machine remembers of the certificate authority: a store that lost it is noticed."""
    return directory / "ca.witness"


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
