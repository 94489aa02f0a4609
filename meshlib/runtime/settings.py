"""What a Mesh is built from; the environment is read here, once, and nowhere else."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meshlib.errors import ConfigError
from meshlib.model.endpoint import Locality
from meshlib.model.workload import Workload

DEFAULT_CONTROL = "127.0.0.1:15012"
DEFAULT_CA_PORT = 15013
logger = logging.getLogger("meshlib")

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Settings:
    """Validated; raises ConfigError naming the argument and what was expected.  Times in seconds."""

    control: str = DEFAULT_CONTROL  # host:port, or several separated by commas, tried in turn
    service: str = ""
    # Empty: those of this process's certificate; without one, "default".
    namespace: str = ""
    service_account: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: str = ""  # region/zone/sub_zone
    port: int | None = None  # that this process serves; None: it only calls
    address: str = ""  # that callers reach it by; empty: the one that it reaches the control service from
    service_port: int = 0  # that callers name; 0: 80
    protocol: str = "http"
    instance: str = ""
    weight: int = 1
    group: str = ""  # the WorkloadGroup of its namespace that this process joins: labels, ports, weight ... are its template's
    # Who vouches for this process: a token (a join token, or a JWT of an issuer that the control service trusts), shown to the
    # CA (empty: port 15013 of the control service), whose root is known by its file or by its SHA-256.
    token_file: str = ""
    ca: str = ""
    ca_file: str = ""
    ca_sha256: str = ""
    # Where key and certificate are kept for the other workers of this service and for its next start; empty: nowhere.
    identity_dir: str = ""
    insecure_dev: bool = False  # no certificates at all, and only on this machine
    mesh_port: int = 0  # of the middleware's own listener for mTLS; 0: the server itself speaks it, or there is none
    drain_seconds: float = 1.0  # between deregistration and the end of accepting: callers learn of it meanwhile

    def __post_init__(self) -> None:
        for name in ("port", "service_port", "mesh_port", "weight", "drain_seconds"):
            number = getattr(self, name)
            if number is not None and not isinstance(number, int | float if name == "drain_seconds" else int):
                raise ConfigError(f"{name}={number!r}: expected a number, not {type(number).__name__}")
        for target in self.control.split(","):
            check_address("control", target.strip())
        self._check_identity()
        for name, value in (("service", self.service or "none"), ("namespace", self.namespace or "none")):
            if not _NAME.fullmatch(value):
                raise ConfigError(f"{name}={value!r}: expected a DNS label (a-z, 0-9 and '-'), like 'reviews'")
        if self.service_account and not all(_NAME.fullmatch(part) for part in self.service_account.split(".")):
            raise ConfigError(f"service_account={self.service_account!r}: expected a DNS name (a-z, 0-9, '-' and '.')")
        for key, value in self.labels.items():
            if not key or not isinstance(value, str) or (value and not _LABEL.fullmatch(value)):
                raise ConfigError(f"labels: {key!r}={value!r} is not a Kubernetes label")
        if self.port is not None and not 0 < self.port < 65536:
            raise ConfigError(f"port={self.port}: expected 1 to 65535")
        if self.port is not None and not self.service:
            raise ConfigError("port is given but service (MESHLIB_SERVICE) is not: which service does this process serve?")
        if self.group and not all(_NAME.fullmatch(part) for part in self.group.split(".")):
            raise ConfigError(f"group={self.group!r}: expected the name of a WorkloadGroup (a-z, 0-9, '-' and '.')")
        if not 0 <= self.mesh_port < 65536:
            raise ConfigError(f"mesh_port={self.mesh_port}: expected 1 to 65535, or 0 for none")
        if not 0 <= self.service_port < 65536:
            raise ConfigError(f"service_port={self.service_port}: expected 1 to 65535, or 0 for 80")
        if self.weight < 1:
            raise ConfigError(f"weight={self.weight}: expected at least 1")
        if not 0 <= self.drain_seconds < float("inf"):
            raise ConfigError(f"drain_seconds={self.drain_seconds}: expected a number of seconds, 0 or more")

    def _check_identity(self) -> None:
        if self.insecure_dev:
            for target in self.control.split(","):
                host, _ = check_address("control", target.strip())
                if host != "localhost" and not host.startswith("127.") and host != "::1":
                    raise ConfigError(f"insecure_dev: control={target.strip()!r} is not on this machine; expected 127.0.0.1")
            if self.token_file or self.ca_file or self.ca_sha256 or self.identity_dir:
                raise ConfigError(
                    "insecure_dev contradicts token_file, ca_file, ca_sha256 and identity_dir: leave one side out"
                )
        if self.ca:
            check_address("ca", self.ca)
        if self.ca_sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", self.ca_sha256.replace(":", "")):
            raise ConfigError(f"ca_sha256={self.ca_sha256!r}: expected 64 hex digits, as `meshctl ca bundle` prints them")

    @property
    def ca_address(self) -> str:
        """``host:port`` that hands out certificates."""
        if self.ca:
            return self.ca
        host = self.control.split(",")[0].strip().rpartition(":")[0]
        return f"{host}:{DEFAULT_CA_PORT}"

    def workload(self) -> Workload:
        """Who this process is.  The instance is made unique here, so a forked child gets one of its own.

        Its label ``app`` is its service unless it says otherwise: selectors of policies are written with it everywhere.
        """
        return Workload(
            service=self.service,
            namespace=self.namespace,
            service_account=self.service_account,
            labels={"app": self.service, **self.labels} if self.service else dict(self.labels),
            locality=Locality.parse(self.locality),
            group=self.group,
            instance=self.instance or f"{self.service or 'client'}-{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}",
        )


def check_address(name: str, value: str) -> tuple[str, int]:
    """``host:port`` taken apart.  Raises ConfigError."""
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{name}={value!r}: expected host:port, like '{DEFAULT_CONTROL}'")
    return host.strip("[]"), int(port)


_VARIABLES = {
    "MESHLIB_CONTROL": "control",
    "MESHLIB_SERVICE": "service",
    "MESHLIB_NAMESPACE": "namespace",
    "MESHLIB_SERVICE_ACCOUNT": "service_account",
    "MESHLIB_LABELS": "labels",
    "MESHLIB_LOCALITY": "locality",
    "MESHLIB_PORT": "port",
    "MESHLIB_ADDRESS": "address",
    "MESHLIB_SERVICE_PORT": "service_port",
    "MESHLIB_PROTOCOL": "protocol",
    "MESHLIB_INSTANCE": "instance",
    "MESHLIB_WEIGHT": "weight",
    "MESHLIB_WORKLOAD_GROUP": "group",
    "MESHLIB_DRAIN_SECONDS": "drain_seconds",
    "MESHLIB_TOKEN_FILE": "token_file",
    "MESHLIB_CA": "ca",
    "MESHLIB_CA_FILE": "ca_file",
    "MESHLIB_CA_SHA256": "ca_sha256",
    "MESHLIB_IDENTITY_DIR": "identity_dir",
    "MESHLIB_INSECURE_DEV": "insecure_dev",
    "MESHLIB_MESH_PORT": "mesh_port",
}
"""Every variable that is read, and the argument that it stands for."""


def from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """Keyword arguments for `Settings`.  Raises ConfigError naming the variable."""
    found: dict[str, object] = {}
    for variable, name in _VARIABLES.items():
        text = environ.get(variable, "").strip()
        if text:
            found[name] = _parse(variable, name, text)
            _check(variable, name, found[name])
    unknown = sorted(key for key in environ if key.startswith("MESHLIB_") and key not in _VARIABLES)
    if unknown:
        # No error: Kubernetes makes such variables up for every service whose name begins with "meshlib".
        logger.warning("not read: %s; known are %s", ", ".join(unknown), ", ".join(_VARIABLES))
    return found


def _parse(variable: str, name: str, text: str) -> object:
    if name == "labels":
        return parse_labels(variable, text)
    if name == "insecure_dev":
        if text not in ("0", "1", "false", "true"):
            raise ConfigError(f"{variable}={text!r}: expected 1 or 0")
        return text in ("1", "true")
    try:
        if name in ("port", "service_port", "mesh_port", "weight"):
            return int(text)
        if name == "drain_seconds":
            return float(text)
    except ValueError:
        raise ConfigError(f"{variable}={text!r}: expected a number") from None
    return text


def _check(variable: str, name: str, value: Any) -> None:
    """Each for itself: what is wrong with one is not blamed on another, and `overrides` may still supply what is missing."""
    try:
        Settings(**{"service": "any", name: value})
    except ConfigError as error:
        raise ConfigError(f"{variable}: {error}") from None


def parse_labels(name: str, text: str) -> dict[str, str]:
    """``version=v1,app=reviews``.  Raises ConfigError."""
    labels = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{name}={text!r}: expected key=value pairs separated by commas, like 'version=v1'")
        labels[key.strip()] = value.strip()
    return labels
