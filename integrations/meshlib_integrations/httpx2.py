"""meshlib under httpx2: ``httpx2.AsyncClient(transport=AsyncMeshTransport(mesh))``.

One call may say more than its URL: ``client.get(url, extensions={"meshlib": {"timeout": 0.5, "retries": 0}})``, or a
`meshlib.Overrides`.  What it went through is in ``response.extensions["meshlib"]``, a `meshlib.CallRecord`.
"""

from __future__ import annotations

import httpx2

from meshlib_integrations._httpx import AsyncCalls, BlockingCalls, Dialect

__all__ = ["AsyncMeshTransport", "MeshTransport"]

_DIALECT: Dialect[httpx2.Request, httpx2.Response] = Dialect(httpx2)


class MeshTransport(BlockingCalls[httpx2.Request, httpx2.Response], httpx2.BaseTransport):
    """For ``httpx2.Client``.  Thread-safe."""

    dialect = _DIALECT


class AsyncMeshTransport(AsyncCalls[httpx2.Request, httpx2.Response], httpx2.AsyncBaseTransport):
    """For ``httpx2.AsyncClient`` on asyncio or uvloop."""

    dialect = _DIALECT
