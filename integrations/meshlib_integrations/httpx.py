"""meshlib under httpx: ``httpx.AsyncClient(transport=AsyncMeshTransport(mesh))``.

One call may say more than its URL: ``client.get(url, extensions={"meshlib": {"timeout": 0.5, "retries": 0}})``, or a
`meshlib.Overrides`.  What it went through is in ``response.extensions["meshlib"]``, a `meshlib.CallRecord`.
"""

from __future__ import annotations

import httpx

from meshlib_integrations._httpx import AsyncCalls, BlockingCalls, Dialect

__all__ = ["AsyncMeshTransport", "MeshTransport"]

_DIALECT: Dialect[httpx.Request, httpx.Response] = Dialect(httpx)


class MeshTransport(BlockingCalls[httpx.Request, httpx.Response], httpx.BaseTransport):
    """For ``httpx.Client``.  Thread-safe."""

    dialect = _DIALECT


class AsyncMeshTransport(AsyncCalls[httpx.Request, httpx.Response], httpx.AsyncBaseTransport):
    """For ``httpx.AsyncClient`` on asyncio or uvloop."""

    dialect = _DIALECT
