"""The moment when a process begins to serve: say so to the mesh, with the port that callers are to use."""

from __future__ import annotations

import logging

from meshlib import Mesh
from meshlib_integrations._serving import does_server_speak_mtls

logger = logging.getLogger("meshlib")


def announce(mesh: Mesh) -> None:
    """Announce the listener's port, if there is one, or else the server's own."""
    listening = mesh.listening
    if does_server_speak_mtls():
        listening.speaks_mtls = True
    mesh.serve_started(mesh.settings.mesh_port or None)
    if listening.contexts is not None and not listening.speaks_mtls:
        logger.warning(
            "this process has an identity, but its server cannot take mTLS: callers in the mesh are refused under STRICT; use "
            "uvicorn with --http meshlib_integrations.uvicorn:MeshProtocol, a worker of meshlib_integrations.gunicorn, or "
            "mesh_port (MESHLIB_MESH_PORT), where meshlib listens by itself"
        )
