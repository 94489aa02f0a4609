"""Where Consul is: the value behind ``consul://host:port/prefix?token=...``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from meshlib_control.errors import ControlServiceError

OPTIONS = ("token", "token_file", "dc", "scheme", "ca_file", "cert_file", "key_file")


@dataclass(frozen=True, slots=True)
class ConsulAddress:
    """`prefix` is where the store's keys live, "meshlib/" by default; everything else is how to reach the agent.

    An empty `token` leaves it to the environment (``CONSUL_HTTP_TOKEN``), as Consul's own tools do.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    prefix: str = "meshlib/"
    token: str = field(default="", repr=False)
    datacenter: str = ""
    scheme: str = "http"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"consul at {self.scheme}://{host}:{self.port}"


def parse_consul_url(url: str) -> ConsulAddress:
    """``consul://host[:port][/prefix][?token=|token_file=|dc=|scheme=https|ca_file=|cert_file=|key_file=]``.

    Raises `ControlServiceError` that names the part it does not understand; never shows the token.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or 8500
    except ValueError as error:
        raise ControlServiceError(f"the port of the Consul URL is not a number from 1 to 65535: {parts.netloc}") from error
    if parts.scheme != "consul" or not parts.hostname:
        raise ControlServiceError("a Consul URL looks like consul://127.0.0.1:8500/prefix?token=...")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ControlServiceError(f"unknown option {unknown[0]!r} in the Consul URL; known are {', '.join(OPTIONS)}")
    scheme = options.get("scheme", "http")
    if scheme not in ("http", "https"):
        raise ControlServiceError(f"scheme={scheme} in the Consul URL; expected http or https")
    prefix = unquote(parts.path).strip("/")
    return ConsulAddress(
        host=parts.hostname,
        port=port,
        prefix=f"{prefix}/" if prefix else "meshlib/",
        token=_token(options),
        datacenter=options.get("dc", ""),
        scheme=scheme,
        ca_file=options.get("ca_file", ""),
        cert_file=options.get("cert_file", ""),
        key_file=options.get("key_file", ""),
    )


def _token(options: dict[str, str]) -> str:
    path = options.get("token_file")
    if not path:
        return options.get("token", "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ControlServiceError(f"token_file of the Consul URL: {error}") from error
