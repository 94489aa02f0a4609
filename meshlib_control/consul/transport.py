"""py-consul's seam for HTTP, filled by an aiohttp session of our own.

What py-consul's own session lacks: response headers reach the caller, a blocking query's timeout follows its wait,
network errors are of one type, and nothing is opened before the first request.  Imports py-consul: import it late.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import consul
import consul.base

from meshlib_control.consul.address import ConsulAddress
from meshlib_control.consul.errors import ConsulError

Params = Sequence[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Reply:
    """`content` is what py-consul's callback made of the body."""

    status: int
    headers: Mapping[str, str]
    content: Any


class Transport(consul.base.HTTPClient):  # type: ignore[misc]
    """Requests with a timeout each; every status but 404 and 409 from 400 up is a `ConsulError`."""

    def __init__(self, address: ConsulAddress, timeout: float) -> None:
        super().__init__(address.host, address.port, address.scheme)
        if ":" in address.host:
            self.base_uri = f"{address.scheme}://[{address.host}]:{address.port}"
        self._address = address
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def get(
        self,
        callback: Callable[[Any], Any],
        path: str,
        params: Params | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 0.0,
    ) -> Reply:
        return await self._send("GET", callback, self.uri(path, params), headers=headers, timeout=timeout)

    async def put(
        self,
        callback: Callable[[Any], Any],
        path: str,
        params: Params | None = None,
        data: str | bytes = "",
        headers: dict[str, str] | None = None,
    ) -> Reply:
        return await self._send("PUT", callback, self.uri(path, params), headers=headers, data=data)

    async def delete(
        self,
        callback: Callable[[Any], Any],
        path: str,
        params: Params | None = None,
        data: str | bytes = "",
        headers: dict[str, str] | None = None,
    ) -> Reply:
        return await self._send("DELETE", callback, self.uri(path, params), headers=headers, data=data)

    async def post(
        self,
        callback: Callable[[Any], Any],
        path: str,
        params: Params | None = None,
        data: str | bytes = "",
        headers: dict[str, str] | None = None,
    ) -> Reply:
        return await self._send("POST", callback, self.uri(path, params), headers=headers, data=data)

    async def close(self) -> None:
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(
        self,
        method: str,
        callback: Callable[[Any], Any],
        uri: str,
        *,
        headers: dict[str, str] | None,
        data: str | bytes = "",
        timeout: float = 0.0,
    ) -> Reply:
        what = f"{method} {uri.removeprefix(self.base_uri).partition('?')[0]} to {self._address}"
        try:
            async with self._opened().request(
                method,
                uri,
                headers=headers,
                data=data or None,
                timeout=aiohttp.ClientTimeout(total=timeout or self._timeout),
                allow_redirects=False,
            ) as response:
                body = await response.text(encoding="utf-8")
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
            raise ConsulError(f"{what} failed: {error or type(error).__name__}") from error
        if response.status >= 300 and response.status not in (404, 409):
            raise ConsulError(f"{what}: status {response.status}: {body.strip()[:300]}", response.status)
        reply = consul.base.Response(response.status, response.headers, body)
        try:
            return Reply(response.status, response.headers, callback(reply))
        except (consul.ConsulException, ValueError) as error:
            raise ConsulError(f"{what}: an answer that is not Consul's: {error}"[:400], response.status) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ConsulError(f"the client of {self._address} is closed")
        if self._session is None:
            # Each watch holds a connection for itself, so the number is not limited here.
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls())
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._session

    def _tls(self) -> ssl.SSLContext | bool:
        address = self._address
        if address.scheme != "https":
            return True
        context = ssl.create_default_context(cafile=address.ca_file or None)
        if address.cert_file:
            context.load_cert_chain(address.cert_file, address.key_file or None)
        return context
