"""Where a lab ends."""

from __future__ import annotations

import httpx

from meshlib.errors import OutboundBlocked


class NoOutside(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """For hosts that the mesh does not know: a lab has no network, and a test must not reach one unawares."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise _unknown(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise _unknown(request)


def _unknown(request: httpx.Request) -> OutboundBlocked:
    return OutboundBlocked(
        "the host is not part of the lab, which has no network: declare it by mesh_lab.service(...), or check the name",
        authority=str(request.url.netloc, "ascii"),
    )
