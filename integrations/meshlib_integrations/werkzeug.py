"""meshlib under Werkzeug's development server, which is Flask's: ``app.run(request_handler=MeshRequestHandler)``."""

from __future__ import annotations

from typing import Any

from werkzeug.serving import WSGIRequestHandler

from meshlib.lowlevel import NotAdmitted, admit
from meshlib_integrations._serving import server_speaks_mtls, serving_mesh

__all__ = ["MeshRequestHandler"]

server_speaks_mtls()


class MeshRequestHandler(WSGIRequestHandler):
    """``run_simple(..., request_handler=MeshRequestHandler)``: mTLS and plaintext on one port, told apart by the first byte."""

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        try:
            admitted = admit(serving_mesh().listening, request)
        except NotAdmitted:
            return
        try:
            super().__init__(admitted, client_address, server)
        finally:
            admitted.close()
