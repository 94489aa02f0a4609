"""Fetching a document from an address that somebody else wrote down, without becoming their way into our network.

Whoever may write a RequestAuthentication chooses where this process connects to, so (OWASP "SSRF prevention"; CVE-2026-41413):
a name is resolved once, every address that it has is checked, and the connection goes to a checked one; there are no redirects,
no proxies, no credentials in addresses; an answer is read up to a limit, never decompressed, and never shown to anybody.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

import httpx

from meshlib_control.errors import ControlServiceError

MAX_BYTES: Final = 1024 * 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> addresses.  Raises `OSError`."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")))
"""Of clouds that do not use link-local addresses for it: Alibaba, Azure, Oracle, AWS."""

_NOT_PUBLIC = (ipaddress.IPv6Network("fec0::/10"), ipaddress.IPv6Network("64:ff9b:1::/48"))  # unknown to `is_global`
_MAX_ADDRESSES = 4  # that are tried; one of several may be unreachable from here


class FetchFailed(ControlServiceError):
    """A document cannot be had.  The message never holds what was answered."""


class AllowedTargets:
    """What may be reached although it is not public.

    Entries are host names (``keys.corp.example``, ``*.corp.example``: also without TLS) and networks or addresses
    (``10.1.0.0/16``).  What tells a machine's secrets to whoever asks (link-local, clouds' metadata) needs a network.
    Raises `ValueError` for an entry that is neither.
    """

    def __init__(self, entries: Collection[str] = ()) -> None:
        self._names: set[str] = set()
        self._suffixes: list[str] = []
        self._networks: list[Network] = []
        for entry in entries:
            self._add(entry.strip().lower())

    def _add(self, entry: str) -> None:
        try:
            self._networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            name = entry.removeprefix("*.")
            if not name or "/" in entry or ":" in entry or "*" in name:
                message = f"{entry!r} is neither a host name, nor *.suffix, nor a network such as 10.0.0.0/8"
                raise ValueError(message) from None
            if name == entry:
                self._names.add(name)
            else:
                self._suffixes.append(f".{name}")

    def names(self, host: str) -> bool:
        """Is the host itself allowed?"""
        host = host.lower().removesuffix(".")
        return host in self._names or any(host.endswith(suffix) for suffix in self._suffixes)

    def holds(self, address: Address) -> bool:
        """Is the address in an allowed network?"""
        return any(address in network for network in self._networks)

    def fault(self, host: str, address: Address) -> str | None:
        """Why an address that `host` has must not be connected to."""
        address = _unwrapped(address)
        if self.holds(address):
            return None
        if address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA:
            return "is link-local, multicast or a cloud's metadata service"
        public = address.is_global and not address.is_reserved and not any(address in network for network in _NOT_PUBLIC)
        return None if public or self.names(host) else "is not public"


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if inner is None and (address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 1)):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or ipaddress.IPv6Address(int(address))  # without a zone


async def system_resolve(host: str, port: int) -> Sequence[str]:
    """As the system does it; in a thread, since it blocks."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedFetch:
    """Call it with an address to get the document there.

    `context`: TLS, by default with the system's roots; `resolve`: for tests.
    """

    def __init__(
        self,
        allowed: AllowedTargets | None = None,
        *,
        context: ssl.SSLContext | None = None,
        resolve: Resolve = system_resolve,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._allowed = allowed or AllowedTargets()
        self._context = context
        self._resolve = resolve
        self._max_bytes = max_bytes

    async def __call__(self, address: str, timeout: float = 5.0) -> bytes:
        """`timeout`: seconds for all of it.  Raises `FetchFailed`."""
        url = self._checked(address)
        shown = f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}"
        try:
            async with asyncio.timeout(timeout):
                return await self._fetch(url)
        except FetchFailed as error:
            raise FetchFailed(f"{shown}: {error}") from error
        except TimeoutError as error:
            raise FetchFailed(f"{shown}: no complete answer within {timeout:g} s") from error
        except (httpx.HTTPError, OSError, UnicodeError) as error:
            raise FetchFailed(f"{shown}: {_reason(error)}") from error

    def _checked(self, address: str) -> httpx.URL:
        try:
            url = httpx.URL(address)
        except (httpx.InvalidURL, TypeError) as error:
            raise FetchFailed(f"{address!r} is not an address") from error
        if url.scheme not in ("https", "http") or not url.raw_host:
            raise FetchFailed(f"{address!r} is not an address that starts with https://")
        if url.userinfo:
            raise FetchFailed(f"the address of {url.host} holds a password; documents are fetched without credentials")
        if url.scheme == "http" and not self._plaintext_allowed(url.host):
            message = f"{url.host}: plain http can be changed on its way; use https, or allow the host by name"
            raise FetchFailed(message)
        return url

    def _plaintext_allowed(self, host: str) -> bool:
        try:
            return self._allowed.holds(_unwrapped(ipaddress.ip_address(host)))
        except ValueError:
            return self._allowed.names(host)

    async def _fetch(self, url: httpx.URL) -> bytes:
        host = url.raw_host.decode("ascii")
        addresses = await self._addresses(host, url.port or (443 if url.scheme == "https" else 80))
        if self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context)
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(verify=self._context, trust_env=False, follow_redirects=False, limits=limits) as client:
            for address in addresses[:-1]:
                try:
                    return await self._get(client, url, host, address)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    continue
            return await self._get(client, url, host, addresses[-1])

    async def _addresses(self, host: str, port: int) -> list[str]:
        """One address that must not be reached spoils them all: who answers so is not to be talked to."""
        try:
            found = list(await self._resolve(host, port))
        except OSError as error:
            raise FetchFailed(f"the name cannot be resolved: {error}") from error
        for address in found:
            fault = self._allowed.fault(host, ipaddress.ip_address(address))
            if fault:
                message = f"its address {address} {fault}; the control service may not be sent there unless it is allowed"
                raise FetchFailed(message)
        if not found:
            raise FetchFailed("the name has no address")
        return found[:_MAX_ADDRESSES]

    async def _get(self, client: httpx.AsyncClient, url: httpx.URL, host: str, address: str) -> bytes:
        headers = {"host": url.netloc.decode("ascii"), "accept": "application/json", "accept-encoding": "identity"}
        request = client.build_request("GET", url.copy_with(host=address), headers=headers)
        if host != address:
            request.extensions["sni_hostname"] = host  # the name that the certificate must have
        response = await client.send(request, stream=True)
        try:
            return await self._read(response)
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code != 200:
            redirected = "; redirections are not followed" if response.is_redirect else ""
            raise FetchFailed(f"the answer has status {response.status_code}{redirected}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchFailed("the answer is compressed, although that was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                raise FetchFailed(f"the answer is larger than {self._max_bytes} bytes")
        return bytes(body)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
