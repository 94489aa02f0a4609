"""TLS to hosts that are not of the mesh (DestinationRule modes SIMPLE and MUTUAL): DNS names, and other people's roots."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from pathlib import Path
from typing import cast

from meshlib.model.cluster import UpstreamTls
from meshlib.runtime.tls.objects import Checked, TlsObject, TlsSocket
from meshlib.runtime.tls.verify import reject

NEVER = float("inf")


class OutsideSide:
    """A client's side.  Files are read again when they change.  Raises OSError and ssl.SSLError when it is used."""

    def __init__(self, tls: UpstreamTls) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._files: tuple[tuple[int, int], ...] = ()
        self.alpn: tuple[str, ...] = ("http/1.1",)

    def check_ready(self) -> None:
        self._current()

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, host: str = "") -> TlsObject:
        made = self._current().wrap_bio(incoming, outgoing, server_hostname=self._name(host))
        assert isinstance(made, TlsObject)
        made.check = NameCheck(self._tls)
        return made

    def wrap_socket(self, connected: socket.socket, *, host: str = "", suppress_ragged_eofs: bool = True) -> TlsSocket:
        made = self._current().wrap_socket(
            connected,
            server_hostname=self._name(host),
            do_handshake_on_connect=False,
            suppress_ragged_eofs=suppress_ragged_eofs,
        )
        assert isinstance(made, TlsSocket)
        made.check = NameCheck(self._tls)
        return made

    def _name(self, host: str) -> str | None:
        """For SNI, and what the certificate must be for unless `dns_names` say otherwise."""
        name = self._tls.sni or host
        if not name and self._tls.verify and not self._tls.dns_names:
            raise ssl.SSLError("neither a server name (sni) nor a host is known, so no certificate could be the right one")
        return name or None

    def _current(self) -> ssl.SSLContext:
        tls = self._tls
        files = tuple(_changed(name) for name in (tls.ca_file, tls.certificate_file, tls.key_file) if name)
        with self._lock:
            if self._context is None or files != self._files:
                self._context, self._files = self._build(), files
            self._context.set_alpn_protocols(list(self.alpn))
            return self._context

    def _build(self) -> ssl.SSLContext:
        tls = self._tls
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = tls.verify and not tls.dns_names
        context.verify_mode = ssl.CERT_REQUIRED if tls.verify else ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.minimum_version == "TLSv1_3" else ssl.TLSVersion.TLSv1_2
        if tls.ca_file:
            context.load_verify_locations(cafile=tls.ca_file)
        elif tls.verify:
            context.load_default_certs()
        if tls.certificate_file:
            context.load_cert_chain(tls.certificate_file, tls.key_file or None)
        return context


class NameCheck:
    """The certificate must have one of `dns_names`, if there are any; OpenSSL has looked at everything else."""

    generation = 0
    not_after = NEVER

    def __init__(self, tls: UpstreamTls) -> None:
        self._names = tls.dns_names if tls.verify else ()

    def __call__(self, tls: Checked) -> None:
        if not self._names:
            return
        assert isinstance(tls, TlsObject | TlsSocket)
        found = cast("tuple[tuple[str, str], ...]", (tls.getpeercert() or {}).get("subjectAltName", ()))
        if not any(_is_named(name, found) for name in self._names):
            reject("name", f"it is for {', '.join(value for _, value in found) or 'nobody'}; expected {', '.join(self._names)}")

    def accepted(self, connected: socket.socket, *, handshake: bool) -> ssl.SSLSocket:
        raise ssl.SSLError("TLS to outside hosts is for clients")


def matches(pattern: str, name: str) -> bool:
    """A DNS name of a certificate for `name`; ``*`` is the whole leftmost label, and no more (RFC 9525 section 6.3)."""
    pattern, name = pattern.lower().removesuffix("."), name.lower().removesuffix(".")
    if not pattern.startswith("*."):
        return pattern == name
    first, _, rest = name.partition(".")
    return bool(first) and "." in rest and rest == pattern[2:]


def _is_named(name: str, found: tuple[tuple[str, str], ...]) -> bool:
    """Only names of the same kind are compared (CVE-2022-21656)."""
    if "://" in name:
        return ("URI", name) in found
    try:
        return ("IP Address", str(ipaddress.ip_address(name))) in found
    except ValueError:
        return any(kind == "DNS" and "\0" not in value and matches(value, name) for kind, value in found)


class _Context(ssl.SSLContext):
    sslobject_class = TlsObject
    sslsocket_class = TlsSocket


def _changed(name: str) -> tuple[int, int]:
    found = Path(name).stat()
    return found.st_mtime_ns, found.st_size
