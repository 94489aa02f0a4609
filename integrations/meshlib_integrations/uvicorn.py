"""meshlib under uvicorn: ``uvicorn app:app --http meshlib_integrations.uvicorn:MeshProtocol``.

One port takes mTLS and plaintext, told apart by the first byte, as far as the mode of the port allows; on asyncio and uvloop,
with ``--workers``.  The application still needs `meshlib_integrations.asgi.MeshMiddleware`, which decides about requests.
"""

from __future__ import annotations

from meshlib_integrations._mesh_protocol import MeshH11Protocol, MeshProtocol
from meshlib_integrations._serving import server_speaks_mtls

__all__ = ["MeshH11Protocol", "MeshProtocol"]

server_speaks_mtls()
